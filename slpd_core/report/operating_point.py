"""The operating point of a binary classifier: a threshold, and how it does on other slides."""

import numpy as np

RATES = ("sensitivity", "specificity", "ppv", "npv")


def youden_threshold(scores: np.ndarray, positive: np.ndarray) -> float:
    """Choose the threshold that maximizes sensitivity + specificity - 1 (Youden, 1950).

    Args:
        scores: (n,), higher if more likely positive; a score at the threshold or above is called positive.
        positive: bool (n,), with both values.

    Returns:
        One of the scores, the highest of those that do equally well; nan if all or none are positive.
    """
    thresholds = np.unique(scores)[::-1]
    if not 0 < positive.sum() < len(positive):
        return float("nan")
    called = scores >= thresholds[:, None]
    j = called[:, positive].mean(1) - called[:, ~positive].mean(1)
    return float(thresholds[j.argmax()])


def score_threshold(called: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the rates of a threshold under many weightings of the cases.

    Args:
        called: Whether the score reaches the threshold, bool (n,).
        positive: bool (n,).
        weights: (B, n).

    Returns:
        sensitivity, specificity, and positive and negative predictive value, (B,); nan where nothing can be right.
    """
    n = {(c, p): weights[:, (called == c) & (positive == p)].sum(1) for c in (True, False) for p in (True, False)}
    ratios = {
        "sensitivity": (n[True, True], n[False, True]),
        "specificity": (n[False, False], n[True, False]),
        "ppv": (n[True, True], n[True, False]),
        "npv": (n[False, False], n[False, True]),
    }
    with np.errstate(invalid="ignore"):
        return {name: right / (right + wrong) for name, (right, wrong) in ratios.items()}
