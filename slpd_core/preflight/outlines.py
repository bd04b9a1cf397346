"""Read every outline before any work."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from slpd_core.preflight.slides import SlideProbe
from slpd_core.runtime import progress
from slpd_core.slides.outlines import find_origin, read_outline


def find_outline_problems(
    slides: Sequence[SlideProbe],
    paths: Mapping[str, Path],
    *,
    mask_origin: str | None = None,
    classes: Collection[str] | None = None,
    ignore: Collection[str] = (),
    threads: int = 1,
) -> dict[str, str]:
    """Find the outlines that cannot be used.

    Args:
        slides: Those that open.
        paths: By slide id, the outline.
        mask_origin: The corner that outlines count from on slides with bounds: "slide" or "bounds".
        classes, ignore: The objects that are tissue, as in `read_outline`.
        threads: Outlines read at a time.

    Returns:
        By slide id, the problem.
    """

    def find_problem(slide: SlideProbe) -> str:
        try:
            corner = find_origin(slide.slide_id, slide.bounds_xy, mask_origin)
            read_outline(paths[slide.slide_id], slide.size_px, corner=corner, classes=classes, ignore=ignore)
        except (ValueError, OSError) as error:
            return str(error)
        return ""

    outlined = [slide for slide in slides if slide.slide_id in paths]
    with ThreadPoolExecutor(threads) as pool:
        problems = [*progress(pool.map(find_problem, outlined), len(outlined), "reading", "outlines")]
    return {slide.slide_id: problem for slide, problem in zip(outlined, problems, strict=True) if problem}
