"""Reading regions of 4096 px, against OpenSlide in the same run and against the floor: decoding JPEG alone.

The slide is one of the demo's, drawn as level 0 of a pyramid at 0.5 um/px and of one at 0.25 um/px without a 0.5 level.
"""

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import pyvips
import simplejpeg
from PIL import Image

from benchmarks.timing import best_seconds, show
from slpd_core.demo.picture import draw_slide_pixels
from slpd_core.runtime import generator
from slpd_core.wsi.read_plan import resample
from slpd_core.wsi.reader import Slide
from slpd_core.wsi.tiff_levels import find_levels
from slpd_core.wsi.writer import write_slide

REGION_PX, SLIDE_PX = 4096, 5120
AT = (300, 420)  # no multiple of a tile


def openslide_rgb(path: Path, size_px: int) -> np.ndarray:
    """Read as most tools do: read_region, RGBA to RGB."""
    with openslide.OpenSlide(str(path)) as slide:
        return np.asarray(slide.read_region(AT, 0, (size_px, size_px)).convert("RGB"))


def ours(path: Path, mpp: float, jpeg_scaled_decoding: bool = True, threads: int = 1) -> np.ndarray:
    """Read a region at 0.5 um/px of a slide of `mpp`."""
    with Slide(path, mpp, jpeg_scaled_decoding=jpeg_scaled_decoding, threads=threads) as slide:
        return slide.read(AT, (REGION_PX, REGION_PX), 0.5)


def streams(path: Path, size_px: int) -> list[bytes]:
    """Return JPEG streams of as many tiles as a region of that side holds."""
    with openslide.OpenSlide(str(path)) as slide:
        level = find_levels(path, slide.level_dimensions)[0]
    assert level is not None  # it is a JPEG TIFF
    count = (size_px // level.tile_px[0]) ** 2
    content = path.read_bytes()
    spans = list(zip(level.offsets.ravel().tolist(), level.lengths.ravel().tolist(), strict=True))[:count]
    return [level.prefix + content[offset + 2 : offset + length] for offset, length in spans]


def decode(streams: list[bytes], shrink: int = 1) -> None:
    """Decode tiles of 256 px one after the other into the same buffer."""
    side = 256 // shrink
    buffer = np.empty((side, side, 3), np.uint8)
    smaller = {"min_factor": shrink, "min_height": side, "min_width": side} if shrink > 1 else {}
    for stream in streams:
        simplejpeg.decode_jpeg(stream, buffer=buffer, **smaller)


def two_threads(way: Callable[..., object], *arguments: object) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: way(*arguments), range(2)))


def level_0(path: Path) -> None:
    """Time a region at the um/px of level 0."""
    encoded = streams(path, REGION_PX)
    same = np.array_equal(ours(path, 0.5), openslide_rgb(path, REGION_PX))
    slide = Slide(path, 0.5)  # open for all its regions, as the tokens stage reads
    seconds = best_seconds(
        {
            "OpenSlide, RGBA to RGB": lambda: openslide_rgb(path, REGION_PX),
            "ours": lambda: slide.read(AT, (REGION_PX, REGION_PX), 0.5),
            "ours, the slide opened for each region": lambda: ours(path, 0.5),
            "floor: decoding": lambda: decode(encoded),
        },
        rounds=9,
    )
    slide.close()
    title = f"Level 0, one thread, Mpx of the region; pixels {'identical to' if same else 'DIFFER FROM'} OpenSlide's"
    show(title, seconds, REGION_PX**2 / 1e6, "Mpx/s", "OpenSlide, RGBA to RGB")
    seconds = best_seconds(
        {
            "OpenSlide, two regions at once": lambda: two_threads(openslide_rgb, path, REGION_PX),
            "ours, two regions at once": lambda: two_threads(ours, path, 0.5),
            "ours, two threads a region, one after the other": lambda: [ours(path, 0.5, threads=2) for _ in range(2)],
        }
    )
    show("Two threads", seconds, 2 * REGION_PX**2 / 1e6, "Mpx/s", "OpenSlide, two regions at once")


def half_scale(path: Path, mpp: float) -> None:
    """Time a region at 0.5 um/px of a slide without such a level."""
    side = round(REGION_PX * 0.5 / mpp)
    encoded = streams(path, 2 * REGION_PX)

    def by_openslide() -> np.ndarray:
        picture = Image.fromarray(openslide_rgb(path, side))
        return np.asarray(picture.resize((REGION_PX, REGION_PX), Image.Resampling.LANCZOS))

    mean = resample(openslide_rgb(path, side), (0, 0, side, side), (REGION_PX, REGION_PX)).astype(int)
    shrunk, whole = (np.abs(ours(path, mpp, shrink) - mean).mean() for shrink in (True, False))
    seconds = best_seconds(
        {
            "OpenSlide, then resized (Pillow, Lanczos)": by_openslide,
            "ours, decoded whole": lambda: ours(path, mpp, jpeg_scaled_decoding=False),
            "ours": lambda: ours(path, mpp),
            "floor: decoding at half scale": lambda: decode(encoded, 2),
        },
        rounds=3,
    )
    title = (
        f"{mpp} um/px read at 0.5, one thread, Mpx of level 0; mean difference from the area mean of all pixels: "
        f"{shrunk:.2f} grey levels, decoded whole {whole:.2f}"
    )
    show(title, seconds, side**2 / 1e6, "Mpx/s", "OpenSlide, then resized (Pillow, Lanczos)")


def main() -> None:
    """Draw the slides and print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        picture = draw_slide_pixels(generator(1, "benchmark"), generator(1, "stain"), "glands", SLIDE_PX)
        write_slide(Path(folder, "20x.tiff"), picture, 0.5)
        level_0(Path(folder, "20x.tiff"))
        larger = pyvips.Image.new_from_array(picture).resize(1.75)
        larger.tiffsave(
            str(Path(folder, "40x.tiff")), tile=True, compression="jpeg", Q=85, tile_width=256, tile_height=256
        )
        for mpp in (0.25, 0.2525):
            half_scale(Path(folder, "40x.tiff"), mpp)
