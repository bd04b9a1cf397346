"""Every outline read, before any work."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from slpd_core import config
from slpd_core.preflight.slides import SlideProbe
from slpd_core.runtime import progress
from slpd_core.slides.outlines import find_origin, read_outline


def find_problems(
    slides: list[SlideProbe], paths: Mapping[str, Path], section: config.TissueOutlineConfig, threads: int
) -> dict[str, str]:
    """Find the outlines that cannot be taken, several at a time.

    Args:
        slides: those that open.
        paths: the outlines by slide id.
        section: how they are read.
        threads: how many are read at a time.

    Returns:
        What is wrong by slide id.
    """

    def look_at(slide: SlideProbe) -> str:
        try:
            corner = find_origin(slide.slide_id, slide.bounds_xy, section.mask_origin)
            path, classes, ignore = paths[slide.slide_id], section.classes, section.ignore
            read_outline(path, slide.size_px, corner=corner, classes=classes, ignore=ignore)
        except (ValueError, OSError) as error:
            return str(error)
        return ""

    outlined = [slide for slide in slides if slide.slide_id in paths]
    with ThreadPoolExecutor(threads) as pool:
        problems = [*progress(pool.map(look_at, outlined), len(outlined), "reading", "outlines")]
    return {slide.slide_id: problem for slide, problem in zip(outlined, problems, strict=True) if problem}
