"""Verdicts on a finished cohort: pass, warn or fail. All their thresholds, each with its reason."""

from dataclasses import dataclass
from typing import Literal

VerdictLevel = Literal["fail", "warn", "pass"]
VERDICT_LEVELS: tuple[VerdictLevel, ...] = ("fail", "warn", "pass")

# ln(out_dim) is the loss, and the entropy, of outputs that say nothing. A loss or an entropy within 2 % of it has
# learnt nothing, one within 5 % little. A teacher whose entropy is below 2 % of it gives the same output for all crops.
IDLE_SHARE, NEARLY_IDLE_SHARE, COLLAPSED_SHARE = 0.98, 0.95, 0.02
# An effective rank is 1 where all embeddings point one way. Encoders that work have ten and more; below 4, a few
# directions hold all that a classifier can use.
FAILED_RANK, LOW_RANK = 1.5, 4.0
# DINO alone trains on a slide without prototypes. If those are half of the slides, the run is DINO rather than SLPD.
FEW_WITHOUT_PROTOTYPES, MANY_WITHOUT_PROTOTYPES = 0.05, 0.5
# One slide of n moves a fold's accuracy by 1/n, and one of the rarest label its AUC by as much: here by .1 and .2, and
# by a quarter where it fails.
MIN_TEST_CASES, MIN_OF_LABEL, FAILED_TEST_CASES = 10, 5, 4
# Tissue at the margin falls out of a grid of squares: an eighth in the demo. What lies in a third may be the tumor.
COMMON_UNSEEN, LARGE_UNSEEN = 0.15, 1 / 3
MANY_CONSTANT = 0.5  # of the folds: then the mean rests on less than half of the test slides
# In medians of the distance to the third nearest slide. Slides of one kind reach 1.5 (demo); three slides of another
# kind do not hide one another from the third nearest.
NTH_NEAREST, FAR, MIN_SLIDES = 3, 3.0, 8


@dataclass(frozen=True)
class Verdict:
    """A verdict.

    Attributes:
        level: One of VERDICT_LEVELS.
        check: What was looked at.
        sentence: What was found.
        remedy: What to do; "" where it passes.
        anchor: Id of the page's section that shows the details.
    """

    level: VerdictLevel
    check: str
    sentence: str
    remedy: str = ""
    anchor: str = ""
