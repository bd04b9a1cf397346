"""Sources: an opened slide file, its levels and properties, and which reader reads each level."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openslide

from slpd_core.runtime import log
from slpd_core.wsi.errors import (
    COPY_AGAIN,
    EXTRACT_PAGE,
    TO_PYRAMID,
    SlideError,
    explain_refusal,
    explain_unknown_format,
)
from slpd_core.wsi.extra_readers import ExtraLevel, ExtraTiles, describe_slide, find_package
from slpd_core.wsi.ome_zarr import find_pyramid
from slpd_core.wsi.slide_files import is_ome_zarr, locate
from slpd_core.wsi.tiff_levels import Level, find_levels
from slpd_core.wsi.tiff_limits import check_tiff, count_focal_planes
from slpd_core.wsi.tiff_pictures import Picture, find_picture
from slpd_core.wsi.tiff_tiles import TiffTiles
from slpd_core.wsi.tile_reader import TileReader
from slpd_core.wsi.zarr_tiles import ZarrTiles


@dataclass(frozen=True)
class Source:
    """An opened slide file.

    Attributes:
        sizes: (width, height) of each level, px.
        tile_px: (width, height) of each level's tiles, px; (0, 0) if unknown.
        properties: As OpenSlide names them.
        levels: By level, the tiles that `tile_reader` decodes; OpenSlide reads the other levels.
        slide: OpenSlide's; None if it is not needed.
        transparent_is_missing: Whether a px that OpenSlide leaves transparent means a missing tile.
        remarks: How the picture was chosen, if there was a choice.
        tile_reader: Class that decodes `levels`.
    """

    sizes: list[tuple[int, int]]
    tile_px: list[tuple[int, int]]
    properties: Mapping[str, str]
    levels: Mapping[int, Any]
    slide: openslide.OpenSlide | None = None
    transparent_is_missing: bool = False
    remarks: tuple[str, ...] = ()
    tile_reader: type[TileReader[Any]] = TiffTiles


def open_source(path: Path) -> Source:
    """Open a slide: a plain or OME TIFF by its tiles, an OME-Zarr by its chunks, any other by OpenSlide.

    What these refuse is tried by a package of the extra `readers`, if one is for files of its extension.

    Args:
        path: The slide's file or folder.

    Returns:
        The source; its `slide` is the caller's to close.

    Raises:
        FileNotFoundError: There is no such file.
        SlideError: It is no slide, or of a kind that is not read; names the remedy.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; correct its path in the sheet")
    if is_ome_zarr(path):
        return _zarr_source(path)
    if path.is_file():
        check_tiff(path)
    package = find_package(path)
    try:
        return _open_known(path)
    except SlideError as error:
        if not package:
            raise
        sizes, properties, remarks = describe_slide(path, package, error)
    levels = {i: ExtraLevel(size, package) for i, size in enumerate(sizes)}
    return Source(sizes, [(0, 0)] * len(sizes), properties, levels, remarks=remarks, tile_reader=ExtraTiles)


def _open_known(path: Path) -> Source:
    """Open a slide of a format that OpenSlide knows."""
    vendor = openslide.OpenSlide.detect_format(str(locate(path)))
    if vendor is None:
        raise explain_unknown_format(locate(path))
    picture = _find_picture(path) if vendor == "generic-tiff" else None
    if picture and picture.levels[0]:
        known = [(size, level) for size, level in zip(picture.sizes, picture.levels, strict=True) if level]
        sizes, levels = [size for size, _ in known], dict(enumerate(level for _, level in known))
        tile_px = [level.tile_px for _, level in known]
        return Source(sizes, tile_px, picture.properties, levels, remarks=picture.remarks)
    try:
        slide = openslide.OpenSlide(str(locate(path)))
    except openslide.OpenSlideError as error:
        raise explain_refusal(path, vendor, error) from error
    try:
        return _openslide_source(slide, vendor, picture, path)
    except BaseException:
        slide.close()
        raise


def _openslide_source(slide: openslide.OpenSlide, vendor: str, picture: Picture | None, path: Path) -> Source:
    """Check what OpenSlide opened, and find the levels of an Aperio slide that TiffTiles decodes."""
    sizes = list(slide.level_dimensions)
    if picture and (not picture.is_first or picture.sizes[0] != sizes[0]):
        width, height = picture.sizes[0]
        raise SlideError(
            f"{path}: its largest picture, {width} x {height} px, is of a kind that is not read; convert it: "
            f"{TO_PYRAMID}"
        )
    if sizes[0] in sizes[1:]:
        raise SlideError(
            f"{path}: several pictures of {sizes[0][0]} x {sizes[0][1]} px, planes of focus; {EXTRACT_PAGE}"
        )
    properties = slide.properties  # a copy would fail on a name that is not UTF-8
    tile_px = [
        tuple(properties.get(f"openslide.level[{i}].tile-{side}", "0") for side in ("width", "height"))
        for i in range(len(sizes))
    ]
    remarks = picture.remarks if picture else ()
    if vendor == "hamamatsu" and (count := count_focal_planes(path)) > 1:
        remarks = (f"Of the slide's {count} planes of focus the one numbered 0 is read.",)
    levels = _find_levels(path, sizes) if vendor == "aperio" else []
    return Source(
        sizes,
        [(int(width), int(height)) for width, height in tile_px],
        properties,
        {i: level for i, level in enumerate(levels) if level},
        slide,
        vendor == "aperio" or (picture is not None and picture.samples < 4),
        remarks,
    )


def _zarr_source(path: Path) -> Source:
    pyramid = find_pyramid(path)
    return Source(
        [level.size_px for level in pyramid.levels],
        [level.tile_px for level in pyramid.levels],
        pyramid.properties,
        dict(enumerate(pyramid.levels)),
        remarks=pyramid.remarks,
        tile_reader=ZarrTiles,
    )


def _find_picture(path: Path) -> Picture | None:
    try:
        return find_picture(path)
    except (SlideError, OSError):
        raise
    except Exception as error:  # tifffile raises nearly any error for an odd directory, and lists none
        raise SlideError(f"{path}: broken directory ({error}); {COPY_AGAIN}") from error


def _find_levels(path: Path, sizes: list[tuple[int, int]]) -> list[Level | None]:
    try:
        return find_levels(path, sizes)
    except SlideError:
        raise
    except Exception as error:  # whatever tifffile makes of an odd directory: OpenSlide has opened the slide
        log.info("%s: read by OpenSlide alone (%s)", path, error)
        return []
