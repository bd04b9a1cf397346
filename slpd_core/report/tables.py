"""Tables over cohorts: chosen rows of the result tables of several cohorts, beside the paper's numbers."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from slpd_core import artifacts, config
from slpd_core.config.renamed import FEATURES as RENAMED_FEATURES
from slpd_core.drawing.html import render
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.kinds import read_endpoint
from slpd_core.endpoints.scores import SCORES
from slpd_core.report import protocol, table_format
from slpd_core.report.result_rows import CLASSIFIER_NAMES, ROW_NAMES
from slpd_core.runtime import log

VERSION = 6
# Tables 1 and 2 of Yu, Lin & Xu (MICCAI 2023), under our names of rows. Table 2 has no deviations; a row that is also
# in Table 1, such as M = 4 on NSCLC, has those. Its row "region" is listed under both of its readings. `task` is the
# name that a cohort's task should have; columns are scores of any kind of endpoint and their deviations.
PUBLISHED = Path(__file__).with_name("published.csv")
PAPER = "paper"
UNNAMED_TASK = "label"  # of a cohort that names none
PROTOCOL = ("patch_encoder", "splits")  # columns of a result table that describe the protocol of its scores


@dataclass(frozen=True)
class CohortTable:
    """Chosen rows of the result tables of several cohorts, in numbers.

    Attributes:
        rows: Label to row, features/classifier.
        has_labels: Whether rows have labels of their own.
        scores: Cohort to the scores that it shows.
        frame: A line per row and cohort: label, row, cohort, of each score mean, sd and the paper's
            (paper_{score}, _sd); nan where there is none.
        missing: Cohorts without results, and the file that does not exist.
    """

    rows: Mapping[str, str]
    has_labels: bool
    scores: Mapping[str, Sequence[str]]
    frame: pd.DataFrame
    missing: dict[str, Path]


def _read_results(paths: Mapping[str, Path]) -> dict[str, tuple[pd.DataFrame, Endpoint]]:
    """Result table of each cohort that has one, indexed by row, and its endpoint."""
    tables = {}
    for cohort, path in paths.items():
        if path.exists():
            try:
                table, meta = artifacts.read_table(path, "results")
            except ValueError as error:
                raise ValueError(f"{error}, by the configuration of cohort {cohort}") from error
            old = sorted({row for row in table["row"] if row.partition("/")[0] in RENAMED_FEATURES})
            if old or "kind" not in meta:
                made = f"rows {', '.join(old)} have names of" if old else "was made by"
                raise ValueError(
                    f"{path}: {made} an earlier version; run cohort {cohort} again, with its own configuration"
                )
            tables[cohort] = table.set_index("row"), read_endpoint(meta)
    return tables


def _read_published(cohort: str, scores: Sequence[str]) -> pd.DataFrame:
    """The paper's lines with such scores of `cohort` or `cohort/task`, by row; a task called label is any."""
    name, _, task = cohort.partition("/")
    published = pd.read_csv(PUBLISHED)
    lines = published[published["cohort"] == name]
    if task not in ("", UNNAMED_TASK):
        lines = lines[lines["task"] == task]
    return lines[lines[lines.columns.intersection(scores)].notna().any(axis=1)].set_index("row")


def _select_scores(
    paths: Mapping[str, Path], results: Mapping[str, tuple[pd.DataFrame, Endpoint]]
) -> dict[str, Sequence[str]]:
    """Scores that each cohort shows; those of the first results for a cohort without any."""
    first = next((endpoint.shown_scores for _, endpoint in results.values()), ())
    return {cohort: results[cohort][1].shown_scores if cohort in results else first for cohort in paths}


def join_cohorts(paths: Mapping[str, Path], rows: Sequence[str] | Mapping[str, str]) -> CohortTable:
    """Join chosen rows of the result tables of several cohorts.

    Args:
        paths: Cohort, or cohort/task, to its report/{task}/table.parquet, in the order of the table.
        rows: features/classifier, or label to that.

    Returns:
        The table in numbers.

    Raises:
        ValueError: A table is damaged or of an earlier version, or no cohort has any of the rows.
    """
    row_of = dict(rows) if isinstance(rows, Mapping) else {row: row for row in rows}
    results = _read_results(paths)
    scores_of, lines = _select_scores(paths, results), []
    for cohort, scores in scores_of.items():
        table, published = results[cohort][0] if cohort in results else pd.DataFrame(), _read_published(cohort, scores)
        for label, row in row_of.items():
            values = table.loc[row] if row in table.index else {}
            paper = published.loc[row] if row in published.index else {}
            line = {"label": label, "row": row, "cohort": cohort}
            for score in scores:
                line |= {f"{score}_{part}": values.get(f"{score}_{part}", math.nan) for part in ("mean", "sd")}
                line |= {f"{PAPER}_{score}{part}": paper.get(f"{score}{part}", math.nan) for part in ("", "_sd")}
            line |= {name: values.get(name, math.nan) for name in ("folds", "partial_folds")}
            lines.append(line | {name: values.get(name, "") for name in (*ROW_NAMES, *PROTOCOL)})
    frame = pd.DataFrame(lines)
    if frame.filter(regex="_mean$").isna().all(axis=None):
        raise ValueError(
            f"none of its rows, {', '.join(row_of.values())}, is in {' or '.join(map(str, paths.values()))}; name rows "
            "as features/classifier of evaluate.classifiers, and run the cohorts first"
        )
    missing = {cohort: path for cohort, path in paths.items() if cohort not in results}
    return CohortTable(row_of, isinstance(rows, Mapping), scores_of, frame, missing)


def _name_rows(table: CohortTable) -> dict[str, list[str]]:
    """Names of each row by its label: the label, or the three names of the result tables."""
    if table.has_labels:
        return {label: [label] for label in table.rows}
    names = {}
    for row in table.rows:
        features, _, classifier = row.partition("/")
        evaluated = table.frame[(table.frame["row"] == row) & (table.frame["features"] != "")]
        default = {"features": table_format.NONE, "pretraining": features, "classifier": CLASSIFIER_NAMES[classifier]}
        names[row] = [" or ".join(evaluated[name].unique()) or default[name] for name in ROW_NAMES]
    return names


def format_rows(table: CohortTable) -> table_format.Table:
    """Format a table: a column per score and cohort, two where the paper has numbers of it.

    Args:
        table: The table in numbers.

    Returns:
        The table to print.
    """
    names = _name_rows(table)
    columns, groups = [], []
    cells: dict[str, list[str]] = {label: [] for label in names}
    notes = [
        f"{cohort}: no results yet ({path} is not there). Run it with the same report.tables."
        for cohort, path in table.missing.items()
    ]
    for cohort, lines in table.frame.groupby("cohort", sort=False):
        scores = table.scores[str(cohort)]
        with_paper = lines[[f"{PAPER}_{score}" for score in scores]].notna().any(axis=None)
        kinds = [("", "_mean"), *([(f"{PAPER}_", "")] if with_paper else [])]
        groups.append((str(cohort), len(kinds) * len(scores)))
        for prefix, mean in kinds:
            columns += [SCORES[score].title + (f", {PAPER}" if prefix else "") for score in scores]
            for line in lines.to_dict("records"):
                cells[line["label"]] += [_format_cell(line, score, prefix, mean) for score in scores]
        notes += _cohort_notes(str(cohort), lines, scores, with_paper=with_paper, missing=cohort in table.missing)
    heads: Sequence[str] = ["Row"] if table.has_labels else [*ROW_NAMES.values()]
    return table_format.Table(heads, columns, [(names[label], cells[label]) for label in names], groups, notes)


def _format_cell(line: Mapping[Hashable, Any], score: str, prefix: str, mean: str) -> str:
    """Text of a score of ours, or of the paper's, which may have no deviation."""
    value, sd = line[f"{prefix}{score}{mean}"], line[f"{prefix}{score}_sd"]
    decimals = table_format.count_decimals(value) if SCORES[score].has_unit else None
    text = table_format.format_mean_sd(value, sd, decimals).removesuffix(f"±{table_format.NONE}")
    return text if prefix else table_format.mark_partial(text, line["partial_folds"])


def _cohort_notes(
    cohort: str, lines: pd.DataFrame, scores: Sequence[str], *, with_paper: bool, missing: bool
) -> Iterator[str]:
    """Notes on a cohort: the protocol beside the paper's, folds that lack a label, rows that were not evaluated."""
    has_score = lines[[f"{score}_mean" for score in scores]].notna().any(axis=1)
    encoders, splits = (lines.loc[has_score, name].replace("", pd.NA).dropna() for name in PROTOCOL)
    if with_paper and len(encoders):
        yield protocol.compare_with_paper(cohort.partition("/")[0], encoders.unique(), splits.unique())
    partial = lines[lines["partial_folds"] > 0]
    if len(partial):
        yield f"{cohort}: {table_format.explain_mark(*partial[['partial_folds', 'folds']].iloc[0])}"
    lacking = lines.loc[~has_score, "row"]
    if not missing and len(lacking):
        yield f"{cohort}: not evaluated: {', '.join(lacking)}."


def run(*, paths: Mapping[str, str], sections: Mapping[str, config.CohortTableConfig], out_dir: Path) -> None:
    """Write each table as {name}.csv, in numbers, and as .md, .tex and .html, formatted.

    Args:
        paths: Cohort, or cohort/task, to its report/{task}/table.parquet, which may not exist.
        sections: Name of a table to its config.
        out_dir: Where the files are written.
    """
    files = {cohort: Path(path) for cohort, path in paths.items()}
    for name, section in sections.items():
        try:
            cohort_table = join_cohorts({cohort: files[cohort] for cohort in section.cohorts}, section.rows)
        except ValueError as error:
            raise ValueError(f"report.tables.{name}: {error}") from error
        table = format_rows(cohort_table)
        page = render("report/tables.html.j2", title=name, table=table)
        artifacts.write_csv(out_dir / f"{name}.csv", cohort_table.frame)
        for suffix, text in {
            "md": table_format.format_markdown(table),
            "tex": table_format.format_latex(table),
            "html": page,
        }.items():
            artifacts.write_text(out_dir / f"{name}.{suffix}", text)
        log.info("%s: %d rows of %d cohorts", name, len(table.lines), len(section.cohorts) - len(cohort_table.missing))
        for note in table.notes:
            log.warning("%s: %s", name, note)
