"""Differences between rows of the result table and a reference row, and the smallest detectable one."""

import math

from slpd_core.report.uncertainty import LEVEL, MIN_ERROR, Influence

POWER = 0.8


def compare_with_reference(row: Influence, reference: Influence) -> dict[str, float]:
    """Compare a row's mean score with the reference row's, paired by fold and patient.

    Args:
        row: The row's score, with the influence of each patient.
        reference: The reference row's score.

    Returns:
        difference (row - reference), low and high (its interval at LEVEL), and detectable: the smallest true difference
        whose interval excludes 0 with probability POWER. The interval ends at the largest difference that the score can
        have, and no larger one is detectable (nan). nan if no fold defines both, or no test patient distinguishes the
        rows.
    """
    both = row.minus(reference)
    difference, error = float(both.values.mean()), both.standard_error()
    if not error > MIN_ERROR:
        return {"difference": difference, "low": math.nan, "high": math.nan, "detectable": math.nan}
    half = both.quantile((1 + LEVEL) / 2) * error
    detectable = half + both.quantile(POWER) * error
    return {
        "difference": difference,
        "low": max(difference - half, -both.width),
        "high": min(difference + half, both.width),
        "detectable": detectable if detectable <= both.width else math.nan,
    }
