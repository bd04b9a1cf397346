"""Tables as people read them: numbers as the paper prints them, in Markdown and LaTeX."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slpd_core.runtime import escape_controls

SHOWN = {"accuracy": "Accuracy", "auc": "AUC"}
NONE = "–"
MINUS = "−"
MARK = "†"  # of a mean over folds some of which lack a label
IN_LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", NONE: "--"} | {sign: rf"\{sign}" for sign in "_&%#${}"}
IN_LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", MINUS: "$-$", MARK: r"$\dagger$"}
IN_MARKDOWN = {sign: rf"\{sign}" for sign in "\\|*`<>["}


@dataclass(frozen=True)
class Table:
    """A table to print.

    groups: of the columns, title and number of columns; none of a table of one cohort. lines: the names of a row, one
    per head, and its cells, one per column. notes: what stands below.
    """

    heads: Sequence[str]
    columns: Sequence[str]
    lines: Sequence[tuple[Sequence[str], Sequence[str]]]
    groups: Sequence[tuple[str, int]] = ()
    notes: Sequence[str] = ()


def number(value: float) -> str:
    """.864 as the paper prints it; – where there is no number."""
    return NONE if math.isnan(value) else f"{value:.3f}".removeprefix("0")


def mean_sd(mean: float, sd: float) -> str:
    """.864±.042 as the paper prints it; – where there is no number."""
    return NONE if math.isnan(mean) else f"{number(mean)}±{number(sd)}"


def mark(text: str, partial_folds: float) -> str:
    """Return the text of a mean over folds, marked where some of them lack a label."""
    return f"{text}{MARK}" if partial_folds > 0 and text != NONE else text


def mark_note(partial_folds: float, folds: float) -> str:
    """Return what the mark means."""
    return (
        f"{MARK} In {partial_folds:.0f} of {folds:.0f} folds a label is missing from the slides that train or test: "
        "scores there are over fewer labels, and count in this mean."
    )


def interval(low: float, high: float) -> str:
    """.781 to .923; – where there is none."""
    return NONE if math.isnan(low) else f"{number(low)} to {number(high)}"


def signed(value: float) -> str:
    """+.021, −.021 or .000, a difference; – where there is none."""
    text = number(abs(value))
    return text if text in (NONE, ".000") else f"{'+' if value > 0 else MINUS}{text}"


def signed_interval(low: float, high: float) -> str:
    """−.060 to +.018; – where there is none."""
    return NONE if math.isnan(low) else f"{signed(low)} to {signed(high)}"


def escaped(text: str, signs: dict[str, str]) -> str:
    """The text with each of the signs replaced, and what does not show written out, such as the end of a line."""
    return "".join(signs.get(sign, sign) for sign in escape_controls(text))


def markdown(table: Table) -> str:
    """The table in Markdown; groups stand in the heads."""
    groups = [f"{escaped(title, IN_MARKDOWN)} " for title, count in table.groups for _ in range(count)]
    columns = [f"{group}{name}" for group, name in zip(groups or [""] * len(table.columns), table.columns, strict=True)]
    body = [[escaped(name, IN_MARKDOWN) for name in names] + [*cells] for names, cells in table.lines]
    rule = ["---"] * len(table.heads) + ["---:"] * len(table.columns)
    lines = [f"| {' | '.join(cells)} |\n" for cells in [[*table.heads, *columns], rule, *body]]
    return "".join(lines) + "".join(f"\n{escaped(note, IN_MARKDOWN)}\n" for note in table.notes)


def latex(table: Table) -> str:
    """The table in LaTeX (package booktabs)."""
    body = [[escaped(text, IN_LATEX) for text in (*names, *cells)] for names, cells in table.lines]
    spans = [rf"\multicolumn{{{count}}}{{c}}{{{escaped(title, IN_LATEX)}}}" for title, count in table.groups]
    above = [" & ".join([""] * len(table.heads) + spans) + r" \\"] if spans else []
    parts = [
        rf"\begin{{tabular}}{{{'l' * len(table.heads)}{'c' * len(table.columns)}}}",
        r"\toprule",
        *above,
        " & ".join(escaped(title, IN_LATEX) for title in (*table.heads, *table.columns)) + r" \\",
        r"\midrule",
        *(" & ".join(cells) + r" \\" for cells in body),
        r"\bottomrule",
        r"\end{tabular}",
        *(f"% {escaped(note, {})}" for note in table.notes),
    ]
    return "\n".join(parts) + "\n"
