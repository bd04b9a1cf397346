"""Every outline read, before any work."""

from collections.abc import Mapping
from pathlib import Path

from slpd_core import config
from slpd_core.preflight.slides import Opened
from slpd_core.slides.outlines import find_origin, read_outline
from slpd_core.slides.reader import Slide


def find_problems(slides: list[Opened], paths: Mapping[str, Path], section: config.Outline) -> dict[str, str]:
    """Find the outlines that cannot be taken.

    Args:
        slides: those that open.
        paths: the outlines by slide id.
        section: how they are read.

    Returns:
        What is wrong by slide id.
    """
    problems = {}
    for one in slides:
        if one.slide_id not in paths:
            continue
        try:
            with Slide(one.path, one.sheet_mpp) as slide:
                corner = find_origin(one.slide_id, slide.bounds_xy, section.mask_origin)
                read_outline(
                    paths[one.slide_id], slide.size, corner=corner, classes=section.classes, ignore=section.ignore
                )
        except (ValueError, OSError) as error:
            problems[one.slide_id] = str(error)
    return problems
