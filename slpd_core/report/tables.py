"""Tables over cohorts: chosen rows of the result tables of several cohorts, beside the paper's numbers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from slpd_core import artifacts, config
from slpd_core.config.renamed import FEATURES as RENAMED_FEATURES
from slpd_core.report import protocol, table_format
from slpd_core.report.html import render
from slpd_core.report.result_table import CLASSIFIER_NAMES, ROW_NAMES
from slpd_core.runtime import log

VERSION = 5
# Tables 1 and 2 of Yu, Lin & Xu (MICCAI 2023), under our names of rows. Table 2 has no deviations; a row that is also
# in Table 1, such as M = 4 on NSCLC, has those. Its row "region" is listed under both of its readings.
PUBLISHED = Path(__file__).with_name("published.csv")
PAPER = "paper"
PROTOCOL = ("patch_encoder", "splits")  # columns of a result table that describe the protocol of its scores


@dataclass(frozen=True)
class CohortTable:
    """Chosen rows of the result tables of several cohorts, in numbers.

    Attributes:
        rows: Label to row, features/classifier.
        has_labels: Whether rows have labels of their own.
        frame: A line per row and cohort: label, row, cohort, of each score mean, sd and the paper's
            (paper_{score}, _sd); nan where there is none.
        missing: Cohorts without results, and the file that does not exist.
    """

    rows: Mapping[str, str]
    has_labels: bool
    frame: pd.DataFrame
    missing: dict[str, Path]


def _read_results(paths: Mapping[str, Path]) -> dict[str, pd.DataFrame]:
    """Result table of each cohort that has one, indexed by row."""
    tables = {}
    for cohort, path in paths.items():
        if path.exists():
            try:
                table, _ = artifacts.read_table(path, "results")
            except ValueError as error:
                raise ValueError(f"{error}, by the configuration of cohort {cohort}") from error
            old = sorted({row for row in table["row"] if row.partition("/")[0] in RENAMED_FEATURES})
            if old:
                raise ValueError(
                    f"{path}: rows {', '.join(old)} have names of an earlier version; run cohort {cohort} again, with "
                    "its own configuration"
                )
            tables[cohort] = table.set_index("row")
    return tables


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
    published = pd.read_csv(PUBLISHED).set_index(["cohort", "row"])
    lines = []
    for cohort in paths:
        for label, row in row_of.items():
            scores = results[cohort].loc[row] if cohort in results and row in results[cohort].index else {}
            name = cohort.partition("/")[0]  # of cohort/task
            paper = published.loc[name, row] if (name, row) in published.index else {}
            line = {"label": label, "row": row, "cohort": cohort}
            for score in table_format.SHOWN_SCORES:
                line |= {f"{score}_{part}": scores.get(f"{score}_{part}", math.nan) for part in ("mean", "sd")}
                line |= {f"{PAPER}_{score}{part}": paper.get(f"{score}{part}", math.nan) for part in ("", "_sd")}
            line |= {name: scores.get(name, math.nan) for name in ("folds", "partial_folds")}
            lines.append(line | {name: scores.get(name, "") for name in (*ROW_NAMES, *PROTOCOL)})
    frame = pd.DataFrame(lines)
    if frame["accuracy_mean"].isna().all():
        raise ValueError(
            f"none of its rows, {', '.join(row_of.values())}, is in {' or '.join(map(str, paths.values()))}; name rows "
            "as features/classifier of evaluate.classifiers, and run the cohorts first"
        )
    missing = {cohort: path for cohort, path in paths.items() if cohort not in results}
    return CohortTable(row_of, isinstance(rows, Mapping), frame, missing)


def _name_rows(table: CohortTable) -> dict[str, list[str]]:
    """Names of each row by its label: the label, or the three names of the result table."""
    if table.has_labels:
        return {label: [label] for label in table.rows}
    names = {}
    for row in table.rows:
        features, _, classifier = row.partition("/")
        evaluated = table.frame[(table.frame["row"] == row) & (table.frame["features"] != "")]
        default = {"features": table_format.NONE, "pretraining": features, "classifier": CLASSIFIER_NAMES[classifier]}
        names[row] = [(evaluated.iloc[0] if len(evaluated) else default)[name] for name in ROW_NAMES]
    return names


def format_rows(table: CohortTable) -> table_format.Table:
    """Format a table: two columns per cohort, four where the paper has numbers of it.

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
        with_paper = lines[[f"{PAPER}_{score}" for score in table_format.SHOWN_SCORES]].notna().any(axis=None)
        kinds = [("", "_mean"), *([(f"{PAPER}_", "")] if with_paper else [])]
        groups.append((str(cohort), len(kinds) * len(table_format.SHOWN_SCORES)))
        for prefix, mean in kinds:
            columns += [title + (f", {PAPER}" if prefix else "") for title in table_format.SHOWN_SCORES.values()]
            for line in lines.to_dict("records"):
                for score in table_format.SHOWN_SCORES:
                    text = table_format.format_mean_sd(line[f"{prefix}{score}{mean}"], line[f"{prefix}{score}_sd"])
                    text = text.removesuffix(f"±{table_format.NONE}")
                    text = text if prefix else table_format.mark_partial(text, line["partial_folds"])
                    cells[line["label"]].append(text)
        notes += _cohort_notes(str(cohort), lines, with_paper=with_paper, missing=cohort in table.missing)
    heads: Sequence[str] = ["Row"] if table.has_labels else [*ROW_NAMES.values()]
    return table_format.Table(heads, columns, [(names[label], cells[label]) for label in names], groups, notes)


def _cohort_notes(cohort: str, lines: pd.DataFrame, *, with_paper: bool, missing: bool) -> Iterator[str]:
    """Notes on a cohort: the protocol beside the paper's, folds that lack a label, rows that were not evaluated."""
    encoders, splits = (lines.loc[lines["auc_mean"].notna(), name].replace("", pd.NA).dropna() for name in PROTOCOL)
    if with_paper and len(encoders):
        yield protocol.compare_with_paper(cohort.partition("/")[0], encoders.unique(), splits.unique())
    partial = lines[lines["partial_folds"] > 0]
    if len(partial):
        yield f"{cohort}: {table_format.explain_mark(*partial[['partial_folds', 'folds']].iloc[0])}"
    lacking = lines.loc[lines["auc_mean"].isna() & lines["accuracy_mean"].isna(), "row"]
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
        page = render("tables.html.j2", title=name, table=table)
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
