"""Slides: their size, their um/px, and their pixels at any um/px. The home of openslide and pyvips."""

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import openslide
from PIL import Image

from slpd_core import store
from slpd_core.runtime import log
from slpd_core.slides import identity
from slpd_core.slides.bad_slides import SlideError
from slpd_core.slides.bounds import check_levels, check_thumbnail, check_tiff
from slpd_core.slides.jpeg_tiles import JpegTiles, subifd_sizes
from slpd_core.slides.mpp import FINER, find_mpp, ome_pixels, scale_between
from slpd_core.slides.outages import reading

WHOLE = 0.01  # px; a corner this near a whole one is taken as whole
MAX_READ_PX = 1 << 28
STRIP_PX = 1 << 25  # of a thumbnail read at a time
VENDORS_OF_PLAIN_TILES = ("aperio", "generic-tiff")  # tiles side by side, none missing, none overlapping


@dataclass(frozen=True)
class ReadPlan:
    """What to read of which level, and the size to bring it to.

    level: pyramid level. shrink: how much smaller its JPEG tiles are decoded, 1 for as they are. box: x, y, width and
    height to read, in px of the shrunk level. out_px: (width, height) to give.
    """

    level: int
    shrink: int
    box: tuple[float, float, float, float]
    out_px: tuple[int, int]


def plan_read(
    downsamples: Sequence[float],
    shrinks: Sequence[Sequence[int]],
    scale: float,
    xy: tuple[float, float],
    size_px: tuple[int, int],
) -> ReadPlan:
    """Choose the coarsest way to read that is at least as fine as what is wanted.

    downsamples: of each level against level 0; shrinks: factors each can be decoded at. scale: level-0 px a px wanted.
    xy: upper left corner in level-0 px. size_px: (width, height) wanted.
    Raises ValueError when what is wanted is finer than level 0.
    """
    if scale < 1 - FINER:
        raise ValueError(f"{1 / scale:.3g} times finer than the slide's level 0")
    ways = [
        (downsample * shrink, level, shrink)
        for level, downsample in enumerate(downsamples)
        for shrink in (shrinks[level] or (1,))
        if downsample * shrink * (1 - FINER) <= scale
    ]
    # Of two ways to one scale the one that shrinks less: a level of the pyramid before a shrunk finer one.
    finest = max(down for down, _, _ in ways)
    down, level, shrink = min((way for way in ways if way[0] > finest * (1 - FINER)), key=lambda way: way[2])
    box = (xy[0] / down, xy[1] / down, size_px[0] * scale / down, size_px[1] * scale / down)
    return ReadPlan(level, shrink, box, size_px)


def resample(pixels: np.ndarray, box: tuple[float, float, float, float], out_px: tuple[int, int]) -> np.ndarray:
    """Bring a box of a picture to `out_px`: area mean where that is coarser, cubic interpolation where it is finer.

    pixels: uint8 (rows, columns, 3). box: x, y, width, height in px of the picture; for the area mean its corner is
    rounded to a whole px.
    """
    x, y, width, height = box
    whole = tuple(round(part) for part in box)
    if all(abs(part - near) < 1e-6 for part, near in zip(box, whole, strict=True)) and whole[2:] == out_px:
        return pixels[whole[1] : whole[1] + whole[3], whole[0] : whole[0] + whole[2]]
    scale = width / out_px[0], height / out_px[1]
    if min(scale) >= 1:
        columns, rows = (slice(at, max(at + 1, at + size)) for at, size in zip(whole[:2], whole[2:], strict=True))
        return cv2.resize(pixels[rows, columns], out_px, interpolation=cv2.INTER_AREA)
    if max(abs(x - whole[0]), abs(y - whole[1])) < WHOLE and min(scale) > 1 - FINER:
        return _enlarge(pixels[whole[1] :, whole[0] :], scale, out_px)
    # Centres of px lie at half units, cv2's at whole ones.
    matrix = np.array([[scale[0], 0, x + scale[0] / 2 - 0.5], [0, scale[1], y + scale[1] / 2 - 0.5]], np.float64)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(pixels, matrix, out_px, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _enlarge(pixels: np.ndarray, scale: tuple[float, float], out_px: tuple[int, int]) -> np.ndarray:
    """Cubic interpolation from the upper left corner on, six times as fast as `warpAffine` and to the same places.

    scale: px of the picture a px of the result; given as factors, not by the size of the result, it stays exact.
    """
    larger = cv2.resize(pixels, None, fx=1 / scale[0], fy=1 / scale[1], interpolation=cv2.INTER_CUBIC)
    missing = max(0, out_px[0] - larger.shape[1]), max(0, out_px[1] - larger.shape[0])
    if any(missing):
        larger = cv2.copyMakeBorder(larger, 0, missing[1], 0, missing[0], cv2.BORDER_REPLICATE)
    return larger[: out_px[1], : out_px[0]]


class Slide:
    """An open slide; use as a context manager.

    size: (width, height) of level 0 in px. mpp: um/px of level 0; mpp_source: where that came from.
    shrink_jpeg: whether JPEG tiles may be decoded at a half, quarter or eighth of their size where the slide has no
    such level: two to three times faster, about one grey level off the area mean of all pixels.
    threads: that decode tiles.
    Raises SlideError naming the slide when it is no slide, has no mpp or an implausible one.
    """

    def __init__(self, path: Path, mpp: float | None = None, shrink_jpeg: bool = True, threads: int = 1) -> None:
        self.path, self.threads = Path(path), threads
        cv2.setNumThreads(threads)
        self._slide = open_slide(self.path)
        self._tiles: JpegTiles | None = None
        try:
            properties = self._slide.properties  # a copy would fail on a name that is not UTF-8
            self.size = self._slide.dimensions
            check_levels(self._slide.level_dimensions, properties, self.path)
            self.mpp, self.mpp_source = find_mpp(properties, mpp, self.path)
            check_channels(properties, self.path)
            self._downsamples = list(self._slide.level_downsamples)
            self._whole_tiles = properties.get("openslide.vendor") in VENDORS_OF_PLAIN_TILES
            if self._whole_tiles:
                self._tiles = self._find_tiles()
        except BaseException:
            self.close()
            raise
        self._shrinks = [self._tiles.shrinks(level) if self._tiles else () for level in range(len(self._downsamples))]
        if not shrink_jpeg:
            self._shrinks = [shrinks[:1] for shrinks in self._shrinks]

    def _find_tiles(self) -> JpegTiles | None:
        """The JPEG tiles; adds the levels of an OME-TIFF that OpenSlide does not see."""
        sizes = list(self._slide.level_dimensions)
        try:
            below = subifd_sizes(self.path) if len(sizes) == 1 else []
            tiles = JpegTiles(self.path, sizes, below)
        except SlideError:
            raise
        except Exception as error:  # whatever tifffile makes of an odd directory: OpenSlide has opened the slide
            log.info("%s: read by OpenSlide alone (%s)", self.path, error)
            return None
        self._downsamples += [(self.size[0] / width + self.size[1] / height) / 2 for width, height in below]
        return tiles

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._tiles:
            self._tiles.close()
        self._slide.close()

    def read(self, xy: tuple[float, float], size_px: tuple[int, int], mpp: float) -> np.ndarray:
        """Pixels of a rectangle at `mpp`, uint8 RGB (rows, columns, 3); white outside the slide.

        xy: upper left corner in level-0 px. size_px: (width, height) of the result. Finer levels are area-averaged.
        Raises ValueError when the slide is coarser than that, SlideError with the place when its data are broken.
        """
        if mpp < self.mpp * (1 - FINER):
            raise ValueError(
                f"{self.path}: {mpp:g} um/px asked for, the slide has {self.mpp:g}: ask for {self.mpp:g} or coarser"
            )
        plan = plan_read(self._downsamples, self._shrinks, scale_between(self.mpp, mpp), xy, size_px)
        left, top = (math.floor(part + 1e-6) for part in plan.box[:2])
        right, bottom = (math.ceil(plan.box[i] + plan.box[i + 2] - 1e-6) for i in (0, 1))
        cover = (left, top, right - left, bottom - top)
        if max(cover[2] * cover[3], size_px[0] * size_px[1]) > MAX_READ_PX:
            raise SlideError(
                f"{self.path}: {size_px[0]} x {size_px[1]} px at {mpp:g} um/px need {cover[2]} x {cover[3]} px of "
                f"level {plan.level}, too many at once; convert it to a pyramid (vips tiffsave --tile --pyramid)"
            )
        if self._tiles and self._shrinks[plan.level]:
            pixels = self._tiles.read(plan.level, cover, plan.shrink, self.threads)
        elif plan.level < self._slide.level_count:
            pixels = self._read_openslide(plan.level, cover)
        else:
            pixels = read_subifd(self.path, plan.level - self._slide.level_count, cover)
        return resample(pixels, (plan.box[0] - left, plan.box[1] - top, *plan.box[2:]), size_px)

    def _read_openslide(self, level: int, box: tuple[int, int, int, int]) -> np.ndarray:
        """Pixels of a box of a level, x, y, width, height in its px, over white."""
        down = self._downsamples[level]
        at = round(box[0] * down), round(box[1] * down)
        try:
            rgba = self._slide.read_region(at, level, box[2:])
        except openslide.OpenSlideError as error:
            place = f"level {level} near x={at[0]}, y={at[1]}"
            raise SlideError(f"{self.path}: broken data at {place} ({error}); copy it again or leave it out") from error
        if self._whole_tiles and self._lacks_tiles(rgba, level, box):
            raise SlideError(
                f"{self.path}: missing tiles of level {level} near x={at[0]}, y={at[1]}, within {box[2]} x {box[3]} px "
                "of it; copy it again or leave it out"
            )
        return np.asarray(_over_white(rgba))

    def _lacks_tiles(self, rgba: Image.Image, level: int, box: tuple[int, int, int, int]) -> bool:
        """Whether any pixel is missing inside the level, but for its outermost ones, which may lie between two."""
        width, height = self._slide.level_dimensions[level]
        left, top = max(1 - box[0], 0), max(1 - box[1], 0)
        right, bottom = min(width - 1 - box[0], box[2]), min(height - 1 - box[1], box[3])
        alpha = np.asarray(rgba.getchannel("A"))[top : max(bottom, top), left : max(right, left)]
        return alpha.size > 0 and int(alpha.min()) < 255

    def thumbnail(self, mpp: float) -> np.ndarray:
        """The whole slide at `mpp` (at the slide's own where that is coarser), uint8 RGB (rows, columns, 3).

        Raises SlideError where that is too large.
        """
        mpp = max(mpp, self.mpp)
        scale = scale_between(self.mpp, mpp)
        width, height = (math.ceil(side / scale) for side in self.size)
        check_thumbnail((width, height), self.size, self.mpp, self.path)
        down = max(1.0, *(down for down in self._downsamples if down <= scale)) if len(self._downsamples) > 1 else 1.0
        source_px = (self.size[0] / down) * (scale / down)  # of a row of the thumbnail, at most
        rows = min(height, max(1, int(STRIP_PX / source_px)))
        strips = [self.read((0, top * scale), (width, min(rows, height - top)), mpp) for top in range(0, height, rows)]
        return np.concatenate(strips)


def read_regions(
    slide_path: Path, regions: store.Regions, shrink_jpeg: bool, give_up: bool, state_dir: Path | None = None
) -> Iterator[np.ndarray]:
    """Yield the regions' pixels, uint8 (size_px, size_px, 3), the next one read while the last is worked on.

    What seems broken is read once more after the whole slide was: an outage looks the same, but passes.

    Args:
        slide_path: The file that the sheet names.
        regions: What to read, and the fingerprint of the slide that its tissue was found on.
        shrink_jpeg: As in Slide.
        give_up: Whether a file that cannot be read is the slide's fault.
        state_dir: The folder of the slides' memos, see `identity.fingerprint`.

    Raises:
        SlideError: The slide is broken; where its file cannot be read, outages.UnreadableError.
        OSError: Its file cannot be read, and not give_up.
        ValueError: It is another slide than the one whose tissue was found.
    """
    done, reread = 0, False
    with reading(slide_path, give_up=give_up):
        while done < len(regions.coords):
            if reread or regions.slide.fingerprint:
                check_same(slide_path, regions.slide, None if reread else state_dir)
            try:
                for pixels in _read_regions_from(done, slide_path, regions, shrink_jpeg):
                    yield pixels
                    done += 1
            except SlideError:
                if reread:
                    raise
                reread = True


def check_same(slide_path: Path, slide: store.SlideInfo, state_dir: Path | None) -> None:
    """Raise ValueError when a file is not the slide whose tissue was found; it is read whole where no memo says so."""
    memo_path = state_dir and state_dir / f"{slide.slide_id}.json"
    if identity.fingerprint(slide_path, memo_path) != slide.fingerprint and slide.fingerprint:
        raise ValueError(
            f"{slide_path}: replaced since the tissue of {slide.slide_id} was found; run snakemake again, "
            "its stages are then made anew"
        )


def _read_regions_from(first: int, slide_path: Path, regions: store.Regions, shrink_jpeg: bool) -> Iterator[np.ndarray]:
    """Open a slide and yield its regions from the first wanted on, the next one being read meanwhile."""
    size = (regions.size_px, regions.size_px)
    with Slide(slide_path, regions.slide.mpp, shrink_jpeg) as slide, ThreadPoolExecutor(1) as thread:
        ahead = None
        for x, y in regions.coords[first:].tolist():
            pixels = thread.submit(slide.read, (x, y), size, regions.target_mpp)
            if ahead is not None:
                yield ahead.result()
            ahead = pixels
        if ahead is not None:
            yield ahead.result()


def open_slide(path: Path) -> openslide.OpenSlide:
    """Open a slide; raises FileNotFoundError or SlideError with the remedy."""
    try:
        if path.is_file():
            check_tiff(path)
        return openslide.OpenSlide(str(identity.locate(path)))
    except openslide.OpenSlideUnsupportedFormatError:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file; correct its path in the sheet") from None
        with path.open("rb"):
            raise SlideError(
                f"{path}: not a whole slide of a format OpenSlide knows; copy it again, convert it or leave it out"
            ) from None
    except openslide.OpenSlideError as error:
        raise SlideError(f"{path}: broken slide ({error}); copy it again or leave it out") from error


def check_channels(properties: Mapping[str, str], path: Path) -> None:
    """Raise SlideError for an OME-TIFF whose channels are pictures of their own: all but one would go unread."""
    pixels = ome_pixels(properties.get("openslide.comment"))
    channels = pixels.get("SizeC", "1")
    if channels != "1" and pixels.get("SamplesPerPixel") == "1":
        raise SlideError(
            f"{path}: an OME-TIFF of {channels} channels that are pictures of their own; save it as RGB or leave it out"
        )


def read_subifd(path: Path, number: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """Pixels of a box of a level below a TIFF's first page, uint8 RGB (rows, columns, 3), white outside the level.

    box: x, y, width, height in its px. Raises SlideError when its data are broken.
    """
    import pyvips

    x, y, width, height = box
    out = np.full((height, width, 3), 255, np.uint8)
    try:
        level = pyvips.Image.tiffload(str(path), subifd=number, fail_on="warning", revalidate=True)
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + width, level.width), min(y + height, level.height)
        if left < right and top < bottom:
            pixels = level.crop(left, top, right - left, bottom - top).numpy()
            out[top - y : bottom - y, left - x : right - x] = pixels
    except pyvips.Error as error:
        place = f"level {number + 1} near x={x}, y={y}"
        raise SlideError(f"{path}: broken data at {place} ({error}); copy it again or leave it out") from error
    return out


def _over_white(rgba: Image.Image) -> Image.Image:
    if rgba.getchannel("A").getextrema() == (255, 255):
        return rgba.convert("RGB")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    white.alpha_composite(rgba)
    return white.convert("RGB")


def write_slide(path: Path, pixels: np.ndarray, mpp: float) -> None:
    """Write a tiled, pyramidal JPEG TIFF whose resolution tags state `mpp`.

    pixels: uint8 RGB (rows, columns, 3), level 0. mpp: um/px.
    """
    import pyvips

    pixels_per_mm = 1000 / mpp
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
    with store.replacing(path) as part:
        image.tiffsave(
            str(part),
            tile=True,
            pyramid=True,
            compression="jpeg",
            Q=85,
            tile_width=256,
            tile_height=256,
            xres=pixels_per_mm,
            yres=pixels_per_mm,
            resunit="cm",
            bigtiff=True,
        )
