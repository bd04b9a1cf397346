"""Paired comparisons over seeds, as the protocols state them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats


def holm(p: Sequence[float]) -> np.ndarray:
    """Return p-values corrected for multiple tests (Holm, 1979); nan, of rows equal on every seed, becomes 1."""
    values = np.nan_to_num(np.array(p, float), nan=1.0)
    order = np.argsort(values)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1)
    return corrected


def seeds_needed(sd: float, effect: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Return how many pairs a two-sided paired t-test needs to find an effect whose pairs vary by sd."""
    for n in range(3, 10_000):
        critical, shift = stats.t.ppf(1 - alpha / 2, n - 1), effect / sd * np.sqrt(n)
        if stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift) >= power:
            return n
    raise ValueError(f"an effect of {effect} with a deviation of {sd} needs 10,000 seeds or more")


def describe_difference(away: pd.Series) -> str:
    """Describe paired differences: mean with its 95 % interval, seeds above 0, p of the paired t-test."""
    n, mean = len(away), away.mean()
    if n < 2:
        return f"{mean:+.3f}"
    half = stats.t.ppf(0.975, n - 1) * away.std() / np.sqrt(n)
    return f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}] ({(away > 0).sum()}/{n})"


def tables(table: pd.DataFrame, ways: Sequence[str], claims: dict[str, tuple[str, str]]) -> str:
    """Format means and deviations over the seeds, and each claim: difference, interval, seeds won, Holm's p."""
    names = [name for name in table.columns if name not in ("design", "grid", "seed", "way")]
    head = "| | " + " | ".join(names) + " |\n|---|" + "---:|" * len(names) + "\n"
    lines = [f"{table['seed'].nunique()} seeds, mean ± standard deviation\n\n" + head]
    by_seed = {way: table[table["way"] == way].set_index("seed")[names].sort_index() for way in ways}
    for way, rows in by_seed.items():
        cells = (f"{rows[name].mean():.3f} ± {rows[name].std():.3f}" for name in names)
        lines.append(f"| {way} | " + " | ".join(cells) + " |\n")
    away = {claim: (by_seed[one] - by_seed[other]).dropna() for claim, (one, other) in claims.items()}
    p = {name: holm([stats.ttest_1samp(d[name], 0).pvalue for d in away.values()]) for name in names}
    lines.append("\nDifferences with 95 % interval, seeds in which the first is higher, p after Holm\n\n" + head)
    for i, (claim, d) in enumerate(away.items()):
        cells = (f"{describe_difference(d[name])}, p {p[name][i]:.2g}" for name in names)
        lines.append(f"| {claim} | " + " | ".join(cells) + " |\n")
    return "".join(lines)
