"""Whitening: features in which the mean features of training slides are uncorrelated, each with a variance of 1."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MIN_SHRINKAGE = 1e-4  # a few slides can have an estimate of none, and then a covariance without an inverse


@dataclass(frozen=True)
class Whitening:
    """Features less a center, times a matrix.

    Attributes:
        center: Mean of the slides' mean features, float32 (D,).
        matrix: The inverse square root of their covariance, float32 (D, D), symmetric.
    """

    center: np.ndarray
    matrix: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Whiten features.

        Args:
            features: float32 (L, D).

        Returns:
            float32 (L, D).
        """
        whitened: np.ndarray = (features - self.center) @ self.matrix
        return whitened

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by the names under which a classifier's file holds them."""
        return {"whitening.center": self.center, "whitening.matrix": self.matrix}


def split_whitening(arrays: Mapping[str, np.ndarray]) -> tuple[Whitening | None, dict[str, np.ndarray]]:
    """Split the arrays of a classifier into its whitening and the others.

    Args:
        arrays: Of the classifier, by name.

    Returns:
        The whitening, None of a classifier without one, and the other arrays.
    """
    others = {name: array for name, array in arrays.items() if not name.startswith("whitening.")}
    if len(others) == len(arrays):
        return None, others
    return Whitening(arrays["whitening.center"], arrays["whitening.matrix"]), others


def fit_whitening(means: np.ndarray) -> Whitening:
    """Fit a whitening on mean features of slides; labels play no part.

    The covariance is S = (1 - s) C + s t I: C of the slides, t its mean variance, and the shrinkage s of Ledoit and
    Wolf (J Multivar Anal 2004), since slides may be fewer than dimensions.

    Args:
        means: Mean features of each training slide, (slides, D).

    Returns:
        The whitening by S.

    Raises:
        ValueError: The slides do not differ.
    """
    from sklearn.covariance import empirical_covariance, ledoit_wolf_shrinkage, shrunk_covariance

    means = np.asarray(means, np.float64)
    covariance = empirical_covariance(means)
    if not np.trace(covariance) > 0:
        raise ValueError(f"the mean features of {len(means)} training slides are equal: nothing to whiten; add slides")
    shrinkage = max(float(ledoit_wolf_shrinkage(means)), MIN_SHRINKAGE)
    variances, directions = np.linalg.eigh(shrunk_covariance(covariance, shrinkage=shrinkage))
    matrix = directions / np.sqrt(variances) @ directions.T
    return Whitening(means.mean(0).astype(np.float32), matrix.astype(np.float32))
