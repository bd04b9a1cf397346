"""Slides of formats that OpenSlide does not read, by fastslide, kfbslide and tmapslide, of the extra `readers`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol

import numpy as np

from slpd_core.wsi.errors import COPY_AGAIN, MISSING_TILES, SlideError
from slpd_core.wsi.levels import Size
from slpd_core.wsi.slide_files import PACKAGES
from slpd_core.wsi.tile_reader import TileReader, describe_position

INSTALL_EXTRA = "pip install 'slpd[readers]'"
READ_PX = 1024  # of a read; the packages cut their own tiles
MPP_KEYS = ("openslide.mpp-x", "openslide.mpp-y")
KEPT_PROPERTIES = ("openslide.vendor", *MPP_KEYS, "openslide.objective-power")


class Description(NamedTuple):
    """A slide as a package describes it.

    Attributes:
        sizes: (width, height) of each level, px.
        properties: As OpenSlide names them.
        remarks: How the picture was chosen, and which package reads it.
    """

    sizes: list[Size]
    properties: dict[str, str]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class ExtraLevel:
    """A pyramid level.

    Attributes:
        size_px: (width, height) of the level, px.
        package: That reads it.
        tile_px: (width, height) of a read, px.
    """

    size_px: Size
    package: str
    tile_px: Size = (READ_PX, READ_PX)


class _Reader(Protocol):
    """A slide that a package has opened."""

    def describe(self) -> Description:
        """Describe the slide; ValueError if it is not 8-bit RGB."""

    def read(self, level: int, xy: Size, size_px: Size) -> np.ndarray:
        """Read a box inside a level, px of the level: uint8 RGB, or RGBA."""

    def close(self) -> None:
        """Close the file."""


class _FastSlide:
    """A slide that fastslide has opened; its positions count px of the level."""

    def __init__(self, module: Any, path: Path) -> None:
        self._slide = module.FastSlide.from_file_path(str(path))

    def describe(self) -> Description:
        slide = self._slide
        if (slide.dtype, slide.num_channels) != ("uint8", 3):
            raise ValueError(f"{slide.num_channels} channels of {slide.dtype}, not 8-bit RGB")
        remarks = []
        if slide.num_images > 1:
            remarks.append(f"Of the file's {slide.num_images} pictures the largest is read.")
        if slide.z_count > 1:
            remarks.append(f"Of the slide's {slide.z_count} planes of focus the first is read.")
        properties = {"openslide.vendor": str(slide.format), **dict(zip(MPP_KEYS, map(str, slide.mpp), strict=True))}
        return Description([*slide.level_dimensions], properties, tuple(remarks))

    def read(self, level: int, xy: Size, size_px: Size) -> np.ndarray:
        return np.asarray(self._slide.read_region(xy, level, size_px).numpy())

    def close(self) -> None:
        self._slide.close()


class _LikeOpenSlide:
    """A slide that a package with OpenSlide's functions has opened; its positions count px of level 0."""

    def __init__(self, module: Any, path: Path) -> None:
        self._slide = module.OpenSlide(str(path))

    def describe(self) -> Description:
        properties = self._slide.properties
        kept = {key: str(properties[key]) for key in KEPT_PROPERTIES if key in properties}
        return Description([*self._slide.level_dimensions], kept, ())

    def read(self, level: int, xy: Size, size_px: Size) -> np.ndarray:
        down = self._slide.level_downsamples[level]
        level0_xy = math.ceil(xy[0] * down), math.ceil(xy[1] * down)
        return np.asarray(self._slide.read_region(level0_xy, level, size_px).convert("RGBA"))

    def close(self) -> None:
        self._slide.close()


def find_package(path: Path) -> str:
    """Find the package that may read a slide, by its extension.

    Args:
        path: The slide's file.

    Returns:
        The package's name; "" if there is none.
    """
    return PACKAGES.get(path.suffix.lower(), "")


def describe_slide(path: Path, package: str, refusal: SlideError) -> Description:
    """Open a slide by a package and describe it.

    Args:
        path: The slide's file.
        package: One of PACKAGES.
        refusal: Why OpenSlide and this project's readers do not read it.

    Returns:
        The description.

    Raises:
        SlideError: The package is missing, or does not read the slide; names the remedy.
        OSError: The file cannot be read.
    """
    try:
        reader = _open(path, package)
    except ImportError as error:
        raise SlideError(f"{refusal}; or install its reader {package}, which is not there: {INSTALL_EXTRA}") from error
    try:
        sizes, properties, remarks = reader.describe()
    except ValueError as error:
        raise SlideError(f"{path}: {error}; save it as RGB or remove it from the sheet") from error
    finally:
        reader.close()
    sizes = [(int(width), int(height)) for width, height in sizes]
    return Description(sizes, properties, (*remarks, f"Read by {package} {metadata.version(package)}."))


def _open(path: Path, package: str) -> _Reader:
    """Open a slide by a package; SlideError if the package refuses it, ImportError if it is missing."""
    module = import_module(package)
    try:
        return _FastSlide(module, path) if package == "fastslide" else _LikeOpenSlide(module, path)
    except OSError:
        raise
    except Exception as error:  # the packages list no errors; any but the system's is the file's
        raise SlideError(f"{path}: {package} does not read it ({error}); {COPY_AGAIN}") from error


class ExtraTiles(TileReader[ExtraLevel]):
    """The levels of a slide that a package reads; may be read from several threads, one of which reads at a time.

    Args:
        path: The slide's file.
        levels: By level, its size.
        missing_tiles: "error", or "white" for tiles that the file leaves out, where the package tells.
    """

    def __init__(self, path: Path, levels: Mapping[int, ExtraLevel], missing_tiles: str = "error") -> None:
        super().__init__(path, levels, missing_tiles)
        self._package, self._lock = levels[0].package, Lock()
        self._reader = _open(path, self._package)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def describe_missing(self) -> str:
        """Describe the tiles that the file leaves out, which no package counts.

        Returns:
            "".
        """
        return ""

    def _decode(self, level: int, row: int, column: int, jpeg_scale: int, buffer: np.ndarray) -> np.ndarray:
        """Read a part of the level into a buffer, white beyond the level."""
        tiles = self._levels[level]
        xy = column * READ_PX, row * READ_PX
        width, height = (min(READ_PX, side - at) for side, at in zip(tiles.size_px, xy, strict=True))
        position = describe_position(tiles.tile_px, level, row, column)
        try:
            with self._lock:
                pixels = self._reader.read(level, xy, (width, height))
            if pixels.shape[:2] != (height, width) or pixels.shape[2:] not in ((3,), (4,)) or pixels.dtype != np.uint8:
                raise ValueError(f"{pixels.dtype} pixels of shape {pixels.shape}")
        except OSError:
            raise
        except Exception as error:  # the packages list no errors; any but the system's is the file's
            raise SlideError(
                f"{self.path}: broken data of {position}, by {self._package} ({error}); {COPY_AGAIN}"
            ) from error
        buffer[:] = 255
        buffer[:height, :width] = pixels[..., :3]
        if pixels.shape[2] == 4 and (missing := pixels[..., 3] == 0).any():
            if self._missing_tiles == "error":
                raise SlideError(f"{self.path}: missing tiles of {position}; {MISSING_TILES}")
            buffer[:height, :width][missing] = 255
        return buffer
