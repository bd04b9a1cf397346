"""The precision of a cohort's tokens: `auto` is resolved by the first job and kept for all slides.

Its record is a file of one word per patch encoder, which jobs on all machines share. Without it, tokens that are there
already decide.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from slpd_core import artifacts
from slpd_core.encoders.precision import DTYPES, choose_precision
from slpd_core.runtime import log


def resolve_cohort_precision(
    precision: str, *, device: str, encoder_meta: Mapping[str, Any], state_dir: Path | None, encoded_dir: Path
) -> str:
    """Resolve precision "auto" as the cohort's first job did; the first job records its choice.

    Args:
        precision: "auto", "fp32", "bf16" or "fp16".
        device: "cpu" or "cuda".
        encoder_meta: Metadata of the patch encoder, as `encoders.patch_encoder_file.parse_metadata` returns.
        state_dir: Folder of the record; None keeps none.
        encoded_dir: Folder of the encoded regions of other slides, which decide if there is no record.

    Returns:
        "fp32", "bf16" or "fp16".

    Raises:
        ValueError: The record names no precision.
    """
    if precision != "auto" or state_dir is None:
        return choose_precision(precision, device, encoder_meta["token_dim"])
    record = state_dir / f"{encoder_meta['fingerprint'][:8]}.precision"
    if not record.exists():
        chosen = _most_common(encoded_dir, encoder_meta) or choose_precision("auto", device, encoder_meta["token_dim"])
        _write_first(record, chosen)
    kept = record.read_text(encoding="utf-8").strip()
    if kept not in DTYPES:
        raise ValueError(f"{record}: {kept!r} is no precision; write {', '.join(DTYPES)} into it, or delete it")
    log.info("precision auto: %s, as recorded for this cohort in %s", kept, record)
    return kept


def format_encoder_meta(encoder_meta: Mapping[str, Any]) -> artifacts.Meta:
    """Format the entries on a patch encoder in the metadata of tokens.

    Args:
        encoder_meta: As in `resolve_cohort_precision`.

    Returns:
        ENCODER_META.
    """
    numbers = (*encoder_meta["mean"], *encoder_meta["std"])
    return {
        "encoder_source": encoder_meta["source"],
        "encoder_name": encoder_meta["name"],
        "encoder_normalization": "mean {:g} {:g} {:g}, std {:g} {:g} {:g}".format(*numbers),
    }


def _most_common(encoded_dir: Path, encoder_meta: Mapping[str, Any]) -> str | None:
    """Return the precision of most slides that this encoder has encoded; None if there are none."""
    described, counts = format_encoder_meta(encoder_meta).items(), Counter[str]()
    for path in sorted(encoded_dir.glob("*.h5")):
        with suppress(ValueError, OSError):  # a broken file, or one of a job that runs at the same time
            regions, meta = artifacts.read_regions(path)
            counts[meta.get("precision", "")] += len(regions.coords) > 0 and described <= meta.items()
    common = [precision for precision, count in counts.most_common(1) if count and precision in DTYPES]
    return common[0] if common else None


def _write_first(record: Path, precision: str) -> None:
    """Write the record, unless another job was faster."""
    record.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=record.parent, prefix=f".{record.name}.") as part:
        part.write(f"{precision}\n")
        part.flush()
        os.chmod(part.name, 0o644)
        try:
            os.link(part.name, record)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            artifacts.write_text(record, f"{precision}\n")
