"""Crops of patches for the self-distillation of stage one: where they lie, and how an H&E picture may change.

What is random is drawn by NumPy for a whole batch, so that it does not depend on the device or on how many processes
share the batch; the pictures are changed by PyTorch where they are.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor

ASPECT = 4 / 3  # of a crop's sides, at most
BLUR_SIGMA_PX = (0.1, 2.0)
BLUR_RADIUS_PX = 4
BRIGHTER = 1 / 255  # added to pixels before their logarithm
LUMA = (0.299, 0.587, 0.114)
# A square's eight symmetries: turns by 90 degrees, and each of them mirrored.
TURNS = np.array([[[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]], np.float64)
SYMMETRIES = np.concatenate([TURNS, TURNS @ np.diag([-1.0, 1.0])])


@dataclass(frozen=True)
class PatchCropParams:
    """Crops of a patch, and how they are augmented.

    Attributes:
        n_global_crops: Per patch.
        n_local_crops: Per patch.
        global_crop_px: Side that global crops are resized to.
        local_crop_px: Side that local crops are resized to.
        global_crops_scale: Least and greatest fraction of the patch's area.
        local_crops_scale: Likewise.
        stain_jitter: Strength, 0 to 1, of `sample_stain`.
        contrast_jitter: Strength, 0 to 1, of contrast and brightness.
        grayscale_prob: Of a crop to lose its color.
    """

    n_global_crops: int = 2
    n_local_crops: int = 8
    global_crop_px: int = 224
    local_crop_px: int = 96
    global_crops_scale: tuple[float, float] = (0.4, 1.0)
    local_crops_scale: tuple[float, float] = (0.05, 0.4)
    stain_jitter: float = 0.2
    contrast_jitter: float = 0.2
    grayscale_prob: float = 0.1


@dataclass(frozen=True)
class AugmentationParams:
    """What happens to each of a batch's crops, by crop and patch.

    Attributes:
        affine: (..., 2, 3), positions in the crop to positions in the patch, both in -1..1.
        stain: (..., 4, 3), optical density (with a 1 appended) to optical density.
        contrast: (..., 2), factor about mid-gray and shift.
        gray: (...), 1 where the crop loses its color.
        blur: (...), sigma in px, 0 for none.
    """

    affine: np.ndarray
    stain: np.ndarray
    contrast: np.ndarray
    gray: np.ndarray
    blur: np.ndarray

    def select(self, patches: np.ndarray) -> "AugmentationParams":
        """Select those of some patches.

        Args:
            patches: int64 (b,), of the batch.

        Returns:
            The same for these alone.
        """
        return AugmentationParams(*(getattr(self, field.name)[:, patches] for field in fields(self)))


def sample_affine(shape: tuple[int, ...], scale: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Sample crops of a random area, aspect and position, turned and mirrored.

    Args:
        shape: Of the sample.
        scale: Least and greatest fraction of the patch's area.
        rng: Draws them.

    Returns:
        float64 (*shape, 2, 3), positions in the crop to positions in the patch, both in -1..1.
    """
    fraction, ratio = rng.uniform(*scale, shape), np.exp(rng.uniform(-math.log(ASPECT), math.log(ASPECT), shape))
    sides = np.minimum(np.stack([np.sqrt(fraction * ratio), np.sqrt(fraction / ratio)], -1), 1)
    center = rng.uniform(-1, 1, (*shape, 2)) * (1 - sides)
    turned = sides[..., None] * SYMMETRIES[rng.integers(len(SYMMETRIES), size=shape)]
    return np.concatenate([turned, center[..., None]], -1)


def sample_stain(shape: tuple[int, ...], strength: float, rng: np.random.Generator) -> np.ndarray:
    """Sample changes of hematoxylin, eosin and the residual, each scaled by 1 ± strength and shifted.

    Color deconvolution by the vectors of Ruifrok & Johnston (2001), jittered as by Tellez et al. (2019).

    Args:
        shape: Of the sample.
        strength: 0 to 1.
        rng: Draws them.

    Returns:
        float64 (*shape, 4, 3), optical density (with a 1 appended) to optical density.
    """
    scale, shift = rng.uniform(1 - strength, 1 + strength, (*shape, 3)), rng.uniform(-1, 1, (*shape, 3))
    matrix = (hed_from_rgb * scale[..., None, :]) @ rgb_from_hed
    offset = (shift * strength / 4) @ rgb_from_hed
    return np.concatenate([matrix, offset[..., None, :]], -2)


def sample_augmentations(
    shape: tuple[int, int],
    scale: tuple[float, float],
    blur_prob: np.ndarray,
    params: PatchCropParams,
    rng: np.random.Generator,
) -> AugmentationParams:
    """Sample what happens to the crops of a batch.

    Args:
        shape: (crops, patches).
        scale: Least and greatest fraction of a patch's area.
        blur_prob: (crops,), probability of each crop to be blurred.
        params: Strengths.
        rng: Draws them.

    Returns:
        Arrays of (crops, patches, ...).
    """
    sigma, jitter = rng.uniform(*BLUR_SIGMA_PX, shape), params.contrast_jitter
    return AugmentationParams(
        affine=sample_affine(shape, scale, rng),
        stain=sample_stain(shape, params.stain_jitter, rng),
        contrast=np.stack([rng.uniform(1 - jitter, 1 + jitter, shape), rng.uniform(-jitter, jitter, shape) / 2], -1),
        gray=(rng.random(shape) < params.grayscale_prob).astype(np.float64),
        blur=np.where(rng.random(shape) < blur_prob[:, None], sigma, 0.0),
    )


def augment(patches: Tensor, params: AugmentationParams, out_px: int) -> Tensor:
    """Crop patches and augment the crops.

    Args:
        patches: (B, 3, P, P), in 0..1.
        params: Of (crops, B, ...).
        out_px: Side of the crops.

    Returns:
        (crops * B, 3, out_px, out_px), in 0..1, crop after crop.
    """
    B = params.gray.shape[1]
    on = {
        field.name: torch.tensor(getattr(params, field.name), dtype=torch.float32, device=patches.device).flatten(0, 1)
        for field in fields(params)
    }
    cut = []
    for affine in on["affine"].split(B):
        grid = F.affine_grid(affine, [B, 3, out_px, out_px], align_corners=False)
        cut.append(F.grid_sample(patches, grid, mode="bilinear", padding_mode="reflection", align_corners=False))
    pixels = blur(jitter_stain(torch.cat(cut), on["stain"]), on["blur"])
    factor, shift = on["contrast"][:, :, None, None, None].unbind(1)
    pixels = (pixels - 0.5) * factor + 0.5 + shift
    luma = torch.einsum("nchw,c->nhw", pixels, pixels.new_tensor(LUMA))[:, None]
    return torch.lerp(pixels, luma.expand_as(pixels), on["gray"][:, None, None, None]).clamp_(0, 1)


def jitter_stain(pixels: Tensor, stain: Tensor) -> Tensor:
    """Change optical densities linearly.

    Args:
        pixels: (n, 3, h, w), in 0..1.
        stain: (n, 4, 3), as `sample_stain` returns.

    Returns:
        (n, 3, h, w), in 0..1.
    """
    n, _, h, w = pixels.shape
    density = (pixels + BRIGHTER).log().flatten(2)
    changed = torch.baddbmm(-stain[:, 3, :, None], stain[:, :3].transpose(1, 2), density)
    return (changed.exp() - BRIGHTER).view(n, 3, h, w).clamp_(0, 1)


def blur(pixels: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image by a Gaussian.

    Args:
        pixels: (n, 3, h, w).
        sigma: (n,), in px; 0 leaves the image as it is.

    Returns:
        (n, 3, h, w).
    """
    rows = sigma.nonzero()[:, 0]
    if not len(rows):
        return pixels
    steps = torch.arange(-BLUR_RADIUS_PX, BLUR_RADIUS_PX + 1, device=pixels.device)
    kernels = torch.softmax(-(steps**2) / (2 * sigma[rows, None] ** 2), -1).repeat_interleave(3, 0)
    chosen = F.pad(pixels[rows], [BLUR_RADIUS_PX] * 4, mode="reflect").flatten(0, 1)[None]
    for kernel in (kernels[:, None, None, :], kernels[:, None, :, None]):
        chosen = F.conv2d(chosen, kernel, groups=len(kernels))
    return pixels.index_copy(0, rows, chosen.view(len(rows), 3, *pixels.shape[2:]))


def sample_patch_crops(
    patches: Tensor, rows: np.ndarray, n_patches: int, params: PatchCropParams, rng: np.random.Generator
) -> list[Tensor]:
    """Sample global and local crops of a batch's patches.

    The first global crop is always blurred, the second hardly ever, a local crop every other time (as in DINO).

    Args:
        patches: uint8 (b, P, P, 3).
        rows: int64 (b,), where in the batch these patches are; other processes may have the rest.
        n_patches: Of the batch.
        params: Numbers, sides and strengths.
        rng: Draws the crops of the whole batch.

    Returns:
        Global crops (G, b, 3, g, g) and, if there are any, local crops (n, b, 3, l, l), in 0..1.
    """
    pixels = patches.permute(0, 3, 1, 2).float() / 255
    G, n = params.n_global_crops, params.n_local_crops
    kinds = (
        (G, params.global_crops_scale, np.array([1.0] + [0.1] * (G - 1)), params.global_crop_px),
        (n, params.local_crops_scale, np.full(n, 0.5), params.local_crop_px),
    )
    sampled = [
        (sample_augmentations((crops, n_patches), scale, blur_prob, params, rng).select(rows), side)
        for crops, scale, blur_prob, side in kinds
        if crops
    ]
    return [augment(pixels, chosen, side).unflatten(0, (-1, len(rows))) for chosen, side in sampled]
