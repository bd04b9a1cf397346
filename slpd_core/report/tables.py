"""Tables over cohorts: chosen rows of the result tables of several cohorts, the paper's numbers beside its own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from slpd_core import artifacts, config
from slpd_core.report import protocol, table_format
from slpd_core.report.html import render
from slpd_core.report.result_table import CLASSIFIER_NAMES, NAMES
from slpd_core.runtime import log

VERSION = 4
# Yu, Lin & Xu (MICCAI 2023), Tables 1 and 2, by our names. A row of Table 2 has a deviation where it is one of Table 1,
# as M = 4 on NSCLC; those of the others are not at hand. Its "region" stands for both readings.
PUBLISHED = Path(__file__).with_name("published.csv")
PAPER = "paper"
PROTOCOL = ("patch_encoder", "splits")  # columns of a result table: what its scores rest on


@dataclass(frozen=True)
class CohortTable:
    """A table over cohorts in numbers.

    frame: a line a row and cohort: label, row, cohort, of each score mean, sd, and the paper's
    (paper_{score}, _sd); nan where there is none. missing: cohorts without results, with the file that is not there.
    """

    section: config.CohortTableConfig
    frame: pd.DataFrame
    missing: dict[str, Path]


def read_results(paths: Mapping[str, Path]) -> dict[str, pd.DataFrame]:
    """The result table of each cohort that has one, by row.

    Raises ValueError naming a damaged table and its cohort.
    """
    found = {}
    for cohort, path in paths.items():
        if path.exists():
            try:
                table, _ = artifacts.read_table(path, "results")
            except ValueError as error:
                raise ValueError(f"{error}, by the configuration of cohort {cohort}") from error
            found[cohort] = table.set_index("row")
    return found


def join(section: config.CohortTableConfig, paths: Mapping[str, Path]) -> CohortTable:
    """The table from the report/table.parquet of each of its cohorts.

    Raises ValueError where none of its cohorts has any of its rows.
    """
    results = read_results({cohort: paths[cohort] for cohort in section.cohorts})
    published = pd.read_csv(PUBLISHED).set_index(["cohort", "row"])
    lines = []
    for cohort in section.cohorts:
        for label, row in section.labelled.items():
            own = results[cohort].loc[row] if cohort in results and row in results[cohort].index else {}
            paper = published.loc[cohort, row] if (cohort, row) in published.index else {}
            line = {"label": label, "row": row, "cohort": cohort}
            for score in table_format.SHOWN:
                line |= {f"{score}_{what}": own.get(f"{score}_{what}", math.nan) for what in ("mean", "sd")}
                line |= {f"{PAPER}_{score}{what}": paper.get(f"{score}{what}", math.nan) for what in ("", "_sd")}
            line |= {name: own.get(name, math.nan) for name in ("folds", "partial_folds")}
            lines.append(line | {name: own.get(name, "") for name in (*NAMES, *PROTOCOL)})
    frame = pd.DataFrame(lines)
    if frame["accuracy_mean"].isna().all():
        raise ValueError(
            f"none of its rows, {', '.join(section.labelled.values())}, is in "
            f"{' or '.join(str(paths[cohort]) for cohort in section.cohorts)}; name rows as features/classifier of "
            "evaluate.classifiers, and run the cohorts first"
        )
    return CohortTable(section, frame, {cohort: paths[cohort] for cohort in section.cohorts if cohort not in results})


def names_of(section: config.CohortTableConfig, frame: pd.DataFrame) -> dict[str, list[str]]:
    """What each row is called, by its label: the label, or where rows have none of their own the three names of the
    result table.
    """
    if isinstance(section.rows, dict):
        return {label: [label] for label in section.rows}
    found = {}
    for row in section.rows:
        features, _, classifier = row.partition("/")
        known = frame[(frame["row"] == row) & (frame["features"] != "")]
        unknown = {"features": table_format.NONE, "pretraining": features, "classifier": CLASSIFIER_NAMES[classifier]}
        found[row] = [(known.iloc[0] if len(known) else unknown)[name] for name in NAMES]
    return found


def format_rows(joined: CohortTable) -> table_format.Table:
    """The table to print: two columns a cohort, four where the paper has numbers of it."""
    section, frame = joined.section, joined.frame
    names = names_of(section, frame)
    columns, groups = [], []
    cells: dict[str, list[str]] = {label: [] for label in names}
    notes = [
        f"{cohort}: no results yet ({path} is not there). Run it with the same report.tables."
        for cohort, path in joined.missing.items()
    ]
    for cohort, own in frame.groupby("cohort", sort=False):
        with_paper = own[[f"{PAPER}_{score}" for score in table_format.SHOWN]].notna().any(axis=None)
        kinds = [("", "_mean"), *([(f"{PAPER}_", "")] if with_paper else [])]
        encoders, splits = (own.loc[own["auc_mean"].notna(), name].replace("", pd.NA).dropna() for name in PROTOCOL)
        if with_paper and len(encoders):
            notes.append(protocol.compare_with_paper(str(cohort), encoders.unique(), splits.unique()))
        groups.append((str(cohort), len(kinds) * len(table_format.SHOWN)))
        for prefix, mean in kinds:
            columns += [title + (f", {PAPER}" if prefix else "") for title in table_format.SHOWN.values()]
            for line in own.to_dict("records"):
                for score in table_format.SHOWN:
                    text = table_format.mean_sd(line[f"{prefix}{score}{mean}"], line[f"{prefix}{score}_sd"])
                    text = text.removesuffix(f"±{table_format.NONE}")
                    cells[line["label"]].append(text if prefix else table_format.mark(text, line["partial_folds"]))
        partial = own[own["partial_folds"] > 0]
        if len(partial):
            notes.append(f"{cohort}: {table_format.mark_note(*partial[['partial_folds', 'folds']].iloc[0])}")
        lacking = own.loc[own["auc_mean"].isna() & own["accuracy_mean"].isna(), "row"]
        if cohort not in joined.missing and len(lacking):
            notes.append(f"{cohort}: not evaluated: {', '.join(lacking)}.")
    heads: Sequence[str] = ["Row"] if isinstance(section.rows, dict) else [*NAMES.values()]
    return table_format.Table(heads, columns, [(names[label], cells[label]) for label in names], groups, notes)


def run(*, paths: Mapping[str, str], sections: Mapping[str, config.CohortTableConfig], out_dir: Path) -> None:
    """Write each table as {name}.csv, in numbers, and as .md, .tex and .html, as it is printed.

    paths: cohort → its report/table.parquet, whether it is there or not.
    """
    files = {cohort: Path(path) for cohort, path in paths.items()}
    for name, section in sections.items():
        try:
            joined = join(section, files)
        except ValueError as error:
            raise ValueError(f"report.tables.{name}: {error}") from error
        table = format_rows(joined)
        page = render("tables.html.j2", title=name, table=table)
        artifacts.write_csv(out_dir / f"{name}.csv", joined.frame)
        for suffix, text in {
            "md": table_format.markdown(table),
            "tex": table_format.latex(table),
            "html": page,
        }.items():
            artifacts.write_text(out_dir / f"{name}.{suffix}", text)
        log.info("%s: %d rows of %d cohorts", name, len(table.lines), len(section.cohorts) - len(joined.missing))
        for note in table.notes:
            log.warning("%s: %s", name, note)
