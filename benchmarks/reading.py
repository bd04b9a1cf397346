"""Reading regions of 4096 px, against other readers in the same run and against the floor: decoding their tiles alone.

Slides are composed of the pictures below the folder READING_TILES, e.g. tiles of H&E; without it the demo's are drawn.
Each way has a process of its own, which keeps freed memory as the stages' jobs do; rounds are taken in turn. cuCIM,
opentile and tiffslide are measured where they can be imported; each reader stays open for all rounds but OpenSlide and
pyvips, which would return what they keep of the last one.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pyvips
import simplejpeg
import tifffile
from PIL import Image

from benchmarks.timing import best_seconds, processor, show
from slpd_core.demo.picture import draw_slide_pixels
from slpd_core.runtime import generator
from slpd_core.runtime.threads import keep_freed_memory
from slpd_core.wsi.read_plan import resample
from slpd_core.wsi.reader import Slide
from slpd_core.wsi.tiff_levels import find_levels
from slpd_core.wsi.tile_reader import tile_buffer

REGION_PX, SLIDE_PX, TILES_PX = 4096, 4608, (240, 256, 512)
QUALITIES = {"4:2:0": 80, "RGB 4:4:4": 90}  # libvips subsamples below 90, and keeps RGB from there on
ROUNDS, PROCESSES = 3, 3
APERIO = "Aperio Image Library\r\n|AppMag = 20|MPP = 0.5"
Way = Callable[[Path, int], np.ndarray]


@cache
def opened(reader: Callable[..., Any], *arguments: object, **options: object) -> Any:
    """Open a reader once per process."""
    return reader(*arguments, **options)


def by_openslide(path: Path, side: int) -> np.ndarray:
    """Read as most tools do: read_region, RGBA to RGB."""
    with openslide.OpenSlide(str(path)) as slide:
        return np.asarray(slide.read_region((0, 0), 0, (side, side)).convert("RGB"))


def ours(path: Path, side: int, mpp: float = 0.5, jpeg_scaled_decoding: bool = False) -> np.ndarray:
    """Read at 0.5 um/px of a slide of `mpp`."""
    slide: Slide = opened(Slide, path, mpp, jpeg_scaled_decoding=jpeg_scaled_decoding)
    px = round(side * mpp / 0.5)
    return slide.read((0, 0), (px, px), 0.5)


def by_pyvips(path: Path, side: int) -> np.ndarray:
    """Read with libvips, which shares no decoded tiles between calls."""
    pyvips.cache_set_max(0)
    return np.asarray(pyvips.Image.tiffload(str(path)).crop(0, 0, side, side).numpy())


def by_cucim(path: Path, side: int) -> np.ndarray:
    """Read on cuCIM's CPU path with one thread."""
    import cucim

    return np.asarray(opened(cucim.CuImage, str(path)).read_region((0, 0), (side, side), level=0, num_workers=1))


def by_tiffslide(path: Path, side: int) -> np.ndarray:
    """Read with tiffslide."""
    import tiffslide

    return np.asarray(opened(tiffslide.TiffSlide, path).read_region((0, 0), 0, (side, side), as_array=True))


def by_opentile(path: Path, side: int) -> np.ndarray:
    """Read with opentile, which decodes tiles; they are put together here."""
    import opentile

    level = opened(opentile.OpenTile.open, path).get_level(0)
    out, tile = np.empty((side, side, 3), np.uint8), level.tile_size.width
    for row in range(-(-side // tile)):
        for column in range(-(-side // tile)):
            part = out[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
            part[:] = level.get_decoded_tile((column, row))[: part.shape[0], : part.shape[1]]
    return out


PEERS: dict[str, Way] = {"cucim": by_cucim, "opentile": by_opentile, "tiffslide": by_tiffslide}


def peers() -> dict[str, Way]:
    """Select the other readers that are installed."""
    return {name: way for name, way in PEERS.items() if find_spec(name)}


@cache
def streams(path: Path, side: int) -> tuple[list[bytes], int]:
    """Return the JPEG streams of the tiles that hold the region, and their side."""
    with openslide.OpenSlide(str(path)) as slide:
        level = find_levels(path, slide.level_dimensions)[0]
    assert level is not None  # it is an SVS of JPEG tiles
    content, tile_px = path.read_bytes(), level.tile_px[0]
    count = -(-side // tile_px)
    starts, lengths = (spans[:count, :count].ravel().tolist() for spans in (level.offsets, level.lengths))
    spans = zip(starts, lengths, strict=True)
    return [level.prefix + content[start + 2 : start + length] for start, length in spans], tile_px


def decode(path: Path, side: int, jpeg_scale: int = 1) -> np.ndarray:
    """Decode the tiles one after the other into the same buffer."""
    encoded, tile_px = streams(path, side)
    px = tile_px // jpeg_scale
    buffer = opened(tile_buffer, px, px)
    smaller = {"min_factor": jpeg_scale, "min_height": px, "min_width": px} if jpeg_scale > 1 else {}
    for stream in encoded:
        simplejpeg.decode_jpeg(stream, buffer=buffer, **smaller)
    return np.empty(0, np.uint8)


def area_mean(way: Way, path: Path, side: int) -> np.ndarray:
    """Read at twice the scale, then average 2 x 2 px."""
    return resample(way(path, side), (0, 0, side, side), (side // 2, side // 2))


def cpu_seconds(way: Way, path: Path, side: int) -> float:
    """Return the CPU-seconds of all threads of this process that a call takes."""
    started = time.process_time()
    way(path, side)
    return time.process_time() - started


def compare(title: str, ways: Mapping[str, Way], path: Path, side: int, baseline: str, floor: str = "") -> None:
    """Print a table of the ways: rates per CPU-second, and how far their pixels are off those of the baseline.

    The least of several processes counts: the pages that one happens to get make up to a tenth of its speed.
    """
    seconds, off = dict.fromkeys(ways, np.inf), {}
    expected = np.empty(0, np.uint8)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.reading"])
    for _ in range(PROCESSES):
        with ExitStack() as stack:
            pools = {}
            for name, way in ways.items():
                pool = stack.enter_context(ProcessPoolExecutor(1, mp_context=context, initializer=keep_freed_memory))
                try:
                    pixels = pool.submit(way, path, side).result()
                except Exception as error:  # of another reader: of a kind of slide or a library that it lacks
                    off[name] = f"does not read it: {str(error).splitlines()[0]}"
                    continue
                expected = pixels if name == baseline else expected
                pools[name], same = pool, pixels.shape == expected.shape
                off[name] = f"{np.abs(pixels.astype(np.int16) - expected).max()}" if same else "–"
            for _ in range(ROUNDS):
                for name, pool in pools.items():
                    seconds[name] = min(seconds[name], pool.submit(cpu_seconds, ways[name], path, side).result())
    print(f"{title}\n\n| way | Mpx per CPU-second | ratio | of the floor | off by at most | processor |")
    print("|---|---:|---:|---:|---:|---|")
    for name in ways:
        rate, ratio = side**2 / 1e6 / seconds[name], seconds[baseline] / seconds[name]
        share = f"{seconds[floor] / seconds[name]:.0%}" if floor else "–"
        print(f"| {name} | {rate:.1f} | {ratio:.2f} | {share} | {off[name]} | {processor()} |")
    print(flush=True)


def compose(side: int) -> np.ndarray:
    """Compose a picture, uint8 (side, side, 3), of those below READING_TILES, or draw one of the demo's."""
    if not os.environ.get("READING_TILES"):
        return draw_slide_pixels(generator(1, "benchmark"), generator(1, "stain"), "glands", side)
    paths = sorted(Path(os.environ["READING_TILES"]).rglob("*.jp*g"))
    order = np.random.default_rng(0).permutation(len(paths)).tolist()
    with Image.open(paths[0]) as first:
        px = min(first.size)
    count = -(-side // px)
    tiles = [np.asarray(Image.open(paths[order[i % len(order)]]).convert("RGB"))[:px, :px] for i in range(count**2)]
    rows = [np.concatenate(tiles[i : i + count], 1) for i in range(0, count**2, count)]
    return np.concatenate(rows)[:side, :side]


def write_svs(path: Path, pixels: np.ndarray, tile_px: int, quality: int) -> Path:
    """Write an Aperio SVS of one level of JPEG tiles."""
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
    image.set_type(pyvips.GValue.gstr_type, "image-description", APERIO)
    image.tiffsave(str(path), tile=True, compression="jpeg", Q=quality, tile_width=tile_px, tile_height=tile_px)
    return path


def write_jpeg_2000(path: Path, pixels: np.ndarray) -> Path:
    """Write an Aperio SVS of one level of JPEG 2000 tiles."""
    how: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "compression": 33005, "metadata": None}
    tifffile.imwrite(path, pixels, description=APERIO, compressionargs={"level": 38}, **how)
    return path


def show_threads(path: Path) -> None:
    """Print how regions of one open slide come when several threads read at once."""

    def read(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda _: slide.read((0, 0), (REGION_PX, REGION_PX), 0.5), range(most)))

    most = os.cpu_count() or 1
    with Slide(path, 0.5) as slide:
        counts = [1 << i for i in range(most.bit_length())]
        seconds = best_seconds({f"{n} threads": partial(read, n) for n in counts}, 3)
    show(f"One slide read from several threads at once, {processor()}", seconds, most, "regions/s", "1 threads")


def main() -> None:
    """Write the slides and print the tables."""
    floor = "floor: decoding the tiles"
    with tempfile.TemporaryDirectory() as folder:
        picture = compose(SLIDE_PX)
        for tile_px in TILES_PX:
            for kind, quality in QUALITIES.items():
                path = write_svs(Path(folder, f"{tile_px}{quality}.svs"), picture, tile_px, quality)
                ways: dict[str, Way] = {"OpenSlide": by_openslide, "ours": ours, **peers(), "pyvips": by_pyvips}
                title = f"JPEG tiles of {tile_px} px, {kind}, level 0"
                compare(title, {**ways, floor: decode}, path, REGION_PX, "OpenSlide", floor)
        show_threads(path)
        path = write_jpeg_2000(Path(folder, "2000.svs"), picture)
        compare("JPEG 2000 tiles of 256 px, level 0", ways, path, REGION_PX, "OpenSlide")
        path = write_svs(Path(folder, "40x.svs"), np.tile(picture, (2, 2, 1)), 256, 80)
        means = {"OpenSlide": by_openslide, **{name: way for name, way in peers().items() if name == "cucim"}}
        ways = {f"{name}, then the area mean": partial(area_mean, way) for name, way in means.items()}
        ways["ours"] = partial(ours, mpp=0.25)
        ways["ours, decoded at half scale"] = partial(ours, mpp=0.25, jpeg_scaled_decoding=True)
        ways |= {floor: decode, "floor at half scale": partial(decode, jpeg_scale=2)}
        title = "JPEG tiles of 256 px, 4:2:0, of 0.25 um/px read at 0.5"
        compare(title, ways, path, 2 * REGION_PX, "OpenSlide, then the area mean", floor)
