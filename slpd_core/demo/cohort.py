"""The demo cohort: its sheet and slides, drawn into a folder."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from slpd_core import artifacts
from slpd_core.config import check_arguments
from slpd_core.config.base import Seed
from slpd_core.demo.layout import LABELS
from slpd_core.demo.picture import draw_slide_pixels
from slpd_core.demo.shapes import DOWNSAMPLE
from slpd_core.runtime import generator, progress
from slpd_core.wsi.writer import write_slide

VERSION = 1
DEMO_MPP = 0.5
MIN_SIDE_PX = 512


@dataclass(frozen=True)
class DemoCohort:
    """The settings of a cohort; the same settings draw the same slides.

    Attributes:
        seed: Of all generators.
        patients: Per class; every fourth has two slides.
        side_px: Width and height of a slide.
        version: Of the drawing.
    """

    seed: int
    patients: int
    side_px: int
    version: int = VERSION


@dataclass(frozen=True)
class DemoSlide:
    """A row of the sheet.

    Attributes:
        label: Class of the patient.
        patient: Index of the patient in the class, from 1.
        index: Index of the slide, from 1.
    """

    label: str
    patient: int
    index: int

    @property
    def patient_id(self) -> str:
        """Unique in the cohort."""
        return f"{self.label}-{self.patient:02d}"

    @property
    def slide_id(self) -> str:
        """Unique in the cohort."""
        return f"{self.patient_id}-{self.index}"

    @property
    def path(self) -> str:
        """Path of the slide relative to the sheet."""
        return f"slides/{self.slide_id}.tiff"


def list_slides(cohort: DemoCohort) -> list[DemoSlide]:
    """List the slides of a cohort: per class its patients, each with one or two slides.

    Args:
        cohort: The cohort.

    Returns:
        The rows of the sheet.
    """
    return [
        DemoSlide(label, patient, index)
        for label in LABELS
        for patient in range(1, cohort.patients + 1)
        for index in range(1, 3 if patient % 4 == 1 else 2)
    ]


@check_arguments(seed=Seed)
def draw_demo_slide(path: str | Path, *, label: str = LABELS[0], side_px: int = 4608, seed: int = 1) -> None:
    """Draw a synthetic H&E slide like those of the demo cohort, and write it.

    Args:
        path: Of the pyramidal TIFF to write, at 0.5 um/px.
        label: The class: "glands" or "nests"; the classes differ in their tissue.
        side_px: Width and height of level 0, a multiple of 4.
        seed: The same seed and class draw the same slide.

    Raises:
        ValueError: There is no such class, or the side is too small or no multiple of 4.
    """
    if label not in LABELS:
        raise ValueError(f"label: no class {label!r} in the demo; give one of {', '.join(LABELS)}")
    _check_side(side_px)
    rng, stain_rng = generator(seed, "demo", label), generator(seed, "stain", label)
    write_slide(Path(path), draw_slide_pixels(rng, stain_rng, label, side_px), DEMO_MPP)


def _check_side(side_px: int) -> None:
    """Raise ValueError where slides of that side cannot be drawn."""
    if side_px % DOWNSAMPLE or side_px < MIN_SIDE_PX:
        raise ValueError(f"side of {side_px} px: must be a multiple of {DOWNSAMPLE}, {MIN_SIDE_PX} or more")


def _draw_slide(row: DemoSlide, cohort: DemoCohort, out: Path) -> None:
    """Draw and write one slide, which depends on the cohort's seed and size and on its id alone."""
    rng, stain_rng = generator(cohort.seed, "demo", row.slide_id), generator(cohort.seed, "stain", row.slide_id)
    write_slide(out / row.path, draw_slide_pixels(rng, stain_rng, row.label, cohort.side_px), DEMO_MPP)


def is_drawn(cohort: DemoCohort, out: Path) -> bool:
    """Check whether a folder holds this cohort, whole.

    Args:
        cohort: The cohort.
        out: The folder.

    Returns:
        Whether it does.

    Raises:
        ValueError: The folder holds a sheet of other origin.
    """
    sheet, settings = out / "slides.csv", out / "drawn.json"
    if not sheet.exists():
        return False
    if not settings.exists():
        raise ValueError(f"{sheet}: not a sheet that was drawn here; name another folder with --out")
    same = json.loads(settings.read_text(encoding="utf-8")) == asdict(cohort)
    return same and all((out / row.path).exists() for row in list_slides(cohort))


def run(*, out: Path, cohort: DemoCohort, processes: int) -> Path:
    """Draw a cohort into a folder unless it is there; its sheet is written last.

    Args:
        out: The folder.
        cohort: The cohort.
        processes: That draw slides, at most.

    Returns:
        Path of the sheet.

    Raises:
        ValueError: The settings draw no cohort, or the folder holds another sheet.
    """
    _check_side(cohort.side_px)
    if cohort.patients < 1:
        raise ValueError(f"{cohort.patients} patients per class: must be 1 or more")
    sheet = out / "slides.csv"
    if is_drawn(cohort, out):
        sheet.touch()  # make compares dates
        return sheet
    sheet.unlink(missing_ok=True)
    rows = list_slides(cohort)
    # A fork of a process that has used libvips waits for threads that it does not have.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(rows)), mp_context=context) as pool:
        for _ in progress(pool.map(partial(_draw_slide, cohort=cohort, out=out), rows), len(rows), "drawing", "slides"):
            pass
    artifacts.write_text(out / "drawn.json", json.dumps(asdict(cohort), indent=2) + "\n")
    lines = ["slide_id,patient_id,label,path", *(f"{r.slide_id},{r.patient_id},{r.label},{r.path}" for r in rows)]
    artifacts.write_text(sheet, "\n".join(lines) + "\n")
    return sheet
