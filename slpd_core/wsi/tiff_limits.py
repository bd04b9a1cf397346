"""What a slide may ask of memory: sizes that its file only states, held to bounds before anyone allocates by them."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from slpd_core.wsi.errors import SlideError

MAX_SLIDE_PX = 200_000_000_000  # of a level: a whole slide of 75 x 25 mm at 0.1 um/px
MAX_TILE_PX = 1 << 26
MAX_LEVELS = 64
MAX_THUMBNAIL_PX = 60_000_000  # a slide of 75 x 50 mm at 8 um/px; its tissue takes 1.5 GB
MAX_DIRECTORIES = 10_000
MAX_TAGS = 4096  # of a directory
MAX_TAG_BYTES = 1 << 25  # a number taken as 8 bytes: four million tiles
MAX_ALL_TAGS = 1 << 19  # of all directories, which may share their bytes
MAX_ALL_TAG_BYTES = 1 << 27  # likewise; two lists of a pyramid of four million tiles take 85 MB
ORIENTATION, UPRIGHT = 274, 1
TILE_WIDTH, TILE_LENGTH, SUBIFDS, NDPI, FOCUS = 322, 323, 330, 65420, 65424  # TIFF's tags; the last two are Hamamatsu's
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 13: 4, 16: 8, 17: 8, 18: 8}  # the others: 8
INTEGER_FORMATS = {1: "B", 3: "H", 4: "I", 9: "i", 13: "I", 16: "Q", 18: "Q"}
LIMIT_REMEDY = "copy it again, convert it or remove it from the sheet"


def check_levels(sizes: Sequence[tuple[int, int]], properties: Mapping[str, str], path: Path) -> None:
    """Raise SlideError where a slide's levels are more, larger or of larger tiles than any scanner writes.

    sizes: (width, height) of each. properties: as OpenSlide gives them, which know the tiles of most formats.
    """
    if len(sizes) > MAX_LEVELS:
        raise SlideError(f"{path}: states {len(sizes)} levels, more than {MAX_LEVELS}; {LIMIT_REMEDY}")
    for number, (width, height) in enumerate(sizes):
        if min(width, height) < 1:
            raise SlideError(f"{path}: states {width} x {height} px at level {number}; {LIMIT_REMEDY}")
        if width * height > MAX_SLIDE_PX:
            raise SlideError(
                f"{path}: states {width} x {height} px at level {number}, larger than any slide; {LIMIT_REMEDY}"
            )
        wide, high = (properties.get(f"openslide.level[{number}].tile-{side}", "0") for side in ("width", "height"))
        check_tile(int(wide), int(high), path)


def check_tile(width: int, height: int, path: Path) -> None:
    """Raise SlideError where a tile alone, width x height px, would take hundreds of MB."""
    if width * height > MAX_TILE_PX:
        raise SlideError(f"{path}: states tiles of {width} x {height} px, more than {MAX_TILE_PX} px; {LIMIT_REMEDY}")


def check_thumbnail(size: tuple[int, int], size_px: tuple[int, int], mpp: float, path: Path) -> None:
    """Raise SlideError where a slide, size_px at level 0 of `mpp` um/px, gives a picture of too large a size."""
    if size[0] * size[1] > MAX_THUMBNAIL_PX:
        mm = " x ".join(f"{side * mpp / 1000:.0f}" for side in size_px)
        raise SlideError(
            f"{path}: {mm} mm of glass by its {mpp:g} um/px, {size[0]} x {size[1]} px in its thumbnail; correct its "
            "mpp in the sheet, raise tissue.thumbnail_mpp or remove it from the sheet"
        )


def check_tiff(path: Path) -> None:
    """Refuse a TIFF whose directories state more than any slide, or tiles that are rotated or mirrored.

    Bounds hold for each directory and for their sum, since many may share one list. What is no TIFF, or a broken one,
    is left to those who read it.

    Raises:
        SlideError: names the directory.
    """
    with path.open("rb") as file:
        tiff = _Tiff.from_file(file)
        tags = tag_bytes = 0
        for number, directory in enumerate(_directories(tiff, path) if tiff else ()):
            for code, tag in directory.tags.items():
                size = tag.count * (1 if TYPE_BYTES.get(tag.kind) == 1 else 8)
                tag_bytes += size
                if size > MAX_TAG_BYTES:
                    raise SlideError(
                        f"{path}: tag {code} of directory {number} states {tag.count} values; {LIMIT_REMEDY}"
                    )
            tags += directory.states
            if tags > MAX_ALL_TAGS or tag_bytes > MAX_ALL_TAG_BYTES:
                raise SlideError(
                    f"{path}: the first {number + 1} directories state {tags} tags of {tag_bytes} bytes; {LIMIT_REMEDY}"
                )
            _check_tiles(directory, path)


def count_focal_planes(path: Path) -> int:
    """Count the planes of focus of a Hamamatsu slide, of which OpenSlide reads the one that is numbered 0."""
    with path.open("rb") as file:
        tiff = _Tiff.from_file(file)
        return len({directory.integers(FOCUS)[:1] or (0,) for directory in _directories(tiff, path)} if tiff else {0})


def _check_tiles(directory: "_Directory", path: Path) -> None:
    """Raise SlideError where a directory's tiles are too large, or not upright."""
    width, length, orientation = (directory.integers(code) for code in (TILE_WIDTH, TILE_LENGTH, ORIENTATION))
    if not width or not length:
        return
    check_tile(width[0], length[0], path)
    if orientation and orientation[0] > UPRIGHT:
        raise SlideError(
            f"{path}: stored rotated or mirrored (orientation {orientation[0]}); convert it: vips autorot IN "
            "OUT.tif[tile,pyramid,compression=jpeg,Q=90,bigtiff]"
        )


@dataclass(frozen=True)
class _Tag:
    """A tag's type, the number of its values, and where they stand, or the place where they do."""

    kind: int
    count: int
    at: int


@dataclass(frozen=True)
class _Tiff:
    """An open TIFF: its byte order, whether it is a BigTIFF, and where its first directory is."""

    file: BinaryIO
    order: str
    big: bool
    first: int

    @classmethod
    def from_file(cls, file: BinaryIO) -> "_Tiff | None":
        """None of what is no TIFF."""
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack(order + "H", head[2:4])[0] if order and len(head) == 16 else 0
        if version not in (42, 43):
            return None
        place = struct.unpack(order + "I", head[4:8])[0] if version == 42 else struct.unpack(order + "Q", head[8:])[0]
        return cls(file, order, version == 43, place)

    def unpack(self, at: int, what: str) -> tuple[int, ...]:
        """Numbers from a place in the file; () where the file has none there."""
        try:
            self.file.seek(at)
            return struct.unpack(self.order + what, self.file.read(struct.calcsize(self.order + what)))
        except (struct.error, OSError, ValueError):  # nothing there, or no place at all
            return ()


@dataclass(frozen=True)
class _Directory:
    """A directory's tags by their code, and where it ends; states: how many tags it says it has."""

    tiff: _Tiff
    tags: dict[int, _Tag]
    states: int
    end: int

    @classmethod
    def from_offset(cls, tiff: _Tiff, place: int) -> "_Directory":
        """The directory at a place; without tags where there is none."""
        layout, size, value = ("HHQQ", 20, 12) if tiff.big else ("HHII", 12, 8)
        states = (tiff.unpack(place, "Q" if tiff.big else "H") or (0,))[0]
        start, tags = place + (8 if tiff.big else 2), {}
        for at in range(start, start + size * min(states, MAX_TAGS), size):
            if entry := tiff.unpack(at, layout):
                tags[entry[0]] = _Tag(entry[1], entry[2], at + value)
        return cls(tiff, tags, states, start + size * states)

    def integers(self, code: int) -> tuple[int, ...]:
        """The values of a tag of whole numbers, at most one more than there may be directories; () without it."""
        tag = self.tags.get(code)
        if tag is None or tag.kind not in INTEGER_FORMATS:
            return ()
        count, place = min(tag.count, MAX_DIRECTORIES + 1), "Q" if self.tiff.big else "I"
        beside = count * TYPE_BYTES[tag.kind] <= struct.calcsize("=" + place)
        at = (tag.at,) if beside else self.tiff.unpack(tag.at, place)
        return self.tiff.unpack(at[0], f"{count}{INTEGER_FORMATS[tag.kind]}") if at else ()


def _directories(tiff: _Tiff, path: Path) -> Iterator[_Directory]:
    """Each directory of a TIFF, those below others too, as far as the file is whole."""
    ahead, seen, place_bytes = [tiff.first], set[int](), "Q" if tiff.big else "I"
    if not tiff.big and tiff.order == "<":  # Hamamatsu's is classic, but for places of 8 bytes
        wide = tiff.unpack(4, "Q")[0]
        if NDPI in _Directory.from_offset(tiff, wide).tags:
            ahead, place_bytes = [wide], "Q"
    while ahead:
        place = ahead.pop()
        seen.add(place)
        directory = _Directory.from_offset(tiff, place)
        if directory.states > MAX_TAGS:
            raise SlideError(f"{path}: states {directory.states} tags in a directory; {LIMIT_REMEDY}")
        yield directory
        follows = tiff.unpack(directory.end, place_bytes) if directory.tags else ()
        ahead += {*follows, *directory.integers(SUBIFDS)} - seen - {0}
        if len(seen) + len(ahead) > MAX_DIRECTORIES:
            raise SlideError(f"{path}: more than {MAX_DIRECTORIES} directories; {LIMIT_REMEDY}")
