"""The tables of evaluate.protocols: read, summarized, written beside the result tables, and described for the page."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from slpd_core import artifacts, config
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.report import figures, table_format
from slpd_core.report.few_shot_results import FEW_SHOT_PARAGRAPHS, format_few_shot, summarize_few_shot
from slpd_core.report.result_rows import LEVELS, name_pretraining
from slpd_core.report.retrieval_results import RETRIEVAL_PARAGRAPHS, format_retrieval, summarize_retrieval
from slpd_core.report.task import TaskResults


@dataclass(frozen=True)
class Presentation:
    """How the report presents a protocol.

    Attributes:
        title: Of its section.
        summarize: Of its tables by features, the reference features, the endpoint and the `folds` table; the numbers.
        format_tables: Of these numbers, the reference features and the endpoint; the tables to print.
        paragraphs: What was done.
    """

    title: str
    summarize: Callable[[Mapping[str, pd.DataFrame], str, Endpoint, pd.DataFrame], pd.DataFrame]
    format_tables: Callable[[pd.DataFrame, str, Endpoint], list[table_format.Table]]
    paragraphs: Sequence[str]


PRESENTATIONS = {
    "few_shot": Presentation("Few-shot", summarize_few_shot, format_few_shot, FEW_SHOT_PARAGRAPHS),
    "retrieval": Presentation("Retrieval", summarize_retrieval, format_retrieval, RETRIEVAL_PARAGRAPHS),
}


@dataclass(frozen=True)
class ProtocolResults:
    """The results of a protocol on a task.

    Attributes:
        protocol: One of PRESENTATIONS.
        task: Its name.
        endpoint: Of the task.
        reference: The features that all others are compared with.
        table: In numbers, a line per features and what the protocol varies.
        remarks: Sentences to know about it.
        metas: Metadata of the files behind it, by name.
    """

    protocol: str
    task: str
    endpoint: Endpoint
    reference: str
    table: pd.DataFrame
    remarks: list[str]
    metas: dict[str, artifacts.Meta]

    @property
    def name(self) -> str:
        """Name of its files below report/."""
        return f"{self.task}/{self.protocol}"


def read_protocols(
    paths: Sequence[Path], tasks: Mapping[str, TaskResults], *, ledger: str, runs: Sequence[str], reference: str | None
) -> list[ProtocolResults]:
    """Read the tables of all protocols, and summarize them.

    Args:
        paths: {protocol}/{task}/{features}.parquet.
        tasks: The results of each task.
        ledger: Fingerprint of the ledger that all must come from.
        runs: Pretraining runs, in the order of the tables.
        reference: Row of report.reference, of which the features count; without them the last of the table.

    Returns:
        Protocol by protocol, task by task.

    Raises:
        ValueError: A file was made from another ledger.
    """
    results = []
    for protocol, presented in PRESENTATIONS.items():
        for task, of_task in tasks.items():
            of = [path for path in paths if path.parts[-3:-1] == (protocol, task)]
            tables = _read_tables(protocol, of, ledger, runs)
            if not tables:
                continue
            named = (reference or "").partition("/")[0]
            chosen = named if named in tables else [*tables][-1]
            frames = {features: frame for features, (frame, _) in tables.items()}
            table = presented.summarize(frames, chosen, of_task.endpoint, of_task.folds)
            names = {features: _name(meta) for features, (_, meta) in tables.items()}
            for i, column in enumerate(("level", "pretraining"), start=1):
                table.insert(i, column, [names[features][i - 1] for features in table["features"]])
            remarks = dict.fromkeys(line for _, meta in tables.values() for line in meta["remarks"].splitlines())
            metas = {f"{protocol}/{task}/{features}": meta for features, (_, meta) in tables.items()}
            results.append(ProtocolResults(protocol, task, of_task.endpoint, chosen, table, [*remarks], metas))
    return results


def _read_tables(
    protocol: str, paths: Iterable[Path], ledger: str, runs: Sequence[str]
) -> dict[str, tuple[pd.DataFrame, artifacts.Meta]]:
    """Table and metadata by features, in the order of the result table; all of this ledger."""
    tables = {}
    for path in paths:
        table, meta = artifacts.read_table(path, protocol)
        artifacts.check_ledger(path, meta, ledger)
        tables[meta["features"]] = table, meta
    named = [config.PATCH_FEATURES, *(name for name in tables if name != config.PATCH_FEATURES and name not in runs)]
    order = {name: i for i, name in enumerate([*named, *runs])}
    return dict(sorted(tables.items(), key=lambda item: (LEVELS.index(item[1][1]["level"]), order[item[0]])))


def _name(meta: Mapping[str, str]) -> tuple[str, str]:
    """Level and pretraining of features."""
    encoder = meta["encoder_source"], meta["encoder_name"]
    return meta["level"], name_pretraining(meta["features"], meta["level"], encoder)


def draw_protocols(results: Iterable[ProtocolResults], runs: Sequence[str]) -> dict[str, bytes]:
    """Draw the scores by the number of training slides.

    Args:
        results: Of all protocols.
        runs: Pretraining runs, in the order of their colors.

    Returns:
        PNGs by name.
    """
    few = [of for of in results if of.protocol == "few_shot"]
    return {of.name: figures.plot_few_shot(of.table, of.endpoint.main_score, runs) for of in few}


def write_protocols(out_dir: Path, results: Iterable[ProtocolResults], meta: artifacts.Meta) -> None:
    """Write {task}/{protocol}: in numbers as Parquet and CSV, formatted as Markdown and LaTeX.

    Args:
        out_dir: Where the report is written.
        results: Of all protocols.
        meta: As `artifacts.provenance` returns.
    """
    for of in results:
        path, of_task = out_dir / f"{of.name}.parquet", {"task": of.task, "reference": of.reference}
        artifacts.write_both(path, f"{of.protocol}_results", of.table, meta | of_task | of.endpoint.meta)
        tables = PRESENTATIONS[of.protocol].format_tables(of.table, of.reference, of.endpoint)
        for suffix, format_table in {"md": table_format.format_markdown, "tex": table_format.format_latex}.items():
            artifacts.write_text(path.with_suffix(f".{suffix}"), "\n".join(map(format_table, tables)))


def describe_protocols(results: Sequence[ProtocolResults], tasks: Mapping[str, TaskResults]) -> list[dict[str, Any]]:
    """Describe the protocols for the page.

    Args:
        results: Of all protocols.
        tasks: The results of each task.

    Returns:
        Per protocol the values that the page's section names.
    """
    without = [task for task, of_task in tasks.items() if not of_task.endpoint.has_classes]
    described = []
    for protocol in dict.fromkeys(of.protocol for of in results):
        presented = PRESENTATIONS[protocol]
        of_tasks = [
            {
                "task": of.task,
                "name": of.name,
                "tables": presented.format_tables(of.table, of.reference, of.endpoint),
                "remarks": of.remarks,
            }
            for of in results
            if of.protocol == protocol
        ]
        section = {"name": protocol, "title": presented.title, "paragraphs": presented.paragraphs}
        described.append(section | {"of_tasks": of_tasks, "without": without})
    return described
