"""Heat maps: attention of a classifier to the regions of test slides, as pictures."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from PIL import Image

from slpd_core import artifacts, config
from slpd_core.drawing import heatmap
from slpd_core.endpoints.kinds import read_endpoint
from slpd_core.runtime import generator, log, progress

VERSION = 3


def draw_slide_heatmap(
    tissue_dir: Path, regions_dir: Path, slide_id: str, attention: np.ndarray, size_px: int | None = None
) -> Image.Image:
    """Color the regions of a slide's thumbnail by attention.

    Args:
        tissue_dir: Of {slide}.png, thumbnails with the outline of the tissue.
        regions_dir: Of {slide}.h5.
        slide_id: Of the slide.
        attention: To each region, (L,), in the order of the regions file.
        size_px: Longer side of the picture, if smaller than the thumbnail.

    Returns:
        The picture.

    Raises:
        ValueError: The slide has another number of regions.
    """
    regions, _ = artifacts.read_regions(regions_dir / f"{slide_id}.h5")
    if len(attention) != len(regions.coords):
        raise ValueError(
            f"{regions_dir / slide_id}.h5: {len(regions.coords)} regions, {len(attention)} embeddings; run snakemake "
            "again to renew what is outdated"
        )
    with Image.open(io.BytesIO(artifacts.read_picture(tissue_dir / f"{slide_id}.png"))) as file:
        thumbnail = file.convert("RGB")
    if size_px:
        thumbnail.thumbnail((size_px, size_px))
    slide_px = (regions.slide.width_px, regions.slide.height_px)
    return heatmap.draw_heatmap(thumbnail, slide_px, regions.coords, regions.size_level0_px, attention)


def choose_test_slides(folds: pd.DataFrame, per_label: int, seed: int) -> pd.DataFrame:
    """Choose random test slides of each label, each with the first fold that tests it.

    Args:
        folds: The `folds` table.
        per_label: Slides of each label.
        seed: Of the choice.

    Returns:
        Rows of the table.
    """
    tested = folds[folds["part"] == "test"].sort_values(["slide_id", "fold"]).drop_duplicates("slide_id")
    rng = generator(seed, "heatmaps")
    chosen = [rows.iloc[np.sort(rng.permutation(len(rows))[:per_label])] for _, rows in tested.groupby("label")]
    return pd.concat(chosen) if chosen else tested


def run(
    *,
    folds_path: Path,
    attention_path: Path,
    prediction_paths: Sequence[Path],
    tissue_dir: Path,
    regions_dir: Path,
    out_path: Path,
    section: config.HeatmapsConfig,
    seed: int,
    shown_names: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Draw heat maps of some slides of each label, each by the classifier of a fold that tests it.

    Args:
        folds_path: The folds of a task.
        attention_path: The `attention` table of a row.
        prediction_paths: The predictions of each fold, in their order.
        tissue_dir, regions_dir: As in `draw_slide_heatmap`.
        out_path: A JPEG.
        section: Of the config.
        seed: Of the choice of slides.
        shown_names: Of slides, in place of their own.
    """
    folds, folds_meta = artifacts.read_table(folds_path, "folds")
    table, meta = artifacts.read_table(attention_path, "attention")
    artifacts.check_ledger(attention_path, meta, folds_meta.get("ledger", ""))
    attention = {key: rows.to_numpy() for key, rows in table.groupby(["fold", "slide_id"])["attention"]}
    chosen = choose_test_slides(folds, section.slides_per_label, seed)
    panels = []
    for fold, rows in progress(chosen.groupby("fold"), chosen["fold"].nunique(), "heat maps", "folds"):
        tested, meta = artifacts.read_table(prediction_paths[fold], "evaluate")
        endpoint = read_endpoint(meta)
        predictions = tested.set_index("slide_id")[endpoint.prediction_columns]
        for slide_id, label in zip(rows["slide_id"], rows["label"], strict=True):
            of_slide = attention[fold, slide_id]
            picture = draw_slide_heatmap(tissue_dir, regions_dir, slide_id, of_slide, heatmap.TILE_PX)
            prediction = endpoint.describe_prediction(predictions.loc[slide_id].to_numpy())
            caption = "; ".join(filter(None, [label, prediction, heatmap.describe_evenness(of_slide)]))
            panels.append((label, shown_names.get(slide_id, slide_id), caption, picture))
    panels.sort(key=lambda panel: panel[:2])
    sheet = heatmap.draw_contact_sheet([panel[1:] for panel in panels])
    heatmap.save_jpeg(sheet, out_path, meta=artifacts.NUMBERED if shown_names else {})
    log.info("%d slides", len(panels))
