"""Tables for people: numbers as the paper prints them, in Markdown and LaTeX."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slpd_core.runtime import escape_controls

NONE = "–"
MINUS = "−"
MARK = "†"  # of a mean over folds of which some lack a label
IN_LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", NONE: "--"} | {sign: rf"\{sign}" for sign in "_&%#${}"}
IN_LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", MINUS: "$-$", MARK: r"$\dagger$", "²": "$^2$"}
IN_MARKDOWN = {sign: rf"\{sign}" for sign in "\\|*`<>["}


@dataclass(frozen=True)
class Table:
    """A table to print.

    Attributes:
        heads: Titles of the columns that name a row.
        columns: Titles of the other columns.
        lines: Of each row, its names, one per head, and its cells, one per column.
        groups: Of the columns: title and number of columns; none in a table of one cohort.
        notes: Sentences below the table.
    """

    heads: Sequence[str]
    columns: Sequence[str]
    lines: Sequence[tuple[Sequence[str], Sequence[str]]]
    groups: Sequence[tuple[str, int]] = ()
    notes: Sequence[str] = ()


def format_score(value: float, decimals: int | None = None) -> str:
    """Format a score as the paper prints it.

    Args:
        value: Of a score, or nan.
        decimals: Of a score that has a unit; by default the score has none.

    Returns:
        Such as .864 or −.021, 12.3 with a unit; – for nan.
    """
    if math.isnan(value):
        return NONE
    digits = f"{abs(value):.3f}".removeprefix("0") if decimals is None else f"{abs(value):.{decimals}f}"
    return f"{MINUS}{digits}" if value < 0 and digits.strip("0.") else digits


def count_decimals(value: float, *, n_digits: int = 3) -> int:
    """Count the decimals that a number needs.

    Args:
        value: The number; nan or 0 needs as many as 1.
        n_digits: Significant digits that it keeps.

    Returns:
        Digits behind the point.
    """
    exponent = math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0
    return max(0, n_digits - 1 - exponent)


def format_mean_sd(mean: float, sd: float, decimals: int | None = None) -> str:
    """Format a mean and its standard deviation as the paper prints them.

    Args:
        mean, sd: Of a score.
        decimals: As in `format_score`.

    Returns:
        Such as .864±.042; – for a mean of nan.
    """
    return NONE if math.isnan(mean) else f"{format_score(mean, decimals)}±{format_score(sd, decimals)}"


def mark_partial(text: str, partial_folds: float) -> str:
    """Mark the mean over folds of which some lack a label.

    Args:
        text: The formatted mean.
        partial_folds: How many folds lack a label.

    Returns:
        The text, with MARK if there are such folds.
    """
    return f"{text}{MARK}" if partial_folds > 0 and text != NONE else text


def explain_mark(partial_folds: float, folds: float) -> str:
    """Explain the mark in a note.

    Args:
        partial_folds: How many folds lack a label.
        folds: How many folds there are.

    Returns:
        A sentence.
    """
    return (
        f"{MARK} In {partial_folds:.0f} of {folds:.0f} folds a label is missing from the slides that train or test: "
        "scores there are over fewer labels, and count in this mean."
    )


def format_interval(low: float, high: float, decimals: int | None = None) -> str:
    """Format the interval of a score.

    Args:
        low, high: Its ends, or nan.
        decimals: As in `format_score`.

    Returns:
        Such as .781 to .923; – for nan.
    """
    return NONE if math.isnan(low) else f"{format_score(low, decimals)} to {format_score(high, decimals)}"


def join_interval(text: str, interval: str) -> str:
    """Join a formatted value and its interval.

    Args:
        text: The value.
        interval: As `format_interval` or `format_difference_interval` returns it.

    Returns:
        Such as .864 (.781 to .923); the value alone without an interval.
    """
    return text if interval == NONE else f"{text} ({interval})"


def format_difference(value: float) -> str:
    """Format a difference of scores with its sign.

    Args:
        value: Of scores without a unit, or nan.

    Returns:
        Such as +.021, −.021 or .000; – for nan.
    """
    text = format_score(value)
    return f"+{text}" if value > 0 and text != ".000" else text


def format_difference_interval(low: float, high: float) -> str:
    """Format the interval of a difference of scores.

    Args:
        low, high: Its ends, or nan.

    Returns:
        Such as −.060 to +.018; – for nan.
    """
    return NONE if math.isnan(low) else f"{format_difference(low)} to {format_difference(high)}"


def escape(text: str, signs: dict[str, str]) -> str:
    """Escape signs of a format, and write control characters out, such as the end of a line.

    Args:
        text: Any text.
        signs: Each sign and its replacement.

    Returns:
        The escaped text.
    """
    return "".join(signs.get(sign, sign) for sign in escape_controls(text))


def format_markdown(table: Table) -> str:
    """Write a table in Markdown, with the titles of its groups in the heads of the columns.

    Args:
        table: The table.

    Returns:
        Markdown.
    """
    groups = [f"{escape(title, IN_MARKDOWN)} " for title, count in table.groups for _ in range(count)]
    columns = [f"{group}{name}" for group, name in zip(groups or [""] * len(table.columns), table.columns, strict=True)]
    body = [[escape(name, IN_MARKDOWN) for name in names] + [*cells] for names, cells in table.lines]
    rule = ["---"] * len(table.heads) + ["---:"] * len(table.columns)
    lines = [f"| {' | '.join(cells)} |\n" for cells in [[*table.heads, *columns], rule, *body]]
    return "".join(lines) + "".join(f"\n{escape(note, IN_MARKDOWN)}\n" for note in table.notes)


def format_latex(table: Table) -> str:
    """Write a table in LaTeX (package booktabs), its notes as comments.

    Args:
        table: The table.

    Returns:
        LaTeX.
    """
    body = [[escape(text, IN_LATEX) for text in (*names, *cells)] for names, cells in table.lines]
    spans = [rf"\multicolumn{{{count}}}{{c}}{{{escape(title, IN_LATEX)}}}" for title, count in table.groups]
    above = [" & ".join([""] * len(table.heads) + spans) + r" \\"] if spans else []
    parts = [
        rf"\begin{{tabular}}{{{'l' * len(table.heads)}{'c' * len(table.columns)}}}",
        r"\toprule",
        *above,
        " & ".join(escape(title, IN_LATEX) for title in (*table.heads, *table.columns)) + r" \\",
        r"\midrule",
        *(" & ".join(cells) + r" \\" for cells in body),
        r"\bottomrule",
        r"\end{tabular}",
        *(f"% {escape(note, {})}" for note in table.notes),
    ]
    return "\n".join(parts) + "\n"
