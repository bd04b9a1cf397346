"""The page of a search: each query beside the slides found, and their matched regions side by side."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from slpd_core import artifacts
from slpd_core.drawing.gallery import CELL_COLORS
from slpd_core.drawing.html import inline_jpeg, render
from slpd_core.drawing.overlays import frame_regions
from slpd_core.drawing.region_pictures import ReadRegions, read_region_pictures
from slpd_core.search.similar_slides import SIDES

MAX_SHOWN = 30  # queries; the tables have all
REGION_PX, THUMBNAIL_PX = 128, 240  # sides of pictures; of a thumbnail the longer one


def read_matched_regions(
    matched: pd.DataFrame, slide_paths: Mapping[str, Path], regions_dir: Path, read_regions: ReadRegions
) -> dict[tuple[str, int, int], str]:
    """Read pictures of the regions of matched prototypes.

    Args:
        matched: As `tabulate_regions` returns it.
        slide_paths: Slide -> its file.
        regions_dir: Of the slides' regions.
        read_regions: Reads their pixels.

    Returns:
        Slide, x and y -> data URI; slides that cannot be read are missing.
    """
    columns = {"query": ("query", "query_x", "query_y"), "slide": ("slide_id", "slide_x", "slide_y")}
    sides = [matched[[*columns[side]]].set_axis(["slide_id", "x", "y"], axis=1) for side in SIDES]
    regions = pd.concat(sides).drop_duplicates(ignore_index=True)
    pixels = read_region_pictures(regions, slide_paths, regions_dir, read_regions, side_px=REGION_PX)
    rows = regions.itertuples(name=None)
    return {(slide, x, y): inline_jpeg(Image.fromarray(pixels[row])) for row, slide, x, y in rows if row in pixels}


def draw_thumbnail(slide_id: str, coords: np.ndarray, tissue_dir: Path, regions_dir: Path) -> str:
    """Draw a slide's thumbnail with some of its regions framed, each in the color of its pair.

    Args:
        slide_id: Of the slide.
        coords: Upper left corners of the regions, (n, 2), level-0 px.
        tissue_dir: Of {slide}.png, thumbnails with the outline of the tissue.
        regions_dir: Of {slide}.h5.

    Returns:
        A data URI.
    """
    regions, _ = artifacts.read_regions(regions_dir / f"{slide_id}.h5")
    with Image.open(io.BytesIO(artifacts.read_picture(tissue_dir / f"{slide_id}.png"))) as file:
        thumbnail = file.convert("RGB")
    thumbnail.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    slide_px = regions.slide.width_px, regions.slide.height_px
    return inline_jpeg(frame_regions(thumbnail, slide_px, coords, regions.size_level0_px, CELL_COLORS))


def describe_pairs(rows: pd.DataFrame, pictures: Mapping[tuple[str, int, int], str]) -> list[dict[str, Any]]:
    """Describe the pairs of a query and a slide found.

    Args:
        rows: Theirs of `tabulate_regions`.
        pictures: As `read_matched_regions` returns them.

    Returns:
        Per pair its row, the index of its color, and query_picture and slide_picture, "" if missing.
    """
    pairs = []
    for i, row in enumerate(rows.to_dict("records")):
        keys = ((row["query"], row["query_x"], row["query_y"]), (row["slide_id"], row["slide_x"], row["slide_y"]))
        shown = {f"{side}_picture": pictures.get(key, "") for side, key in zip(SIDES, keys, strict=True)}
        pairs.append({"color": i % len(CELL_COLORS), **{str(name): cell for name, cell in row.items()}, **shown})
    return pairs


def write_search_page(
    path: Path,
    queries: Sequence[Mapping[str, Any]],
    similar: pd.DataFrame,
    matched: pd.DataFrame,
    *,
    slide_paths: Mapping[str, Path],
    tissue_dir: Path,
    regions_dir: Path,
    read_regions: ReadRegions,
    **context: Any,
) -> None:
    """Write the page of a search; the first MAX_SHOWN queries are shown.

    Args:
        path: An HTML file.
        queries: As `search.describe_query` returns them.
        similar, matched: As `tabulate_slides` and `tabulate_regions` return them.
        slide_paths, regions_dir, read_regions: As in `read_matched_regions`.
        tissue_dir: As in `draw_thumbnail`.
        context: Further values by the template's names.
    """
    shown = [query["slide_id"] for query in queries[:MAX_SHOWN]]
    matched = matched[matched["query"].isin(shown)]
    pictures = read_matched_regions(matched, slide_paths, regions_dir, read_regions)
    described = []
    for query in queries[:MAX_SHOWN]:
        pairs = matched[matched["query"] == query["slide_id"]]
        slides = similar[similar["query"] == query["slide_id"]].to_dict("records")
        for slide in slides:
            rows = pairs[pairs["rank"] == slide["rank"]]
            slide["pairs"] = describe_pairs(rows, pictures)
            corners = rows[["slide_x", "slide_y"]].to_numpy()
            slide["thumbnail"] = draw_thumbnail(slide["slide_id"], corners, tissue_dir, regions_dir)
        corners = pairs.loc[pairs["rank"] == 1, ["query_x", "query_y"]].to_numpy()
        thumbnail = draw_thumbnail(query["slide_id"], corners, tissue_dir, regions_dir) if slides else ""
        described.append({**query, "similar": slides, "thumbnail": thumbnail})
    left_out = len(queries) - len(described)
    page = render("search/similar_slides.html.j2", queries=described, left_out=left_out, colors=CELL_COLORS, **context)
    artifacts.write_text(path, page)
