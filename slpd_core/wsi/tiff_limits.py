"""Limits on the sizes that a slide's file states, checked before memory is allocated by them."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from slpd_core.wsi.errors import SlideError

MAX_SLIDE_PX = 200_000_000_000  # per level: a whole slide of 75 x 25 mm at 0.1 um/px
MAX_TILE_PX = 1 << 26
MAX_LEVELS = 64
MAX_THUMBNAIL_PX = 60_000_000  # a slide of 75 x 50 mm at 8 um/px; its tissue takes 1.5 GB
MAX_DIRECTORIES = 10_000
MAX_TAGS = 4096  # per directory
MAX_TAG_BYTES = 1 << 25  # with 8 bytes per number: four million tiles
MAX_ALL_TAGS = 1 << 19  # in all directories, which may share their bytes
MAX_ALL_TAG_BYTES = 1 << 27  # in all directories; two lists of a pyramid of four million tiles take 85 MB
ORIENTATION, UPRIGHT = 274, 1
TILE_WIDTH, TILE_LENGTH, SUBIFDS, NDPI, FOCUS = 322, 323, 330, 65420, 65424  # TIFF's tags; the last two are Hamamatsu's
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 13: 4, 16: 8, 17: 8, 18: 8}  # the others: 8
INTEGER_FORMATS = {1: "B", 3: "H", 4: "I", 9: "i", 13: "I", 16: "Q", 18: "Q"}
LIMIT_REMEDY = "copy it again, convert it or remove it from the sheet"


def check_levels(sizes: Sequence[tuple[int, int]], properties: Mapping[str, str], path: Path) -> None:
    """Check that a slide has no more levels, no larger ones and no larger tiles than scanners write.

    Args:
        sizes: (width, height) of each level, px.
        properties: As OpenSlide names them; they state the tiles of most formats.
        path: The slide's file, for messages.

    Raises:
        SlideError: It has.
    """
    if len(sizes) > MAX_LEVELS:
        raise SlideError(f"{path}: states {len(sizes)} levels, more than {MAX_LEVELS}; {LIMIT_REMEDY}")
    for level, (width, height) in enumerate(sizes):
        if min(width, height) < 1:
            raise SlideError(f"{path}: states {width} x {height} px at level {level}; {LIMIT_REMEDY}")
        if width * height > MAX_SLIDE_PX:
            raise SlideError(
                f"{path}: states {width} x {height} px at level {level}, larger than any slide; {LIMIT_REMEDY}"
            )
        tile_px = [int(properties.get(f"openslide.level[{level}].tile-{side}", "0")) for side in ("width", "height")]
        check_tile(tile_px[0], tile_px[1], path)


def check_tile(width: int, height: int, path: Path) -> None:
    """Check that a tile does not take hundreds of MB.

    Args:
        width, height: Of the tile, px.
        path: The slide's file, for messages.

    Raises:
        SlideError: It would.
    """
    if width * height > MAX_TILE_PX:
        raise SlideError(f"{path}: states tiles of {width} x {height} px, more than {MAX_TILE_PX} px; {LIMIT_REMEDY}")


def check_thumbnail(thumbnail_px: tuple[int, int], slide_px: tuple[int, int], mpp: float, path: Path) -> None:
    """Check that a slide's thumbnail is not too large.

    Args:
        thumbnail_px: (width, height) of the thumbnail.
        slide_px: (width, height) of level 0.
        mpp: um/px of level 0.
        path: The slide's file, for messages.

    Raises:
        SlideError: It is too large.
    """
    if thumbnail_px[0] * thumbnail_px[1] > MAX_THUMBNAIL_PX:
        mm = " x ".join(f"{side * mpp / 1000:.0f}" for side in slide_px)
        raise SlideError(
            f"{path}: {mm} mm of glass by its {mpp:g} um/px, {thumbnail_px[0]} x {thumbnail_px[1]} px in its "
            "thumbnail; correct its mpp in the sheet, raise tissue.thumbnail_mpp or remove it from the sheet"
        )


def check_tiff(path: Path) -> None:
    """Check that a TIFF's directories state no more than slides do, and no tiles that are rotated or mirrored.

    Limits hold for each directory and for their sum, since many may share one list. Files that are no TIFF, or a broken
    one, pass: opening them fails later.

    Args:
        path: The slide's file.

    Raises:
        SlideError: They do; names the directory.
    """
    with path.open("rb") as file:
        tiff = _Tiff.from_file(file)
        tags = tag_bytes = 0
        for i, directory in enumerate(_iter_directories(tiff, path) if tiff else ()):
            for code, tag in directory.tags.items():
                size = tag.count * (1 if TYPE_BYTES.get(tag.kind) == 1 else 8)
                tag_bytes += size
                if size > MAX_TAG_BYTES:
                    raise SlideError(f"{path}: tag {code} of directory {i} states {tag.count} values; {LIMIT_REMEDY}")
            tags += directory.n_tags
            if tags > MAX_ALL_TAGS or tag_bytes > MAX_ALL_TAG_BYTES:
                raise SlideError(
                    f"{path}: the first {i + 1} directories state {tags} tags of {tag_bytes} bytes; {LIMIT_REMEDY}"
                )
            _check_tiles(directory, path)


def count_focal_planes(path: Path) -> int:
    """Count the planes of focus of a Hamamatsu slide; OpenSlide reads the one numbered 0.

    Args:
        path: The slide's file.

    Returns:
        The count, 1 for a file that is no TIFF.
    """
    with path.open("rb") as file:
        tiff = _Tiff.from_file(file)
        directories = _iter_directories(tiff, path) if tiff else ()
        return len({directory.integers(FOCUS)[:1] or (0,) for directory in directories}) or 1


def _check_tiles(directory: "_Directory", path: Path) -> None:
    """Check that a directory's tiles are not too large, and upright."""
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
    """A tag's type, the number of its values, and the position of its values, or of their offset."""

    kind: int
    count: int
    at: int


@dataclass(frozen=True)
class _Tiff:
    """An open TIFF: its byte order, whether it is a BigTIFF, and the offset of its first directory."""

    file: BinaryIO
    order: str
    is_big: bool
    first: int

    @classmethod
    def from_file(cls, file: BinaryIO) -> "_Tiff | None":
        """Read the header; None if the file is no TIFF."""
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack(order + "H", head[2:4])[0] if order and len(head) == 16 else 0
        if version not in (42, 43):
            return None
        first = struct.unpack(order + "I", head[4:8])[0] if version == 42 else struct.unpack(order + "Q", head[8:])[0]
        return cls(file, order, version == 43, first)

    def unpack(self, at: int, layout: str) -> tuple[int, ...]:
        """Numbers of a struct layout at a position of the file; () if the file does not hold them."""
        try:
            self.file.seek(at)
            return struct.unpack(self.order + layout, self.file.read(struct.calcsize(self.order + layout)))
        except (struct.error, OSError, ValueError):  # beyond the end, or no position at all
            return ()


@dataclass(frozen=True)
class _Directory:
    """A directory: its tags by code, the number of tags that it states, and the position of its end."""

    tiff: _Tiff
    tags: dict[int, _Tag]
    n_tags: int
    end: int

    @classmethod
    def from_offset(cls, tiff: _Tiff, offset: int) -> "_Directory":
        """Read the directory at an offset; without tags if there is none."""
        layout, size, value = ("HHQQ", 20, 12) if tiff.is_big else ("HHII", 12, 8)
        n_tags = (tiff.unpack(offset, "Q" if tiff.is_big else "H") or (0,))[0]
        start, tags = offset + (8 if tiff.is_big else 2), {}
        for at in range(start, start + size * min(n_tags, MAX_TAGS), size):
            if entry := tiff.unpack(at, layout):
                tags[entry[0]] = _Tag(entry[1], entry[2], at + value)
        return cls(tiff, tags, n_tags, start + size * n_tags)

    def integers(self, code: int) -> tuple[int, ...]:
        """Values of a tag of integers, at most one more than there may be directories; () without the tag."""
        tag = self.tags.get(code)
        if tag is None or tag.kind not in INTEGER_FORMATS:
            return ()
        count, offset_format = min(tag.count, MAX_DIRECTORIES + 1), "Q" if self.tiff.is_big else "I"
        is_inline = count * TYPE_BYTES[tag.kind] <= struct.calcsize("=" + offset_format)
        at = (tag.at,) if is_inline else self.tiff.unpack(tag.at, offset_format)
        return self.tiff.unpack(at[0], f"{count}{INTEGER_FORMATS[tag.kind]}") if at else ()


def _iter_directories(tiff: _Tiff, path: Path) -> Iterator[_Directory]:
    """Iterate over a TIFF's directories and those below them, as far as the file is whole."""
    ahead, seen, offset_format = [tiff.first], set[int](), "Q" if tiff.is_big else "I"
    if not tiff.is_big and tiff.order == "<":  # Hamamatsu's files are classic TIFFs, but with offsets of 8 bytes
        wide = tiff.unpack(4, "Q")[0]
        if NDPI in _Directory.from_offset(tiff, wide).tags:
            ahead, offset_format = [wide], "Q"
    while ahead:
        offset = ahead.pop()
        seen.add(offset)
        directory = _Directory.from_offset(tiff, offset)
        if directory.n_tags > MAX_TAGS:
            raise SlideError(f"{path}: states {directory.n_tags} tags in a directory; {LIMIT_REMEDY}")
        yield directory
        following = tiff.unpack(directory.end, offset_format) if directory.tags else ()
        ahead += {*following, *directory.integers(SUBIFDS)} - seen - {0}
        if len(seen) + len(ahead) > MAX_DIRECTORIES:
            raise SlideError(f"{path}: more than {MAX_DIRECTORIES} directories; {LIMIT_REMEDY}")
