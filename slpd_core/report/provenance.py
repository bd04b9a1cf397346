"""Provenance of a report: files and their settings, versions, and the time of each stage."""

import csv
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from slpd_core import artifacts
from slpd_core.report.pseudonyms import hide_texts
from slpd_core.runtime import read_earlier_seconds

STAGES = (
    *("sheet", "tissue", "regions", "patches", "patch_encoder", "tokens", "ledger", "compared", "pretrain", "embed"),
    *("gallery", "labels", "folds", "evaluate", "attention", "heatmaps", "external"),
)
RESUMED = ("patch_encoder", "pretrain")  # stages whose jobs go on where a stopped one was
LIBRARIES = (
    *("snakemake", "torch", "timm", "numpy", "scipy", "scikit-learn", "pandas", "h5py", "openslide-python", "pyvips"),
)


def _group_files(files: Mapping[str, artifacts.Meta]) -> list[dict[str, Any]]:
    """Groups of files of one stage and settings; files: fingerprints by name."""
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for name, meta in files.items():
        key = tuple(meta[part] for part in ("stage", "stage_version", "section", "slpd_version"))
        groups.setdefault(key, {})[name] = meta["fingerprint"]
    return [
        {
            "stage": stage,
            "version": version,
            "settings": json.loads(section),
            "slpd_version": slpd,
            "files": fingerprints,
        }
        for (stage, version, section, slpd), fingerprints in groups.items()
    ]


def _read_stage_times(benchmarks_dir: Path) -> list[dict[str, Any]]:
    """Number of jobs, total and longest time, and peak memory (GB) of each stage, from Snakemake's benchmark files.

    To the time of a training that was stopped and resumed its log adds that of the earlier attempts.
    """
    times = []
    for stage in STAGES:
        jobs = []
        for path in sorted((benchmarks_dir / stage).rglob("*.tsv")):
            log_path = (benchmarks_dir.with_name("logs") / path.relative_to(benchmarks_dir)).with_suffix(".log")
            earlier = read_earlier_seconds(log_path) if stage in RESUMED and log_path.exists() else 0.0
            with path.open(encoding="utf-8") as file:
                rows = [*csv.DictReader(file, delimiter="\t")]
            jobs += [(_number(row.get("s")) + earlier, _number(row.get("max_rss"))) for row in rows]
        if jobs:
            seconds, memory = zip(*jobs, strict=True)
            times.append(
                {
                    "stage": "other patch encoders" if stage == "compared" else stage,
                    "jobs": len(jobs),
                    "all": _format_seconds(sum(seconds)),
                    "longest": _format_seconds(max(seconds)),
                    "memory": f"{max(memory) / 1000:.1f}" if max(memory) else "–",
                }
            )
    return times


def _number(text: str | None) -> float:
    """Number in a benchmark file; 0 if it is missing, such as the memory of a job that ended at once."""
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if value == value else 0.0


def _format_seconds(seconds: float) -> str:
    """Time as hours:minutes:seconds, such as 1:02:03."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def read_versions() -> dict[str, str]:
    """Read the versions of Python and of the libraries in this environment.

    Returns:
        Versions by name.
    """
    return {"Python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def provenance_context(
    files: Mapping[str, artifacts.Meta], benchmarks_dir: Path, seed: int, *, hide_paths: bool = False
) -> dict[str, Any]:
    """Collect the provenance of a report.

    Args:
        files: Name of each file that it was made from to its metadata.
        benchmarks_dir: Of Snakemake's benchmark files, by stage.
        seed: Of the config.
        hide_paths: Leave out what can be a path in the settings.

    Returns:
        Values by the template's names.
    """
    groups = _group_files(files)
    if hide_paths:
        groups = [group | {"settings": hide_texts(group["settings"])} for group in groups]
    return {
        "provenance": groups,
        "times": _read_stage_times(benchmarks_dir),
        "versions": read_versions(),
        "seed": seed,
    }
