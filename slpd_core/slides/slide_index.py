"""The page of all slides: which are used, what was found on each, and what to look at."""

from collections.abc import Sequence
from os.path import relpath
from pathlib import Path

import pandas as pd

from slpd_core import artifacts
from slpd_core.drawing.html import inline_scripts, inline_thumbnails, render
from slpd_core.runtime import log
from slpd_core.slides.ledger import note_copies, slide_row

VERSION = 1
STATES = {artifacts.OK: "used", artifacts.QUARANTINED: "quarantined", artifacts.EMPTY: "no regions"}


def describe_states(slides: pd.DataFrame) -> pd.DataFrame:
    """Describe slides for the page, those that are not used first, then those with remarks.

    Args:
        slides: Columns of the ledger, and held_mm2, the tissue that a slide's regions hold.

    Returns:
        The same with state, as in STATES; the reason without the slide's name; held_fraction, of its tissue, nan where
        it has none; is_outlined, whether its tissue was outlined by hand.
    """
    rank = slides["status"].map({artifacts.QUARANTINED: 0, artifacts.EMPTY: 1, artifacts.OK: 3})
    rank -= (slides["status"] == artifacts.OK) & (slides["remarks"] != "")
    pairs = zip(slides["slide_id"], slides["reason"], strict=True)
    described = slides.assign(
        state=slides["status"].map(STATES),
        reason=[reason.removeprefix(f"{slide}: ") for slide, reason in pairs],
        held_fraction=(slides["held_mm2"] / slides["tissue_mm2"].where(slides["tissue_mm2"] > 0)).clip(upper=1.0),
        is_outlined=slides["tissue_source"].str.startswith("outline"),
    )
    return described.iloc[rank.argsort(kind="stable")]


def judge_slides(slides: pd.DataFrame) -> list[tuple[str, str]]:
    """Say how many slides are used, how much of their tissue their regions hold, and how many have warnings.

    Args:
        slides: As `describe_states` returns them.

    Returns:
        Level, "pass", "warn" or "fail", and sentence of each verdict.
    """
    used, counts = slides[slides["status"] == artifacts.OK], slides["status"].value_counts()
    words = {artifacts.QUARANTINED: "quarantined", artifacts.EMPTY: "without regions"}
    others = ", ".join(f"{counts[status]:,} {words[status]}" for status in words if status in counts)
    sentence = f"Slides used: {len(used):,} of {len(slides):,}{f' ({others})' if others else ''}."
    tissue_mm2 = used["tissue_mm2"].sum()
    if tissue_mm2 > 0:
        held = used["held_fraction"] @ used["tissue_mm2"] / tissue_mm2
        sentence += (
            f" Their regions hold {100 * held:.0f} % of {tissue_mm2:,.{0 if tissue_mm2 >= 10 else 1}f} mm² of tissue."
        )
    verdicts = [("fail" if used.empty else "warn" if others else "pass", sentence)]
    if n_warnings := int((used["remarks"] != "").sum()):
        verdicts.append(("warn", f"Slides used that have warnings: {n_warnings:,}."))
    return verdicts


def read_slides(sheet: pd.DataFrame, tissue_paths: Sequence[Path], encoded_paths: Sequence[Path]) -> pd.DataFrame:
    """Read what the stages found on each slide.

    Args:
        sheet: The checked sheet.
        tissue_paths, encoded_paths: Artifacts of each slide, in the order of the sheet.

    Returns:
        As `describe_states` takes it.
    """
    rows = []
    for slide_id, patient_id, *paths in zip(
        sheet["slide_id"], sheet["patient_id"], tissue_paths, encoded_paths, strict=True
    ):
        tissue, encoded = artifacts.read_tissue(paths[0])[0], artifacts.read_regions(paths[1])[0]
        row = {"slide_id": slide_id, "patient_id": patient_id, "focus": float("nan"), "held_mm2": encoded.tissue_mm2}
        rows.append(row | slide_row(tissue, encoded, ""))
    slides = pd.DataFrame(rows, columns=[*artifacts.TABLES["ledger"], "focus", "held_mm2"])
    return slides.assign(remarks=note_copies(slides)[0])


def run(
    *,
    sheet_path: Path,
    tissue_paths: Sequence[Path],
    encoded_paths: Sequence[Path],
    overlays_dir: Path,
    out_path: Path,
) -> None:
    """Write the page of all slides.

    Args:
        sheet_path: The checked sheet.
        tissue_paths, encoded_paths: As in `read_slides`.
        overlays_dir: Of {slide}.png.
        out_path: The HTML file; links in it are relative to its folder.
    """
    sheet, _ = artifacts.read_table(sheet_path, "sheet")
    slides = describe_states(read_slides(sheet, tissue_paths, encoded_paths))
    folder, outlines = out_path.parent, dict(zip(sheet["slide_id"], tissue_paths, strict=True))
    slides["overlay"] = [relpath(overlays_dir / f"{slide}.png", folder) for slide in slides["slide_id"]]
    slides["outline"] = [relpath(outlines[slide], folder) for slide in slides["slide_id"]]
    verdicts, opened = judge_slides(slides), slides.loc[slides["width_px"] > 0, "slide_id"].to_list()
    thumbnails = inline_thumbnails(overlays_dir, opened)
    page = render(
        "slides/slide_index.html.j2",
        title=f"Slides of {out_path.parents[1].name}",
        verdicts=verdicts,
        slides=slides.to_dict("records"),
        thumbnails=thumbnails,
        without_picture=len(opened) - len(thumbnails),
        has_focus=slides["focus"].notna().any(),
        **inline_scripts("table.js"),
    )
    artifacts.write_text(out_path, page)
    log.info("%s", " ".join(sentence for _, sentence in verdicts))
