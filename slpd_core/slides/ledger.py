"""The ledger: one row per slide with its status and why. The one fan-in of slides."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.runtime import log, name_some

VERSION = 6


def slide_row(tissue: artifacts.Tissue, encoded: artifacts.Regions, fingerprint: str) -> dict[str, object]:
    """Build a slide's row of the ledger.

    Args:
        tissue: The slide's tissue.
        encoded: Its regions that have tokens.
        fingerprint: Fingerprint of `encoded`.

    Returns:
        Values by column: status, size, um/px, tissue, number of regions and, if measured, the median of their focus.
    """
    slide, regions = encoded.slide, len(encoded.coords)
    status = artifacts.EMPTY if slide.status == artifacts.OK and not regions else slide.status
    measured = {} if encoded.focus is None else {"focus": _finite_median(encoded.focus)}
    return measured | {
        "status": status,
        "reason": slide.reason,
        "width_px": slide.width_px,
        "height_px": slide.height_px,
        "mpp": slide.mpp,
        "mpp_source": slide.mpp_source,
        "tissue_mm2": tissue.area_mm2,
        "tissue_source": tissue.source,
        "regions": regions,
        "fingerprint": fingerprint,
        "slide_fingerprint": tissue.slide.fingerprint,
        "remarks": " ".join(slide.remarks),
    }


def _finite_median(values: np.ndarray) -> float:
    """The median of the numbers among values; nan where there is none."""
    numbers = values[np.isfinite(values)]
    return float(np.median(numbers)) if len(numbers) else float("nan")


def exclusion_messages(ledger: pd.DataFrame) -> list[str]:
    """List the slides that later stages leave out.

    Args:
        ledger: One row per slide.

    Returns:
        One line per slide: its id and the reason.
    """
    out = ledger[ledger["status"] != artifacts.OK]
    words = {artifacts.QUARANTINED: "quarantined", artifacts.EMPTY: "left out"}
    return [f"{slide.slide_id} is {words[slide.status]}: {slide.reason}" for slide in out.itertuples()]


def format_remarks(ledger: pd.DataFrame) -> list[str]:
    """List the remarks on slides that are used.

    Args:
        ledger: One row per slide.

    Returns:
        One line per slide that has remarks: its id and the remarks.
    """
    remarked = ledger[(ledger["status"] == artifacts.OK) & (ledger["remarks"] != "")]
    return [f"{slide.slide_id}: {slide.remarks}" for slide in remarked.itertuples()]


def compare_copies(copies: pd.DataFrame, *, external: bool = False) -> tuple[bool, str]:
    """Compare the patients of slides of equal content.

    Args:
        copies: Their rows of the sheet, columns slide_id and patient_id.
        external: Whether they are of an external cohort; their patients do not count then.

    Returns:
        Whether they differ, and a sentence that names the slides.
    """
    names, patients = ", ".join(copies["slide_id"]), copies["patient_id"].unique()
    if len(patients) == 1 or external:
        return False, f"The same slide, byte for byte: {names}; remove all but one from the sheet."
    of = ", ".join(f"patient {patient!r}" for patient in patients)
    return True, f"{names} are the same slide, byte for byte, of {of}; correct the sheet or remove all but one"


def note_copies(ledger: pd.DataFrame, *, external: bool = False) -> tuple[pd.Series, list[str]]:
    """Note slides of equal content, which would count several times.

    Args:
        ledger: One row per slide.
        external: As in `compare_copies`.

    Returns:
        The remarks of all slides, with theirs; and a sentence per group of copies of several patients.
    """
    remarks, problems = ledger["remarks"].copy(), []
    for _, copies in ledger[ledger["status"] == artifacts.OK].groupby("slide_fingerprint", sort=False):
        if len(copies) > 1:
            differ, sentence = compare_copies(copies, external=external)
            problems += [sentence] * differ
            remarks[copies.index] = [f"{remark} {sentence}".strip() for remark in copies["remarks"]]
    return remarks, problems


def remark_copies(ledger: pd.DataFrame, *, external: bool = False) -> pd.DataFrame:
    """Add a remark to slides of equal content.

    Args:
        ledger: One row per slide.
        external: As in `compare_copies`.

    Returns:
        The ledger with the remarks.

    Raises:
        ValueError: The sheet says they are of several patients: a leak that no grouping prevents.
    """
    remarks, problems = note_copies(ledger, external=external)
    if problems:
        raise ValueError("\n  ".join(problems))
    return ledger.assign(remarks=remarks)


def describe_leak(known_id: str) -> str:
    """Remark that a slide to be predicted is one of the cohort's.

    Args:
        known_id: The id of the cohort's slide.

    Returns:
        One sentence.
    """
    return f"It is {known_id} of the cohort, byte for byte, on which classifiers are trained: no test of them."


def remark_leaks(ledger: pd.DataFrame, known: Mapping[str, str]) -> pd.DataFrame:
    """Add a remark to slides to be predicted that are the cohort's under other names.

    Args:
        ledger: One row per slide to be predicted.
        known: Id of each of the cohort's slides by the fingerprint of its bytes.

    Returns:
        The ledger with the remarks.
    """
    contents = ledger["slide_fingerprint"]
    leaks = [describe_leak(known[content]) if content in known else "" for content in contents]
    remarks = [f"{remark} {leak}".strip() for remark, leak in zip(ledger["remarks"], leaks, strict=True)]
    return ledger.assign(remarks=remarks)


def check(ledger: pd.DataFrame, *, on_bad_slide: str = "quarantine") -> None:
    """Log the slides that are left out, and the remarks on the others.

    Args:
        ledger: One row per slide.
        on_bad_slide: "quarantine" leaves bad slides out; "stop" raises an error.

    Raises:
        ValueError: There are bad slides and `on_bad_slide` is "stop".
    """
    for line in [*exclusion_messages(ledger), *format_remarks(ledger)]:
        log.warning("%s", line)
    bad = ledger[ledger["status"] == artifacts.QUARANTINED]
    names = ", ".join(bad["slide_id"])
    if len(bad) and on_bad_slide == "stop":
        raise ValueError(f"{len(bad)} bad slide(s): {names}; repair them or set ledger.on_bad_slide to quarantine")


def check_any_left(ledger: pd.DataFrame) -> None:
    """Check that a slide is left, as pretraining and evaluation need.

    Args:
        ledger: One row per slide.

    Raises:
        ValueError: None is.
    """
    if not (ledger["status"] == artifacts.OK).any():
        n_bad = (ledger["status"] == artifacts.QUARANTINED).sum()
        raise ValueError(
            f"no slide has regions, {n_bad} of {len(ledger)} are quarantined; "
            "the log and the page slides/index.html name the reasons"
        )


def check_precision(precisions: Mapping[str, str]) -> None:
    """Check that the tokens of all slides were computed in one precision.

    Args:
        precisions: Precision by slide id, of the slides that have tokens.

    Raises:
        ValueError: There are several; names the slides of each.
    """
    slides: dict[str, list[str]] = {}
    for slide, precision in precisions.items():
        slides.setdefault(precision, []).append(slide)
    if len(slides) > 1:
        ranked = sorted(slides, key=lambda precision: -len(slides[precision]))
        listed = "; ".join(f"{precision or 'unknown'}: {name_some(slides[precision])}" for precision in ranked)
        raise ValueError(
            f"the cohort's tokens have several precisions ({listed}); delete encoded/SLIDE.h5 of the slides that are "
            f"not in {ranked[0]} and run snakemake again, or set tokens.precision, which encodes all slides again"
        )


def _read_slide(tissue_path: Path) -> artifacts.SlideInfo:
    return artifacts.read_tissue(tissue_path)[0].slide


def _build_rows(
    slides: Iterable[Mapping[Any, Any]], tissue_paths: Sequence[Path], encoded_paths: Sequence[Path]
) -> tuple[pd.DataFrame, list[str]]:
    """Read the artifacts of the sheet's slides, whose tokens have one precision: rows of the ledger and its inputs."""
    rows, inputs, precisions = [], [], {}
    for slide, *paths in zip(slides, tissue_paths, encoded_paths, strict=True):
        tissue, tissue_meta = artifacts.read_tissue(paths[0])
        encoded, meta = artifacts.read_regions(paths[1])
        row = slide_row(tissue, encoded, meta["fingerprint"])
        inputs += [tissue_meta["fingerprint"], meta["fingerprint"]]
        inputs += [str(row["status"]), str(row["regions"])]  # which may differ between runs of the same inputs
        rows.append({key: slide[key] for key in ("slide_id", "patient_id")} | row)
        if row["status"] == artifacts.OK:
            precisions[slide["slide_id"]] = meta.get("precision", "")
    check_precision(precisions)
    measured = ["focus"] * any("focus" in row for row in rows)
    return pd.DataFrame(rows, columns=[*artifacts.TABLES["ledger"], *measured]), inputs


def run(
    *,
    sheet_path: Path,
    tissue_paths: list[Path],
    encoded_paths: list[Path],
    out_path: Path,
    section: config.LedgerConfig,
    external: bool = False,
    known_tissue_paths: Sequence[Path] = (),
    unmatched: Sequence[str] = (),
) -> None:
    """Join all slides' artifacts into one table.

    Args:
        sheet_path: The checked sheet.
        tissue_paths, encoded_paths: Artifacts of each slide, in the order of the sheet.
        out_path: The file to write.
        section: The stage's settings.
        external: Whether the slides are of an external cohort.
        known_tissue_paths: Those of the cohort's slides, if the sheet is of an external cohort.
        unmatched: Names of files in tissue.masks_dir that belong to no slide.

    Raises:
        ValueError: As `remark_copies`, `check` and `check_any_left`; or tokens have several precisions.
    """
    sheet, sheet_meta = artifacts.read_table(sheet_path, "sheet")
    ledger, inputs = _build_rows(sheet.to_dict("records"), tissue_paths, encoded_paths)
    ledger = remark_copies(ledger, external=external)
    known = {slide.fingerprint: slide.slide_id for slide in map(_read_slide, known_tissue_paths) if slide.fingerprint}
    ledger = remark_leaks(ledger, known)
    leaked = [known[content] for content in ledger["slide_fingerprint"] if content in known]
    inputs = [sheet_meta["fingerprint"], *inputs, *leaked]
    check(ledger, **section.model_dump())
    if not external:  # of external slides none need be left
        check_any_left(ledger)
    outlined = (ledger["tissue_source"] != "segmented").sum()
    log.info("%d slides, %d outlined by hand, %s regions", len(ledger), outlined, f"{ledger['regions'].sum():,}")
    meta = artifacts.provenance("ledger", VERSION, section.model_dump(), *inputs)
    if unmatched:
        log.warning("files of tissue.masks_dir that belong to no slide: %s", name_some(unmatched))
        meta["unmatched_outlines"] = json.dumps(unmatched)
    artifacts.write_table(out_path, "ledger", ledger, meta)
