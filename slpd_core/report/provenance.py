"""Where a report comes from: files and their settings, versions, and the time each stage took."""

import csv
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from slpd_core import artifacts

STAGES = (
    *("sheet", "tissue", "regions", "patches", "patch_encoder", "tokens", "ledger", "compared", "pretrain", "embed"),
    *("gallery", "folds", "evaluate", "heatmaps"),
)
LIBRARIES = (
    *("snakemake", "torch", "timm", "numpy", "scipy", "scikit-learn", "pandas", "h5py", "openslide-python", "pyvips"),
)


def provenance(files: Mapping[str, artifacts.Meta]) -> list[dict[str, Any]]:
    """What the files a report was made from say of themselves; those of one stage and settings stand together."""
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for name, meta in files.items():
        key = tuple(meta[part] for part in ("stage", "stage_version", "section", "slpd_version"))
        groups.setdefault(key, {})[name] = meta["fingerprint"]
    return [
        {"stage": stage, "version": version, "settings": json.loads(section), "slpd_version": slpd, "files": named}
        for (stage, version, section, slpd), named in groups.items()
    ]


def stage_times(benchmarks_dir: Path) -> list[dict[str, Any]]:
    """What each stage took by Snakemake's benchmark files: jobs, time of all and of the longest one, most memory.

    What a job's file does not say, as the memory of one that ended at once, counts as nothing.
    """
    found = []
    for stage in STAGES:
        jobs = []
        for path in sorted((benchmarks_dir / stage).rglob("*.tsv")):
            with path.open(encoding="utf-8") as file:
                jobs += [
                    [_number(row.get(key)) for key in ("s", "max_rss")] for row in csv.DictReader(file, delimiter="\t")
                ]
        if jobs:
            seconds, memory = zip(*jobs, strict=True)
            found.append(
                {
                    "stage": "other patch encoders" if stage == "compared" else stage,
                    "jobs": len(jobs),
                    "all": clock(sum(seconds)),
                    "longest": clock(max(seconds)),
                    "memory": f"{max(memory) / 1000:.1f}" if max(memory) else "–",
                }
            )
    return found


def _number(text: str | None) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if value == value else 0.0


def clock(seconds: float) -> str:
    """A time as hours:minutes:seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def versions() -> dict[str, str]:
    """Python and the libraries that results depend on, in the environment that reports."""
    return {"Python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def provenance_context(files: Mapping[str, artifacts.Meta], benchmarks_dir: Path, seed: int) -> dict[str, Any]:
    """What the page says of where it comes from."""
    return {"provenance": provenance(files), "times": stage_times(benchmarks_dir), "versions": versions(), "seed": seed}
