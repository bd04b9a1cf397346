"""The stages of a slide before its tokens: seconds and memory of tissue and regions by the size of the slide.

The small slide is one of the demo's; the large one is that slide laid side by side, 100,000 x 80,000 px. Memory is the
peak of a process of its own for each measurement, what its libraries take included.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyvips
import yaml

from benchmarks.timing import in_own_process
from slpd_core import artifacts, config
from slpd_core.demo.picture import draw_slide_pixels
from slpd_core.runtime import generator
from slpd_core.slides import regions, tissue
from slpd_core.wsi.mpp import downsample_factor
from slpd_core.wsi.read_plan import plan_read
from slpd_core.wsi.reader import Slide
from slpd_core.wsi.writer import write_slide

SMALL_PX = 9216
LARGE_PX = (100_000, 80_000)
NEEDED_GB = 8  # of disk
MOST_MB = 1500  # of memory, whatever the slide's size


def settings() -> config.Config:
    """Return config.yaml as it is."""
    return config.load(yaml.safe_load((Path(__file__).parents[1] / "config.yaml").read_text()))


def nothing() -> None:
    """Import the libraries and nothing more."""


def thumbnail(path: Path, mpp: float) -> None:
    """Read the thumbnail that is segmented."""
    with Slide(path, mpp) as slide:
        slide.thumbnail(settings().tissue.thumbnail_mpp)


def segment(path: Path, mpp: float) -> artifacts.Tissue:
    """Do the tissue stage's work without writing its files."""
    return tissue.segment_file("benchmark", path, mpp)[0]


def keep_regions(segmented: artifacts.Tissue) -> int:
    """Do the regions stage's work and return the number of regions."""
    return len(regions.select_regions(segmented).coords)


def write_small(path: Path) -> None:
    """Draw a slide of the demo cohort's kind."""
    picture = draw_slide_pixels(generator(1, "benchmark"), generator(1, "stain"), "glands", SMALL_PX)
    write_slide(path, picture, 0.5)


def write_large(small: Path, path: Path) -> None:
    """Tile the large slide, a pyramid of JPEG tiles, with the small one."""
    picture = pyvips.Image.tiffload(str(small)).copy_memory()
    across, down = (-(-side // SMALL_PX) for side in LARGE_PX)
    large = picture.replicate(across, down).crop(0, 0, *LARGE_PX)
    large.tiffsave(
        str(path), tile=True, pyramid=True, compression="jpeg", Q=75, tile_width=256, tile_height=256, bigtiff=True
    )


def check_plan(path: Path, mpp: float) -> str:
    """Describe the level that the thumbnail is read from, which is not level 0."""
    wanted = settings().tissue.thumbnail_mpp
    with Slide(path, mpp) as slide:
        scale = downsample_factor(mpp, wanted)
        size = round(slide.size[0] / scale), round(slide.size[1] / scale)
        plan = plan_read(slide._downsamples, slide._jpeg_scales, scale, (0, 0), size)
        coarser = slide._downsamples[plan.level]
    assert plan.level > 0, f"{path}: its thumbnail is read from level 0"
    return f"level {plan.level}, {coarser:.0f} times smaller, decoded at 1/{plan.jpeg_scale}"


def measure(title: str, path: Path, mpp: float) -> None:
    """Print the table of a slide."""
    ways: dict[str, tuple[Callable[..., Any], tuple[object, ...]]] = {
        "libraries alone": (nothing, ()),
        "thumbnail": (thumbnail, (path, mpp)),
        "tissue: segment": (segment, (path, mpp)),
    }
    print(f"{title}; thumbnail from {check_plan(path, mpp)}\n")
    print("| what | seconds | peak memory, MB | read from the file, MB |\n|---|---:|---:|---:|")
    for name, (work, arguments) in ways.items():
        result, cost = in_own_process(work, *arguments)
        over = "" if cost.peak_mb < MOST_MB else f" (more than {MOST_MB})"
        print(f"| {name} | {cost.seconds:.2f} | {cost.peak_mb:.0f}{over} | {cost.read_mb:.1f} |", flush=True)
    count, cost = in_own_process(keep_regions, result)
    pieces = len(result.polygons)
    print(f"| regions: keep_regions, {count} on {pieces} piece(s) | {cost.seconds:.2f} | {cost.peak_mb:.0f} | 0 |\n")


def main() -> None:
    """Write the slides and print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, "small.tiff"), Path(folder, "large.tiff")
        in_own_process(write_small, small)
        measure(f"{SMALL_PX} x {SMALL_PX} px at 0.5 um/px", small, 0.5)
        free_gb = shutil.disk_usage(folder).free / 1e9
        if free_gb < NEEDED_GB:
            print(f"The large slide is skipped: it needs up to {NEEDED_GB} GB of disk, {free_gb:.1f} are free")
            return
        started = time.perf_counter()
        in_own_process(write_large, small, large)
        spent, size = time.perf_counter() - started, large.stat().st_size / 1e9
        title = f"{LARGE_PX[0]} x {LARGE_PX[1]} px"
        print(f"The large slide: {spent:.0f} seconds to write its {size:.1f} GB\n", flush=True)
        for mpp in (0.25, 0.5):
            measure(f"{title} at {mpp} um/px", large, mpp)
