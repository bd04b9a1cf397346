"""Features of other tools become the tokens of the patches that they are of, or are refused by name."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from slpd_core import artifacts
from slpd_core.artifacts.coordinate_files import SlideFeatures, Squares, read_tensor_features, read_trident_features
from slpd_core.slides.imported_tokens import align_features, patch_corners

INFO = artifacts.SlideInfo("s", artifacts.OK, "", 4000, 3000, 0.499, "sheet", "f")
CORNERS = np.array([[0, 0], [1026, 0], [2052, 1026]], np.int64)
REGIONS = artifacts.Regions(INFO, CORNERS, np.ones(3, np.float32), 1024, 1026, 0.5)
GRID = 4


def planted(grid=GRID, dim=5):
    """Tokens that are all different: (3, grid * grid, dim)."""
    return np.random.default_rng(0).normal(size=(3, grid * grid, dim)).astype(np.float16)


def of_patches(tokens, *, order=None, extra=0, side=1026 / GRID, rounding=np.rint):
    corners = rounding(patch_corners(REGIONS, GRID)).astype(np.int64)
    corners = np.concatenate([corners, corners[:extra] + 40_000])
    vectors = np.concatenate([tokens.reshape(-1, tokens.shape[-1]), np.zeros((extra, tokens.shape[-1]), np.float16)])
    order = np.arange(len(corners)) if order is None else order
    return SlideFeatures(Squares(corners[order], side), vectors[order].astype(np.float32))


def test_the_corners_of_patches_are_row_by_row():
    corners = patch_corners(REGIONS, GRID).reshape(3, GRID, GRID, 2)
    for region, row, column in np.ndindex(3, GRID, GRID):
        x, y = CORNERS[region] + np.array([column, row]) * 256.5
        assert tuple(corners[region, row, column]) == (x, y)


@pytest.mark.parametrize("rounding", [np.rint, np.floor, np.ceil])
def test_features_in_any_order_and_among_others_find_their_patch(rounding):
    tokens = planted()
    order = np.random.default_rng(1).permutation(3 * GRID * GRID + 7)
    features = of_patches(tokens, order=order, extra=7, rounding=rounding)
    np.testing.assert_array_equal(align_features(features, REGIONS, GRID, "f.h5"), tokens)


def test_features_of_whole_regions_find_theirs():
    tokens, order = planted(), [2, 0, 1]
    features = SlideFeatures(Squares(CORNERS[order], 1026.0), tokens[order].astype(np.float32))
    np.testing.assert_array_equal(align_features(features, REGIONS, GRID, "f.pt"), tokens)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            of_patches(planted(), side=512),
            r"s: f\.h5 holds features of squares of 512 level-0 px \(255\.488 um\), but a p",
        ),
        (
            of_patches(planted(), order=np.arange(47)),
            r"no features of 1 of 48 patch corners, the first at \(2822, 1796\)",
        ),
        (SlideFeatures(Squares(np.empty((0, 2), np.int64)), np.empty((0, 5), np.float32)), "no features of 48 of 48"),
        (of_patches(planted() * np.float16(np.inf)), "not finite in float16"),
        (of_patches(planted().astype(np.float32) * 1e6), "not finite in float16"),
        (
            SlideFeatures(Squares(CORNERS), np.zeros((3, 9, 5), np.float32)),
            "9 vectors per region, but .* 4 x 4 patches",
        ),
    ],
)
def test_features_that_do_not_fit_are_refused_by_name(features, message):
    with pytest.raises(ValueError, match=message):
        align_features(features, REGIONS, GRID, "f.h5")


def test_a_grid_beside_ours_is_refused():
    features = of_patches(planted())
    shifted = replace(features, squares=replace(features.squares, coords=features.squares.coords + 2))
    with pytest.raises(ValueError, match="no features of 48 of 48 patch corners"):
        align_features(shifted, REGIONS, GRID, "f.h5")


def write_h5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def test_the_files_of_trident_and_clam_are_read(tmp_path):
    vectors, coords = np.ones((4, 3), np.float32), np.arange(8, dtype=np.int32).reshape(4, 2)
    path = write_h5(tmp_path / "s.h5", features=vectors, coords=coords)
    read = read_trident_features(path)
    assert (read.squares.side_level0_px, read.encoder, read.squares.coords.dtype) == (None, "", np.int64)
    with h5py.File(path, "a") as file:
        file["coords"].attrs["patch_size_level0"] = 513
        file["features"].attrs["encoder"] = "uni_v1"
    read = read_trident_features(path)
    assert (read.squares.side_level0_px, read.encoder) == (513.0, "uni_v1")
    np.testing.assert_array_equal(read.vectors, vectors)
    read = read_trident_features(write_h5(tmp_path / "batch.h5", features=vectors[None], coords=coords))
    assert read.vectors.shape == (4, 3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": np.ones((4, 3), np.float32), "coords": np.ones((5, 2), int)}, "4 features, but 5 coordinates"),
        ({"features": np.ones((4, 3), int), "coords": np.ones((4, 2), int)}, r"features int64 \(4, 3\), needs floats"),
        ({"features": np.ones((4, 3), np.float32), "coords": np.ones((4, 2))}, "needs whole numbers"),
        ({"features": np.ones((4, 3), np.float32)}, "coords"),
        ({}, "features"),
    ],
)
def test_files_of_another_form_are_refused_by_name(tmp_path, arrays, message):
    path = write_h5(tmp_path / "s.h5", **arrays)
    with pytest.raises(ValueError, match=message) as error:
        read_trident_features(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_no_hdf5_is_refused_by_name(tmp_path):
    (tmp_path / "s.h5").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"s\.h5"):
        read_trident_features(tmp_path / "s.h5")


def test_a_tensor_without_coordinates_is_refused_and_beside_them_read(tmp_path):
    torch.save(torch.ones(3, 16, 5, dtype=torch.float16), tmp_path / "s.pt")
    with pytest.raises(ValueError, match=r"states no coordinates.* as s\.coordinates\.npz, s\.h5, s_patches\.h5"):
        read_tensor_features(tmp_path / "s.pt")
    write_h5(tmp_path / "s_patches.h5", coords=CORNERS[:2])
    with pytest.raises(ValueError, match="3 features, but 2 coordinates"):
        read_tensor_features(tmp_path / "s.pt")
    np.savez(tmp_path / "s.coordinates.npz", x=CORNERS[:, 0], y=CORNERS[:, 1])
    (tmp_path / "s.coordinates.meta.json").write_text('{"tiling": {"tile_size_lv0": 1026}}')
    read = read_tensor_features(tmp_path / "s.pt")
    np.testing.assert_array_equal(read.squares.coords, CORNERS)
    assert (read.vectors.shape, read.squares.side_level0_px) == ((3, 16, 5), 1026.0)
