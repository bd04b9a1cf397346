"""The ledger: one row a slide, what became of it. The one place where slides meet."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from slpd_core import artifacts, config
from slpd_core.runtime import log, name_some

VERSION = 5


def slide_row(tissue: artifacts.Tissue, encoded: artifacts.Regions, fingerprint: str) -> dict[str, object]:
    """What became of a slide: its status, size, um/px, tissue and number of regions.

    encoded: its regions that have tokens. fingerprint: of those.
    """
    slide, regions = encoded.slide, len(encoded.coords)
    status = artifacts.EMPTY if slide.status == artifacts.OK and not regions else slide.status
    return {
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
        "remarks": " ".join(slide.remarks),
    }


def exclusion_messages(ledger: pd.DataFrame) -> list[str]:
    """One line a slide that later stages leave out: its name and the reason."""
    out = ledger[ledger["status"] != artifacts.OK]
    words = {artifacts.QUARANTINED: "quarantined", artifacts.EMPTY: "left out"}
    return [f"{slide.slide_id} is {words[slide.status]}: {slide.reason}" for slide in out.itertuples()]


def format_remarks(ledger: pd.DataFrame) -> list[str]:
    """Format one line per slide that is used and has remarks: its name and what to know of it."""
    remarked = ledger[(ledger["status"] == artifacts.OK) & (ledger["remarks"] != "")]
    return [f"{slide.slide_id}: {slide.remarks}" for slide in remarked.itertuples()]


def compare_copies(copies: pd.DataFrame, *, labeled: bool) -> tuple[bool, str]:
    """Compare what a sheet says of slides of equal content: whether that differs, and a sentence about it.

    Args:
        copies: Rows of the sheet, columns slide_id, patient_id and label.
        labeled: False of slides to be predicted, whose patients and labels are not looked at.
    """
    names = ", ".join(copies["slide_id"])
    told = copies[["patient_id", "label"]].drop_duplicates()
    if len(told) == 1 or not labeled:
        return False, f"One slide, byte for byte: {names}; keep one of them in the sheet."
    of = ", ".join(f"patient {row.patient_id!r} with label {row.label!r}" for row in told.itertuples())
    return True, f"{names} are one slide, byte for byte, of {of}; correct the sheet, or keep one of them in it"


def remark_copies(ledger: pd.DataFrame, contents: Sequence[str], *, labeled: bool) -> pd.DataFrame:
    """Add a remark to slides of equal content, which would count several times.

    Args:
        ledger: One row per slide.
        contents: The fingerprint of each slide's bytes.
        labeled: As in `compare_copies`.

    Raises:
        ValueError: They are said to be of several patients, or of several labels: a leak that no grouping stops.
    """
    remarks, problems = ledger["remarks"].copy(), []
    used = ledger[ledger["status"] == artifacts.OK]
    for _, copies in used.groupby(pd.Series(contents, ledger.index)[used.index], sort=False):
        if len(copies) > 1:
            differ, sentence = compare_copies(copies, labeled=labeled)
            problems += [sentence] * differ
            remarks[copies.index] = [f"{remark} {sentence}".strip() for remark in copies["remarks"]]
    if problems:
        raise ValueError("\n  ".join(problems))
    return ledger.assign(remarks=remarks)


def describe_leak(known_id: str) -> str:
    """Say that a slide to be predicted is one of the cohort's."""
    return f"It is {known_id} of the cohort, byte for byte, on which classifiers are trained: no test of them."


def remark_leaks(ledger: pd.DataFrame, contents: Sequence[str], known: Mapping[str, str]) -> pd.DataFrame:
    """Add a remark to slides to be predicted that are the cohort's under other names.

    Args:
        ledger: One row per slide to be predicted.
        contents: The fingerprint of each slide's bytes.
        known: The id of the cohort's slide by the fingerprint of its bytes.
    """
    leaks = [describe_leak(known[content]) if content in known else "" for content in contents]
    remarks = [f"{remark} {leak}".strip() for remark, leak in zip(ledger["remarks"], leaks, strict=True)]
    return ledger.assign(remarks=remarks)


def check(ledger: pd.DataFrame, *, on_bad_slide: str = "quarantine") -> None:
    """Log the slides that are left out, and the remarks on the others.

    Args:
        ledger: One row per slide.
        on_bad_slide: "quarantine" leaves bad slides out; "stop" refuses them.

    Raises:
        ValueError: There are bad slides and `on_bad_slide` is "stop", or no slide is left.
    """
    for line in [*exclusion_messages(ledger), *format_remarks(ledger)]:
        log.warning("%s", line)
    bad = ledger[ledger["status"] == artifacts.QUARANTINED]
    names = ", ".join(bad["slide_id"])
    if len(bad) and on_bad_slide == "stop":
        raise ValueError(f"{len(bad)} bad slide(s): {names}; mend them or set ledger.on_bad_slide to quarantine")
    if not (ledger["status"] == artifacts.OK).any():
        raise ValueError(
            f"no slide has regions, {len(bad)} of {len(ledger)} are quarantined; the log names the reasons"
        )


def _read_slide(tissue_path: Path) -> artifacts.SlideInfo:
    return artifacts.read_tissue(tissue_path)[0].slide


def run(
    *,
    sheet_path: Path,
    tissue_paths: list[Path],
    encoded_paths: list[Path],
    out_path: Path,
    section: config.LedgerConfig,
    labeled: bool,
    known_tissue_paths: Sequence[Path] = (),
    unmatched: Sequence[str] = (),
) -> None:
    """Join all slides' artifacts into one table.

    Args:
        tissue_paths, encoded_paths: Of each slide, in the order of the sheet.
        labeled: As in `read_sheet`.
        known_tissue_paths: Of the cohort's slides, where the sheet is of slides to be predicted.
        unmatched: Names of the files among the outlines that are of no slide.
    """
    sheet, sheet_meta = artifacts.read_table(sheet_path, "sheet")
    rows, inputs, contents = [], [sheet_meta["fingerprint"]], []
    for slide, *paths in zip(sheet.to_dict("records"), tissue_paths, encoded_paths, strict=True):
        tissue, tissue_meta = artifacts.read_tissue(paths[0])
        encoded, meta = artifacts.read_regions(paths[1])
        row = slide_row(tissue, encoded, meta["fingerprint"])
        inputs += [tissue_meta["fingerprint"], meta["fingerprint"]]
        inputs += [str(row["status"]), str(row["regions"])]  # the same inputs can be quarantined, and mended
        identity = {key: slide[key] for key in ("slide_id", "patient_id", "label")}
        rows.append(identity | row)
        contents.append(tissue.slide.fingerprint)
    ledger = remark_copies(pd.DataFrame(rows, columns=[*artifacts.TABLES["ledger"]]), contents, labeled=labeled)
    known = {slide.fingerprint: slide.slide_id for slide in map(_read_slide, known_tissue_paths) if slide.fingerprint}
    ledger = remark_leaks(ledger, contents, known)
    inputs += [known[content] for content in contents if content in known]
    check(ledger, **section.model_dump())
    outlined = (ledger["tissue_source"] != "segmented").sum()
    log.info("%d slides, %d outlined by hand, %s regions", len(ledger), outlined, f"{ledger['regions'].sum():,}")
    meta = artifacts.provenance("ledger", VERSION, section.model_dump(), *inputs)
    if unmatched:
        log.warning("files of tissue.masks_dir that are of no slide: %s", name_some(unmatched))
        meta["unmatched_outlines"] = json.dumps(unmatched)
    artifacts.write_table(out_path, "ledger", ledger, meta)
