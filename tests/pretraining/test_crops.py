"""Crops are true sub-grids, mirrored half of the time, anywhere on the region."""

import numpy as np
import pytest
import torch

from slpd_core.pretraining.crops import CropParams, crop_indices, draw_crops, gather_crops, sample_crops

CPU = torch.device("cpu")


def draw(n_crops, grid, crop, augment, rng):
    """Random crops as indices of the flattened grid, (n_crops, crop, crop)."""
    return crop_indices(torch.from_numpy(draw_crops(n_crops, grid, crop, augment, rng)), crop).numpy()


@pytest.mark.parametrize("augment", ["none", "hflip", "dihedral"])
@pytest.mark.parametrize(("grid", "crop"), [(16, 14), (16, 6), (5, 5), (7, 1)])
def test_a_crop_is_its_corner_and_its_symmetries(augment, grid, crop):
    """To the bit that of the grid of indices, cut at the corner, then mirrored, flipped and transposed."""
    corners = (rng := np.random.default_rng(3)).integers(0, grid - crop + 1, size=(500, 2))
    likely = {"none": 0, "hflip": 1, "dihedral": 3}[augment]
    mirrored, flipped, transposed = (rng.random(500) < (0.5 if i < likely else 0) for i in range(3))
    whole, expected = np.arange(grid * grid).reshape(grid, grid), []
    for (row, column), *changes in zip(corners, mirrored, flipped, transposed, strict=True):
        window = whole[row : row + crop, column : column + crop]
        for change, changed in zip(changes, (np.fliplr, np.flipud, np.transpose), strict=True):
            window = changed(window) if change else window
        expected.append(window)
    np.testing.assert_array_equal(draw(500, grid, crop, augment, np.random.default_rng(3)), np.stack(expected))


def test_a_crop_is_a_window_of_the_grid_or_its_mirror():
    where = draw(200, 16, 6, "hflip", np.random.default_rng(0))
    rows, columns = np.divmod(where, 16)
    assert where.shape == (200, 6, 6)
    assert (np.diff(rows, axis=1) == 1).all()
    assert (np.diff(rows, axis=2) == 0).all()
    steps = np.diff(columns, axis=2)
    assert set(np.unique(steps)) == {-1, 1}
    assert (steps == steps[:, :1, :1]).all()


def test_every_corner_and_both_directions_are_drawn():
    where = draw(5000, 16, 14, "hflip", np.random.default_rng(0))
    corners = {tuple(corner) for corner in np.stack(np.divmod(where.min((1, 2)), 16), axis=1)}
    assert corners == {(row, column) for row in range(3) for column in range(3)}
    mirrored = (where[:, 0, 0] > where[:, 0, -1]).mean()
    assert abs(mirrored - 0.5) < 0.03


def test_no_mirror_when_not_asked_for():
    where = draw(50, 8, 3, "none", np.random.default_rng(0))
    assert (np.diff(where, axis=2) == 1).all()


def test_dihedral_draws_each_symmetry_of_a_square_as_often():
    whole = np.arange(9).reshape(3, 3)
    symmetries = {np.rot90(one, turns).tobytes() for one in (whole, whole.T) for turns in range(4)}
    where = draw(4000, 3, 3, "dihedral", np.random.default_rng(0))
    found, counts = np.unique(where.reshape(-1, 9), axis=0, return_counts=True)
    assert {one.tobytes() for one in found} == symmetries
    assert (abs(counts / 4000 - 1 / 8) < 0.02).all()


def test_a_share_of_a_batch_has_the_crops_it_has_in_the_whole(section):
    tokens = torch.randn(9, 4, 4, 8, generator=torch.Generator().manual_seed(0))
    regions, rows = np.array([8, 1, 4, 6]), np.array([1, 3])
    whole, share = (
        sample_crops(tokens, regions[which], which, 4, section.extract(CropParams), np.random.default_rng(7), CPU)
        for which in (np.arange(4), rows)
    )
    for all_crops, own in zip(whole, share, strict=True):
        assert torch.equal(all_crops[:, rows], own)


def test_the_whole_grid_is_its_own_crop():
    where = draw(3, 4, 4, "none", np.random.default_rng(0))
    np.testing.assert_array_equal(where, np.broadcast_to(np.arange(16).reshape(4, 4), (3, 4, 4)))


def test_cutting_gathers_each_regions_own_tokens():
    tokens = torch.arange(3 * 16 * 3).view(3, 4, 4, 3)
    drawn = draw_crops(6, 4, 2, "hflip", np.random.default_rng(1)).reshape(3, 3, 2)
    where = crop_indices(torch.from_numpy(drawn), 2)
    found = gather_crops(tokens, np.array([2, 0]), drawn, 2, CPU)
    assert found.shape == (3, 2, 2, 2, 3)
    for crop in range(3):
        for place, region in enumerate((2, 0)):
            expected = tokens[region].view(16, 3)[where[crop, place]]
            assert torch.equal(found[crop, place], expected.float())


def test_no_crops_may_be_cut():
    drawn = draw_crops(0, 4, 2, "hflip", np.random.default_rng(1)).reshape(3, 0, 5)
    assert gather_crops(torch.zeros(5, 4, 4, 3), np.arange(5), drawn, 2, CPU).shape == (0, 5, 2, 2, 3)
