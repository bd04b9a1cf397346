"""Crops are true sub-grids, mirrored half of the time, anywhere on the region."""

import numpy as np
import torch

from slpd_core.pretraining.crops import CropParams, crop_indices, gather_crops, sample_crops

CPU = torch.device("cpu")


def test_a_crop_is_a_window_of_the_grid_or_its_mirror():
    where = crop_indices(200, 16, 6, "hflip", np.random.default_rng(0))
    rows, columns = np.divmod(where, 16)
    assert where.shape == (200, 6, 6)
    assert (np.diff(rows, axis=1) == 1).all()
    assert (np.diff(rows, axis=2) == 0).all()
    steps = np.diff(columns, axis=2)
    assert set(np.unique(steps)) == {-1, 1}
    assert (steps == steps[:, :1, :1]).all()


def test_every_corner_and_both_directions_are_drawn():
    where = crop_indices(5000, 16, 14, "hflip", np.random.default_rng(0))
    corners = {tuple(corner) for corner in np.stack(np.divmod(where.min((1, 2)), 16), axis=1)}
    assert corners == {(row, column) for row in range(3) for column in range(3)}
    mirrored = (where[:, 0, 0] > where[:, 0, -1]).mean()
    assert abs(mirrored - 0.5) < 0.03


def test_no_mirror_when_not_asked_for():
    where = crop_indices(50, 8, 3, "none", np.random.default_rng(0))
    assert (np.diff(where, axis=2) == 1).all()


def test_dihedral_draws_each_symmetry_of_a_square_as_often():
    whole = np.arange(9).reshape(3, 3)
    symmetries = {np.rot90(one, turns).tobytes() for one in (whole, whole.T) for turns in range(4)}
    where = crop_indices(4000, 3, 3, "dihedral", np.random.default_rng(0))
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
    where = crop_indices(3, 4, 4, "none", np.random.default_rng(0))
    np.testing.assert_array_equal(where, np.broadcast_to(np.arange(16).reshape(4, 4), (3, 4, 4)))


def test_cutting_gathers_each_regions_own_tokens():
    tokens = torch.arange(3 * 16 * 3).view(3, 4, 4, 3)
    where = crop_indices(6, 4, 2, "hflip", np.random.default_rng(1)).reshape(3, 2, 2, 2)
    found = gather_crops(tokens, np.array([2, 0]), where, CPU)
    assert found.shape == (3, 2, 2, 2, 3)
    for crop in range(3):
        for place, region in enumerate((2, 0)):
            expected = tokens[region].view(16, 3)[torch.from_numpy(where[crop, place])]
            assert torch.equal(found[crop, place], expected.float())


def test_no_crops_may_be_cut():
    where = crop_indices(0, 4, 2, "hflip", np.random.default_rng(1)).reshape(0, 5, 2, 2)
    assert gather_crops(torch.zeros(5, 4, 4, 3), np.arange(5), where, CPU).shape == (0, 5, 2, 2, 3)
