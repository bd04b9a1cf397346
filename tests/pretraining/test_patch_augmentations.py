"""Crops for stage one: each change against a plain oracle, and what is drawn within its bounds."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.color import hed_from_rgb, rgb_from_hed

from slpd_core.pretraining import patch_augmentations
from slpd_core.pretraining.patch_augmentations import SYMMETRIES, AugmentationParams, PatchCropParams

WHOLE = np.concatenate([np.eye(2), np.zeros((2, 1))], 1)
SAME_STAIN = np.concatenate([np.eye(3), np.zeros((1, 3))])


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def changes(n=2, **changed):
    """No change of one crop of each of n patches, but for those given."""
    plain = {"affine": WHOLE, "stain": SAME_STAIN, "contrast": np.array([1.0, 0.0]), "gray": 0.0, "blur": 0.0}
    return AugmentationParams(
        **{name: np.broadcast_to(value, (1, n, *np.shape(value))) for name, value in (plain | changed).items()}
    )


def test_no_change_changes_nothing(pixels):
    torch.testing.assert_close(patch_augmentations.augment(pixels, changes(), 16), pixels, atol=2e-6, rtol=1e-5)


def test_the_eight_symmetries_of_a_square(pixels):
    expected = [turned for k in range(4) for turned in (pixels.rot90(k, (2, 3)), pixels.rot90(k, (2, 3)).flip(3))]
    found = []
    for symmetry in SYMMETRIES:
        affine = np.concatenate([symmetry, np.zeros((2, 1))], 1)
        turned = patch_augmentations.augment(pixels, changes(affine=affine), 16)
        found.append(next(i for i, wanted in enumerate(expected) if torch.allclose(turned, wanted, atol=1e-5)))
    assert sorted(found) == list(range(8))


def test_a_crop_shows_its_part_of_the_patch(pixels):
    """The lower right quarter, at half the size: a crop is its place and size in -1..1."""
    affine = np.array([[0.5, 0, 0.5], [0, 0.5, 0.5]])
    torch.testing.assert_close(
        patch_augmentations.augment(pixels, changes(affine=affine), 8), pixels[:, :, 8:, 8:], atol=2e-6, rtol=1e-5
    )


def test_crops_lie_within_the_patch_and_cover_the_share_asked_for():
    affine = patch_augmentations.sample_affine((4, 500), (0.05, 0.4), np.random.default_rng(0))
    reach = np.abs(affine[..., :2]).sum(-1) + np.abs(affine[..., 2])
    assert reach.max() <= 1 + 1e-9
    share = np.abs(np.linalg.det(affine[..., :2]))
    assert 0.05 - 1e-9 <= share.min() < 0.07
    assert 0.38 < share.max() <= 0.4 + 1e-9
    assert share.mean() == pytest.approx(0.225, abs=0.01)


def test_stain_is_changed_in_optical_density(pixels):
    """Against the deconvolution written out a pixel at a time."""
    rng = np.random.default_rng(3)
    scale, shift = rng.uniform(0.8, 1.2, 3), rng.uniform(-0.05, 0.05, 3)
    stain = np.concatenate([hed_from_rgb @ np.diag(scale) @ rgb_from_hed, (shift @ rgb_from_hed)[None]])
    found = patch_augmentations.augment(pixels, changes(stain=stain), 16)
    for b, y, x in ((0, 3, 5), (1, 15, 0), (1, 7, 7)):
        density = -np.log(pixels[b, :, y, x].double().numpy() + 1 / 255)
        amounts = density @ hed_from_rgb * scale + shift
        expected = np.clip(np.exp(-(amounts @ rgb_from_hed)) - 1 / 255, 0, 1)
        np.testing.assert_allclose(found[b, :, y, x], expected, atol=1e-5)


def test_stain_drawn_is_about_as_strong_as_asked_for():
    drawn = patch_augmentations.sample_stain((2000,), 0.2, np.random.default_rng(0))
    scales = np.linalg.eigvals(drawn[:, :3])
    assert np.abs(scales.imag).max() < 1e-6
    assert (scales.real.min(), scales.real.max()) == (pytest.approx(0.8, abs=0.01), pytest.approx(1.2, abs=0.01))
    np.testing.assert_allclose(
        patch_augmentations.sample_stain((3,), 0.0, np.random.default_rng(0)), [SAME_STAIN] * 3, atol=1e-9
    )


def test_blur_is_gaussian_and_only_where_asked_for(pixels):
    found = patch_augmentations.blur(pixels, torch.tensor([0.0, 1.2]))
    assert torch.equal(found[0], pixels[0])
    expected = gaussian_filter(pixels[1].double().numpy(), 1.2, axes=(1, 2), radius=4, mode="mirror")
    np.testing.assert_allclose(found[1], expected, atol=1e-5)


def test_the_first_global_crop_is_blurred_the_second_hardly_ever_a_local_one_every_other_time(monkeypatch):
    blurred, draw = [], patch_augmentations.sample_augmentations

    def drawing(*args):
        drawn = draw(*args)
        blurred.extend((drawn.blur > 0).mean(1))
        return drawn

    monkeypatch.setattr(patch_augmentations, "sample_augmentations", drawing)
    params = PatchCropParams(global_crop_px=16, local_crop_px=16, n_local_crops=3)
    patches = torch.zeros(1, 20, 20, 3, dtype=torch.uint8)
    patch_augmentations.sample_patch_crops(patches, np.arange(1), 4000, params, np.random.default_rng(1))
    assert blurred == [1.0, *(pytest.approx(share, abs=0.03) for share in (0.1, 0.5, 0.5, 0.5))]


def test_contrast_and_greyscale(pixels):
    found = patch_augmentations.augment(pixels, changes(contrast=np.array([0.5, 0.1])), 16)
    torch.testing.assert_close(found, (pixels - 0.5) * 0.5 + 0.6, atol=1e-5, rtol=1e-5)
    grey = patch_augmentations.augment(pixels, changes(gray=1.0), 16)
    luma = 0.299 * pixels[:, 0] + 0.587 * pixels[:, 1] + 0.114 * pixels[:, 2]
    torch.testing.assert_close(grey, luma[:, None].expand(-1, 3, -1, -1), atol=1e-5, rtol=1e-5)


def test_views_have_their_sizes_and_a_share_of_a_batch_is_that_share():
    params = PatchCropParams(global_crop_px=32, local_crop_px=16, n_local_crops=3)
    patches = torch.randint(0, 256, (6, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = patch_augmentations.sample_patch_crops(patches, np.arange(6), 6, params, np.random.default_rng(1))
    assert [view.shape for view in whole] == [(2, 6, 3, 32, 32), (3, 6, 3, 16, 16)]
    assert all((view >= 0).all() and (view <= 1).all() for view in whole)
    rows = np.array([1, 4])
    part = patch_augmentations.sample_patch_crops(patches[rows], rows, 6, params, np.random.default_rng(1))
    for one, all_of_them in zip(part, whole, strict=True):
        torch.testing.assert_close(one, all_of_them[:, rows], atol=1e-6, rtol=1e-5)


def test_without_local_crops_there_are_the_global_ones():
    params = PatchCropParams(n_local_crops=0, global_crop_px=16)
    patches = torch.zeros(2, 20, 20, 3, dtype=torch.uint8)
    assert len(patch_augmentations.sample_patch_crops(patches, np.arange(2), 2, params, np.random.default_rng(1))) == 1
