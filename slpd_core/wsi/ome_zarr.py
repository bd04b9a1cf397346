"""Pyramids of OME-Zarr: which arrays are the levels of a slide, and its um/px. OME-NGFF 0.4 and 0.5."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from slpd_core.wsi.errors import BY_BIO_FORMATS, COPY_AGAIN, SlideError
from slpd_core.wsi.levels import ROUNDING_PX
from slpd_core.wsi.tiff_limits import MAX_LEVELS, MAX_TILE_PX
from slpd_core.wsi.zarr_arrays import UnsupportedZarrError, open_array, read_json_object, read_ome_attributes
from slpd_core.wsi.zarr_codecs import COMPRESSORS
from slpd_core.wsi.zarr_store import Store, check_key, open_store
from slpd_core.wsi.zarr_tiles import N_CHANNELS, ZarrLevel

VENDOR = "ome-zarr"
RGB_COLORS = ("FF0000", "00FF00", "0000FF")
MAX_SERIES = 100
UNITS_IN_UM = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}
SAVE_AGAIN = (
    f"save it as 8-bit RGB in OME-Zarr 0.4 or 0.5, compressed by {', '.join(COMPRESSORS)} or not at all, or convert "
    f"it: {BY_BIO_FORMATS}"
)


@dataclass(frozen=True)
class Pyramid:
    """The levels of a slide.

    Attributes:
        levels: Level 0 first.
        properties: Its um/px, as OpenSlide names them.
        remarks: How they were chosen.
    """

    levels: list[ZarrLevel]
    properties: dict[str, str]
    remarks: tuple[str, ...] = ()


def find_pyramid(path: Path) -> Pyramid:
    """Find the levels of an OME-Zarr; of several pictures those of the largest.

    Args:
        path: The slide's folder or zip.

    Returns:
        The levels.

    Raises:
        SlideError: It is broken, or of a kind that is not read; names the remedy.
        OSError: It cannot be read.
    """
    try:
        with closing(open_store(path)) as store:
            group, remarks = _find_group(store)
            return _read_pyramid(store, group, remarks)
    except UnsupportedZarrError as error:
        raise SlideError(f"{path}: OME-Zarr of a kind that is not read ({error}); {SAVE_AGAIN}") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise SlideError(f"{path}: broken OME-Zarr ({reason}); {COPY_AGAIN}") from error


def _find_group(store: Store) -> tuple[str, tuple[str, ...]]:
    """Find the group of the picture: the root, or the largest of a Bio-Formats conversion."""
    attributes = read_ome_attributes(store, "")
    if "multiscales" in attributes:
        return "", ()
    if "bioformats2raw.layout" not in attributes:
        raise UnsupportedZarrError("no picture, since it states no multiscales")
    series = [*_list_series(store)]
    volumes = {name: _volume(store, name) for name in series}
    largest = max(series, key=lambda name: volumes[name])
    remarks = (f"Of the file's {len(series)} pictures the largest is read, series {largest}.",)
    return largest, remarks if len(series) > 1 else ()


def _list_series(store: Store) -> Iterator[str]:
    """List the groups of a Bio-Formats conversion: those that it names, else 0, 1, 2 ..."""
    named = read_ome_attributes(store, "OME").get("series")
    for i, name in enumerate(named or map(str, count())):
        group = check_key(str(name))
        if not named and "multiscales" not in read_ome_attributes(store, group):
            return
        yield group
        if i >= MAX_SERIES:
            raise ValueError(f"more than {MAX_SERIES} pictures")


def _volume(store: Store, group: str) -> int:
    """Count the values of a picture's level 0, of whatever kind it is."""
    array = _join(group, read_ome_attributes(store, group)["multiscales"][0]["datasets"][0]["path"])
    meta = read_json_object(store, f"{array}/zarr.json") or read_json_object(store, f"{array}/.zarray") or {}
    return math.prod(int(size) for size in meta["shape"])


def _read_pyramid(store: Store, group: str, remarks: tuple[str, ...]) -> Pyramid:
    attributes = read_ome_attributes(store, group)
    multiscale, *others = attributes["multiscales"]
    names, units = _read_axes(multiscale)
    _check_channels(attributes.get("omero", {}))
    datasets = multiscale["datasets"]
    if not 0 < len(datasets) <= MAX_LEVELS:
        raise ValueError(f"{len(datasets)} levels, not 1 to {MAX_LEVELS}")
    levels = [_read_level(store, _join(group, dataset["path"]), names) for dataset in datasets]
    axes = names.index("y"), names.index("x")
    whole = _transformation(multiscale, len(names), "scale", 1.0)
    scales = [_transformation(dataset, len(names), "scale", 1.0) for dataset in datasets]
    shifts = [_transformation(dataset, len(names), "translation", 0.0) for dataset in datasets]
    known = [
        i
        for i, level in enumerate(levels)
        if all(
            _fits(levels[0].size_px[side], level.size_px[side], scales[i][axis] / scales[0][axis])
            and abs(shifts[i][axis] - shifts[0][axis]) <= scales[i][axis]
            for side, axis in enumerate(axes[::-1])
        )
    ]
    if others:
        remarks += (f"Of the picture's {len(others) + 1} pyramids the first is read.",)
    if unread := sorted({*range(len(levels))} - {*known}):
        remarks += (
            f"Level {', '.join(map(str, unread))} is not read, since its stated scale or position is not that of its "
            "pixels.",
        )
    um = {axis: UNITS_IN_UM.get(units[axis]) for axis in axes}
    properties = {"openslide.vendor": VENDOR} | {
        f"openslide.mpp-{names[axis]}": str(scales[0][axis] * whole[axis] * factor)
        for axis, factor in um.items()
        if factor
    }
    return Pyramid([levels[i] for i in known], properties, remarks)


def _read_axes(multiscale: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Names and units of the axes; "" where no unit is stated."""
    axes = multiscale.get("axes")
    if not isinstance(axes, list) or not all(isinstance(axis, dict) for axis in axes):
        raise UnsupportedZarrError("it does not state its axes as OME-Zarr 0.4 and 0.5 do")
    names, units = [str(axis["name"]) for axis in axes], [str(axis.get("unit", "")) for axis in axes]
    if len({*names}) < len(names) or not {"x", "y"} <= {*names}:
        raise ValueError(f"axes {' '.join(names)}")
    if "c" not in names:
        raise UnsupportedZarrError("no axis of channels, so no RGB")
    return names, units


def _check_channels(omero: Mapping[str, Any]) -> None:
    """Check that channels whose colors are stated are red, green and blue."""
    channels = omero.get("channels") or []
    colors = [str(channel["color"]).upper() for channel in channels if channel.get("color")]
    if len(colors) == N_CHANNELS and tuple(colors) != RGB_COLORS:
        raise UnsupportedZarrError(
            f"channels of the colors {' '.join(colors)}; if they are red, green and blue, state {' '.join(RGB_COLORS)} "
            "in omero.channels"
        )


def _read_level(store: Store, path: str, names: Sequence[str]) -> ZarrLevel:
    array = open_array(store, path)
    if len(array.shape) != len(names):
        raise ValueError(f"{len(names)} axes for an array of {len(array.shape)}")
    by_name = dict(zip(names, array.shape, strict=True))
    if by_name.pop("c") != N_CHANNELS:
        raise UnsupportedZarrError(f"{array.shape[names.index('c')]} channels, not the three of RGB")
    size_px = by_name.pop("x"), by_name.pop("y")
    for name, size in by_name.items():
        if size != 1:
            raise UnsupportedZarrError(f"{size} planes along {name}, not one")
    axes = names.index("y"), names.index("x"), names.index("c")
    tile_px = array.codec.shape[axes[1]], array.codec.shape[axes[0]]
    if tile_px[0] * tile_px[1] > MAX_TILE_PX:
        raise ValueError(f"chunks of {tile_px[0]} x {tile_px[1]} px, more than {MAX_TILE_PX} px")
    return ZarrLevel(size_px, tile_px, array, axes)


def _fits(base: int, side: int, ratio: float) -> bool:
    """Whether a level's side is that of level 0 by their ratio, but for rounding."""
    return abs(side * ratio - base) <= ROUNDING_PX * max(ratio, 1.0)


def _transformation(entry: Mapping[str, Any], n_axes: int, kind: str, default: float) -> list[float]:
    """The scale or translation of a level by axis."""
    values = [default] * n_axes
    for transformation in entry.get("coordinateTransformations") or []:
        if transformation["type"] == kind:
            values = [float(value) for value in transformation[kind]]
    if len(values) != n_axes or (kind == "scale" and not all(0 < value < float("inf") for value in values)):
        raise ValueError(f"a {kind} of {str(values)[:100]}")
    return values


def _join(group: str, path: Any) -> str:
    name = check_key(str(path))
    return check_key(f"{group}/{name}" if group else name)
