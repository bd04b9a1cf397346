"""Crops are true sub-grids, mirrored half of the time, anywhere on the region."""

import numpy as np
import torch

from slpd_core.pretraining.crops import crop_indices, cut


def test_a_crop_is_a_window_of_the_grid_or_its_mirror():
    where = crop_indices(200, 16, 6, 0.5, np.random.default_rng(0))
    rows, columns = np.divmod(where, 16)
    assert where.shape == (200, 6, 6)
    assert (np.diff(rows, axis=1) == 1).all()
    assert (np.diff(rows, axis=2) == 0).all()
    steps = np.diff(columns, axis=2)
    assert set(np.unique(steps)) == {-1, 1}
    assert (steps == steps[:, :1, :1]).all()


def test_every_corner_and_both_directions_are_drawn():
    where = crop_indices(5000, 16, 14, 0.5, np.random.default_rng(0))
    corners = {tuple(corner) for corner in np.stack(np.divmod(where.min((1, 2)), 16), axis=1)}
    assert corners == {(row, column) for row in range(3) for column in range(3)}
    mirrored = (where[:, 0, 0] > where[:, 0, -1]).mean()
    assert abs(mirrored - 0.5) < 0.03


def test_no_mirror_when_not_asked_for():
    where = crop_indices(50, 8, 3, 0.0, np.random.default_rng(0))
    assert (np.diff(where, axis=2) == 1).all()


def test_the_whole_grid_is_its_own_crop():
    where = crop_indices(3, 4, 4, 0.0, np.random.default_rng(0))
    np.testing.assert_array_equal(where, np.broadcast_to(np.arange(16).reshape(4, 4), (3, 4, 4)))


def test_cutting_gathers_each_regions_own_tokens():
    tokens = torch.arange(2 * 16 * 3).view(2, 4, 4, 3)
    where = crop_indices(6, 4, 2, 0.5, np.random.default_rng(1)).reshape(3, 2, 2, 2)
    found = cut(tokens, where)
    assert found.shape == (6, 2, 2, 3)
    for crop in range(3):
        for region in range(2):
            expected = tokens[region].view(16, 3)[torch.from_numpy(where[crop, region])]
            assert torch.equal(found[crop * 2 + region], expected)


def test_no_crops_may_be_cut():
    where = crop_indices(0, 4, 2, 0.5, np.random.default_rng(1)).reshape(0, 5, 2, 2)
    assert cut(torch.zeros(5, 4, 4, 3), where).shape == (0, 2, 2, 3)
