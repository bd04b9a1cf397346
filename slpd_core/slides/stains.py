"""Stain normalization: the colors of a slide brought to a reference, fitted once per slide."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

Method = Literal["macenko", "reinhard"]

BACKGROUND = 240  # gray level of unstained glass (Macenko et al. 2009)
MIN_DENSITY = 0.15  # optical density; pixels that are paler in any channel are glass
ANGLE_PERCENTILE = 1.0  # robust extremes of the angles between the two stains
CONCENTRATION_PERCENTILE = 99.0  # robust maximum of a stain's concentration
MIN_PIXELS = 1000  # stained pixels of a slide; from fewer its stains are not estimated
MAX_CONDITION = 30.0  # of the two stains' matrix; with a higher one they are no two stains
# Columns: densities of hematoxylin and eosin in R, G and B; and their maximum concentrations, as Macenko's authors
# published them with their code.
MACENKO_STAINS = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
MACENKO_CONCENTRATIONS = np.array([1.9705, 1.0308])
# Mean and standard deviation of l, alpha and beta of TCGA-A2-A3XS-DX1 (Amgad et al. 2019), as HistomicsTK has them.
REINHARD_MEAN = np.array([8.74108109, -0.12440419, 0.0444982])
REINHARD_STD = np.array([0.6135447, 0.10989545, 0.0286032])
# Reinhard et al. 2001, equations 4 and 6.
RGB_TO_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
LOG_LMS_TO_LAB = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ [[1, 1, 1], [1, 1, -2], [1, -1, 0]]
REFERENCES = {
    "macenko": [MACENKO_STAINS.tolist(), MACENKO_CONCENTRATIONS.tolist()],
    "reinhard": [REINHARD_MEAN.tolist(), REINHARD_STD.tolist()],
}  # for the fingerprint of what is made with them
ROWS = 16  # of a region, transformed at a time: they stay in the caches of a CPU


@dataclass(frozen=True, eq=False)
class StainTransform:
    """A transform of colors that is linear in their logarithms, channel by channel of R, G and B or of L, M and S.

    Args:
        levels: Logarithm, or value where `mix` is used, of each of the 256 gray levels, float32 (256,).
        affine: Matrix and shift of the logarithms, float64 (3, 4).
        mix: RGB to the channels whose logarithms are transformed, float64 (3, 3); None: RGB itself.
    """

    levels: np.ndarray
    affine: np.ndarray
    mix: np.ndarray | None = None

    def apply(self, pixels: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Transform the colors of pixels.

        Args:
            pixels: uint8 RGB (rows, columns, 3).
            out: Array of that shape to write to; None: a new one.

        Returns:
            uint8 RGB (rows, columns, 3).
        """
        out = np.empty_like(pixels) if out is None else out
        unmix = None if self.mix is None else np.linalg.inv(self.mix)
        for start in range(0, len(pixels), ROWS):
            rows = slice(start, start + ROWS)
            values = cv2.LUT(pixels[rows], self.levels)
            if self.mix is not None:
                values = cv2.log(cv2.transform(values, self.mix))
            values = cv2.exp(cv2.transform(values, self.affine))
            if unmix is not None:
                values = cv2.transform(values, unmix)
            out[rows] = np.clip(np.rint(values), 0, 255)
        return out


def optical_density(pixels: np.ndarray) -> np.ndarray:
    """Compute the optical density of pixels (Macenko et al. 2009, equation 1); 1 is added, as black has none.

    Args:
        pixels: uint8 RGB (..., 3).

    Returns:
        float64 (..., 3), below 0 where a pixel is brighter than glass.
    """
    density: np.ndarray = -np.log((pixels.astype(np.float64) + 1) / BACKGROUND)
    return density


def select_stained(pixels: np.ndarray) -> np.ndarray:
    """Select the pixels that are not glass.

    Args:
        pixels: uint8 RGB (n, 3).

    Returns:
        uint8 RGB (at most n, 3).
    """
    return pixels[(optical_density(pixels) >= MIN_DENSITY).all(axis=1)]


def fit_stains(pixels: np.ndarray, method: Method) -> StainTransform | None:
    """Fit the transform that brings a slide's colors to the reference.

    Args:
        pixels: A sample of the slide's pixels, uint8 RGB (n, 3), glass among them.
        method: "macenko" or "reinhard".

    Returns:
        The transform; None where too few pixels are stained, or by Macenko there are no two stains.
    """
    stained = select_stained(pixels)
    if len(stained) < MIN_PIXELS:
        return None
    return _fit_macenko(stained) if method == "macenko" else _fit_reinhard(stained)


def find_stains(density: np.ndarray) -> np.ndarray:
    """Find the two stains of a slide: the extremes of the plane of most variance (Macenko et al. 2009, section 2.2).

    Args:
        density: Optical densities of stained pixels, float64 (n, 3).

    Returns:
        Unit vectors in columns, (3, 2), hematoxylin first: the one with more red in its density.
    """
    plane = np.linalg.eigh(np.cov(density.T))[1][:, 1:]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)  # densities are positive: so angles do not wrap around
    x, y = (density @ plane).T
    angles = np.percentile(np.arctan2(y, x), (ANGLE_PERCENTILE, 100 - ANGLE_PERCENTILE))
    stains = plane @ np.stack([np.cos(angles), np.sin(angles)])
    ordered: np.ndarray = stains if stains[0, 0] > stains[0, 1] else stains[:, ::-1]
    return ordered


def _fit_macenko(pixels: np.ndarray) -> StainTransform | None:
    """Fit by Macenko: concentrations of the slide's stains, scaled to the reference, in the reference's stains."""
    density = optical_density(pixels)
    stains = find_stains(density)
    unmixing = np.linalg.pinv(stains)
    maxima = np.percentile(unmixing @ density.T, CONCENTRATION_PERCENTILE, axis=1)
    if np.linalg.cond(stains) > MAX_CONDITION or (maxima <= 0).any():
        return None
    matrix = MACENKO_STAINS @ np.diag(MACENKO_CONCENTRATIONS / maxima) @ unmixing
    # Logarithms of intensities in place of densities: log I = log BACKGROUND - density.
    shift = np.log(BACKGROUND) * (1 - matrix.sum(axis=1))
    return StainTransform(np.log(np.arange(256, dtype=np.float32) + 1), np.column_stack([matrix, shift]))


def _fit_reinhard(pixels: np.ndarray) -> StainTransform:
    """Fit by Reinhard: mean and deviation of l, alpha and beta brought to those of the reference."""
    levels = np.maximum(np.arange(256, dtype=np.float32), 1)  # black has no logarithm
    lab = np.log(levels[pixels].astype(np.float64) @ RGB_TO_LMS.T) @ LOG_LMS_TO_LAB.T
    scale = REINHARD_STD / np.maximum(lab.std(axis=0), 1e-6)
    to_log_lms = np.linalg.inv(LOG_LMS_TO_LAB)
    matrix = to_log_lms @ np.diag(scale) @ LOG_LMS_TO_LAB
    shift = to_log_lms @ (REINHARD_MEAN - scale * lab.mean(axis=0))
    return StainTransform(levels, np.column_stack([matrix, shift]), RGB_TO_LMS)
