"""Tables as people read them: numbers as the paper prints them, in Markdown and LaTeX."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SHOWN = {"accuracy": "Accuracy", "auc": "AUC"}
NONE = "–"
IN_LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", NONE: "--"} | {sign: rf"\{sign}" for sign in "_&%#${}"}
IN_LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
IN_MARKDOWN = {sign: rf"\{sign}" for sign in "\\|*`<>["}


@dataclass(frozen=True)
class Cell:
    """A cell of a printed table. rank: "best", "second" or "" of its column."""

    text: str
    rank: str = ""


@dataclass(frozen=True)
class Table:
    """A table to print.

    groups: of the columns, title and number of columns; none of a table of one cohort. lines: the names of a row, one a
    head, and its cells, one a column. notes: what stands below.
    """

    heads: Sequence[str]
    columns: Sequence[str]
    lines: Sequence[tuple[Sequence[str], Sequence[Cell]]]
    groups: Sequence[tuple[str, int]] = ()
    notes: Sequence[str] = ()


def number(value: float) -> str:
    """.864 as the paper prints it; – where there is no number."""
    return NONE if math.isnan(value) else f"{value:.3f}".removeprefix("0")


def mean_sd(mean: float, sd: float) -> str:
    """.864±.042 as the paper prints it; – where there is no number."""
    return NONE if math.isnan(mean) else f"{number(mean)}±{number(sd)}"


def interval(low: float, high: float) -> str:
    """.781 to .923; – where there is none."""
    return NONE if math.isnan(low) else f"{number(low)} to {number(high)}"


def less(by: float, p: float) -> str:
    """.021 (p .34); – where there is nothing to compare."""
    if math.isnan(by):
        return NONE
    return number(by) if math.isnan(p) else f"{number(by)} (p {number(p) if p >= 0.001 else '< .001'})"


def ranks(means: Iterable[float]) -> list[str]:
    """ "best", "second" or "" for each mean; those that print alike rank alike."""
    printed = [math.nan if math.isnan(mean) else float(f"{mean:.3f}") for mean in means]
    order = sorted({value for value in printed if not math.isnan(value)}, reverse=True)
    places = dict(zip(order, ("best", "second"), strict=False))
    return [places.get(value, "") for value in printed]


def escaped(text: str, signs: dict[str, str]) -> str:
    """The text with each of the signs replaced, and by a space what does not show, such as the end of a line."""
    return "".join(signs.get(sign, sign if sign.isprintable() else " ") for sign in text)


def markdown(table: Table) -> str:
    """The table in Markdown: of each column the best in bold, the second underlined; groups stand in the heads."""
    ranked = {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}
    groups = [f"{escaped(title, IN_MARKDOWN)} " for title, count in table.groups for _ in range(count)]
    columns = [f"{group}{name}" for group, name in zip(groups or [""] * len(table.columns), table.columns, strict=True)]
    body = [
        [escaped(name, IN_MARKDOWN) for name in names] + [ranked[cell.rank].format(cell.text) for cell in cells]
        for names, cells in table.lines
    ]
    rule = ["---"] * len(table.heads) + ["---:"] * len(table.columns)
    lines = [f"| {' | '.join(cells)} |\n" for cells in [[*table.heads, *columns], rule, *body]]
    return "".join(lines) + "".join(f"\n{escaped(note, IN_MARKDOWN)}\n" for note in table.notes)


def latex(table: Table) -> str:
    """The table in LaTeX (package booktabs): of each column the best in bold, the second underlined."""
    ranked = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}
    body = [
        [escaped(name, IN_LATEX) for name in names]
        + [ranked[cell.rank] % escaped(cell.text, IN_LATEX) for cell in cells]
        for names, cells in table.lines
    ]
    spans = [rf"\multicolumn{{{count}}}{{c}}{{{escaped(title, IN_LATEX)}}}" for title, count in table.groups]
    above = [" & ".join([""] * len(table.heads) + spans) + r" \\"] if spans else []
    parts = [
        rf"\begin{{tabular}}{{{'l' * len(table.heads)}{'c' * len(table.columns)}}}",
        r"\toprule",
        *above,
        " & ".join([*table.heads, *table.columns]) + r" \\",
        r"\midrule",
        *(" & ".join(cells) + r" \\" for cells in body),
        r"\bottomrule",
        r"\end{tabular}",
        *(f"% {escaped(note, {})}" for note in table.notes),
    ]
    return "\n".join(parts) + "\n"
