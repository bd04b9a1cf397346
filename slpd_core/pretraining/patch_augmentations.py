"""Crops of patches for the self-distillation of stage one: where they lie, and how an H&E picture may change.

What is random is drawn by NumPy for a whole batch, so that it does not depend on the device or on how many processes
share the batch; the pictures are changed by PyTorch where they are.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor

from slpd_core import config

ASPECT = 4 / 3  # of a crop's sides, at most
BLUR_SIGMA_PX = (0.1, 2.0)
BLUR_RADIUS_PX = 4
BRIGHTER = 1 / 255  # added to pixels before their logarithm
LUMA = (0.299, 0.587, 0.114)
# A square's eight symmetries: turns by 90 degrees, and each of them mirrored.
TURNS = np.array([[[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]], np.float64)
SYMMETRIES = np.concatenate([TURNS, TURNS @ np.diag([-1.0, 1.0])])


@dataclass(frozen=True)
class AugmentationParams:
    """What happens to each of a batch's crops, a row a crop.

    affine: (..., 2, 3), places of the crop to places of the patch, both in -1..1. stain: (..., 4, 3), optical density
    (with a 1 appended) to optical density. contrast: (..., 2), factor about mid-grey and shift. grey: (...), 1 where
    the crop loses its colour. blur: (...), sigma in px, 0 for none.
    """

    affine: np.ndarray
    stain: np.ndarray
    contrast: np.ndarray
    grey: np.ndarray
    blur: np.ndarray

    def share(self, rows: Any) -> "AugmentationParams":
        """The changes of some patches of the batch; the first axis counts crops, the second patches."""
        return AugmentationParams(*(getattr(self, field.name)[:, rows] for field in fields(self)))


def sample_affine(shape: tuple[int, ...], area: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Crops of a random share of the patch's area, shape and place, turned and mirrored: float64 (*shape, 2, 3).

    area: least and greatest share.
    """
    share, ratio = rng.uniform(*area, shape), np.exp(rng.uniform(-math.log(ASPECT), math.log(ASPECT), shape))
    sides = np.minimum(np.stack([np.sqrt(share * ratio), np.sqrt(share / ratio)], -1), 1)
    center = rng.uniform(-1, 1, (*shape, 2)) * (1 - sides)
    turned = sides[..., None] * SYMMETRIES[rng.integers(len(SYMMETRIES), size=shape)]
    return np.concatenate([turned, center[..., None]], -1)


def sample_stain(shape: tuple[int, ...], strength: float, rng: np.random.Generator) -> np.ndarray:
    """Haematoxylin, eosin and the rest each scaled by 1 ± strength and shifted: float64 (*shape, 4, 3).

    Colour deconvolution by the vectors of Ruifrok & Johnston (2001), jittered as by Tellez et al. (2019).
    """
    scale, shift = rng.uniform(1 - strength, 1 + strength, (*shape, 3)), rng.uniform(-1, 1, (*shape, 3))
    matrix = (hed_from_rgb * scale[..., None, :]) @ rgb_from_hed
    offset = (shift * strength / 4) @ rgb_from_hed
    return np.concatenate([matrix, offset[..., None, :]], -2)


def sample_augmentations(
    shape: tuple[int, int],
    area: tuple[float, float],
    blurred: np.ndarray,
    section: config.StageOneConfig,
    rng: np.random.Generator,
) -> AugmentationParams:
    """Changes of (crops, patches); blurred: the probability of each crop to be blurred."""
    sigma = rng.uniform(*BLUR_SIGMA_PX, shape)
    jitter = section.contrast_jitter
    return AugmentationParams(
        affine=sample_affine(shape, area, rng),
        stain=sample_stain(shape, section.stain_jitter, rng),
        contrast=np.stack([rng.uniform(1 - jitter, 1 + jitter, shape), rng.uniform(-jitter, jitter, shape) / 2], -1),
        grey=(rng.random(shape) < section.grayscale_prob).astype(np.float64),
        blur=np.where(rng.random(shape) < blurred[:, None], sigma, 0.0),
    )


def augment(patches: Tensor, changes: AugmentationParams, out_px: int) -> Tensor:
    """Cut and change crops: (B, 3, P, P) of 0..1 → (crops * B, 3, out_px, out_px) of 0..1, crop after crop."""
    B = changes.grey.shape[1]
    on = {
        field.name: torch.tensor(getattr(changes, field.name), dtype=torch.float32, device=patches.device).flatten(0, 1)
        for field in fields(changes)
    }
    cut = []
    for affine in on["affine"].split(B):
        grid = F.affine_grid(affine, [B, 3, out_px, out_px], align_corners=False)
        cut.append(F.grid_sample(patches, grid, mode="bilinear", padding_mode="reflection", align_corners=False))
    pixels = blur(jitter_stain(torch.cat(cut), on["stain"]), on["blur"])
    factor, shift = on["contrast"][:, :, None, None, None].unbind(1)
    pixels = (pixels - 0.5) * factor + 0.5 + shift
    luma = torch.einsum("nchw,c->nhw", pixels, pixels.new_tensor(LUMA))[:, None]
    return torch.lerp(pixels, luma.expand_as(pixels), on["grey"][:, None, None, None]).clamp_(0, 1)


def jitter_stain(pixels: Tensor, stain: Tensor) -> Tensor:
    """Change optical densities linearly: (n, 3, h, w) of 0..1, by matrices (n, 4, 3)."""
    n, _, h, w = pixels.shape
    density = (pixels + BRIGHTER).log().flatten(2)
    changed = torch.baddbmm(-stain[:, 3, :, None], stain[:, :3].transpose(1, 2), density)
    return (changed.exp() - BRIGHTER).view(n, 3, h, w).clamp_(0, 1)


def blur(pixels: Tensor, sigma: Tensor) -> Tensor:
    """Blur each picture by a Gaussian of its own sigma in px; those of 0 stay as they are."""
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
    patches: Tensor,
    rows: np.ndarray,
    n_patches: int,
    section: config.StageOneConfig,
    rng: np.random.Generator,
) -> list[Tensor]:
    """Global and local crops of a batch's patches, two stacks, crop after crop, in 0..1.

    patches: uint8 (b, P, P, 3), the `rows` of a batch of n_patches. The first global crop is always blurred, the
    second hardly ever, a local crop every other time (as in DINO).
    """
    pixels = patches.permute(0, 3, 1, 2).float() / 255
    G, n = section.n_global_crops, section.n_local_crops
    kinds = (
        (G, section.global_crops_scale, np.array([1.0] + [0.1] * (G - 1)), section.global_crop_px),
        (n, section.local_crops_scale, np.full(n, 0.5), section.local_crop_px),
    )
    drawn = [
        (sample_augmentations((crops, n_patches), area, p, section, rng), side)
        for crops, area, p, side in kinds
        if crops
    ]
    return [augment(pixels, changes.share(rows), side) for changes, side in drawn]
