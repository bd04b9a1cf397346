"""The scores of all kinds of endpoints: their titles, ranges and chance."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """A score.

    Attributes:
        title: Of its column in a table.
        low, high: The least and the highest value; infinite without such a bound.
        has_unit: Whether it is in the unit of the target.
        chance: The value that guesses have; nan if it depends on the truth.
    """

    title: str
    low: float = 0.0
    high: float = 1.0
    has_unit: bool = False
    chance: float = math.nan

    @property
    def is_bounded(self) -> bool:
        """Whether both ends are finite."""
        return math.isfinite(self.high - self.low)


SCORES: Mapping[str, Score] = {
    "accuracy": Score("Accuracy"),
    "auc": Score("AUC", chance=0.5),
    "balanced_accuracy": Score("Balanced accuracy"),
    "f1": Score("F1"),
    "average_precision": Score("Average precision"),
    "kappa": Score("Kappa", -1.0, chance=0.0),
    "mae": Score("MAE", 0.0, math.inf, has_unit=True),
    "r2": Score("R²", -math.inf, chance=0.0),
    "spearman": Score("Spearman", -1.0, chance=0.0),
    "c_index": Score("C-index", chance=0.5),
    "mean_auc": Score("Mean AUC", chance=0.5),
}
