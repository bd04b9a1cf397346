"""How far each row of the table is from a reference row, and what these folds could have shown."""

import math

from slpd_core.report.uncertainty import LEVEL, Influence

POWER = 0.8


def compare_with_reference(row: Influence, reference: Influence) -> dict[str, float]:
    """Return the paired difference of a row's mean score to the reference's, with its interval.

    Args:
        row: the row's score in each fold, and each patient's part in it.
        reference: those of the reference row.

    Returns:
        difference (row - reference), low and high (its interval at LEVEL), and detectable: the smallest true difference
        whose interval leaves out 0 with a probability of POWER. nan where no fold defines both, or where no test
        patient tells the rows apart.
    """
    both = row.minus(reference)
    difference, error = float(both.values.mean()), both.standard_error()
    if not error > 0:
        return {"difference": difference, "low": math.nan, "high": math.nan, "detectable": math.nan}
    half = both.quantile((1 + LEVEL) / 2) * error
    detectable = half + both.quantile(POWER) * error
    return {"difference": difference, "low": difference - half, "high": difference + half, "detectable": detectable}
