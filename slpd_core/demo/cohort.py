"""The demo's cohort: which slides there are, and drawing them into a folder."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from slpd_core import artifacts
from slpd_core.demo.layout import LABELS
from slpd_core.demo.picture import draw_slide
from slpd_core.demo.shapes import SHRINK
from slpd_core.runtime import generator, progress
from slpd_core.wsi.writer import write_slide

VERSION = 1
MPP = 0.5
SMALLEST_PX = 512


@dataclass(frozen=True)
class Cohort:
    """What is drawn: the same settings give the same slides.

    patients: of each class; every fourth has two slides. side_px: width and height of a slide.
    """

    seed: int
    patients: int
    side_px: int
    version: int = VERSION


@dataclass(frozen=True)
class Row:
    """A row of the sheet: slide `number` of a patient of a class."""

    label: str
    patient: int
    number: int

    @property
    def patient_id(self) -> str:
        """Unique in the cohort."""
        return f"{self.label}-{self.patient:02d}"

    @property
    def slide_id(self) -> str:
        """Unique in the cohort."""
        return f"{self.patient_id}-{self.number}"

    @property
    def path(self) -> str:
        """Where the slide lies, seen from the sheet."""
        return f"slides/{self.slide_id}.tiff"


def list_slides(cohort: Cohort) -> list[Row]:
    """The rows of the sheet: for each class its patients, each with a slide or two."""
    return [
        Row(label, patient, number)
        for label in LABELS
        for patient in range(1, cohort.patients + 1)
        for number in range(1, 3 if patient % 4 == 1 else 2)
    ]


def draw_demo_slide(path: str | Path, *, label: str = LABELS[0], side_px: int = 4608, seed: int = 1) -> None:
    """Draw a slide as those of the demo cohort, and write it.

    Args:
        path: Of the pyramidal TIFF to write, at 0.5 um/px.
        label: One of the demo's two classes, which differ in their tissue.
        side_px: Width and height of level 0, a multiple of 4.
        seed: The same seed and class draw the same slide.

    Raises:
        ValueError: There is no such class, or the side is too small or no multiple.
    """
    if label not in LABELS:
        raise ValueError(f"label: no class {label!r} in the demo; give one of {', '.join(LABELS)}")
    check_side(side_px)
    contents, dyes = generator(seed, "demo", label), generator(seed, "stain", label)
    write_slide(Path(path), draw_slide(contents, dyes, label, side_px), MPP)


def check_side(side_px: int) -> None:
    """Raise ValueError where slides of that side cannot be drawn."""
    if side_px % SHRINK or side_px < SMALLEST_PX:
        raise ValueError(f"side of {side_px} px: must be a multiple of {SHRINK}, {SMALLEST_PX} or more")


def draw_row(row: Row, cohort: Cohort, out: Path) -> None:
    """Draw and write one slide; it depends on the cohort's seed and size and on its own name only."""
    contents, dyes = generator(cohort.seed, "demo", row.slide_id), generator(cohort.seed, "stain", row.slide_id)
    write_slide(out / row.path, draw_slide(contents, dyes, row.label, cohort.side_px), MPP)


def is_drawn(cohort: Cohort, out: Path) -> bool:
    """Whether the folder holds this very cohort, whole.

    Raises ValueError when it holds a sheet of other origin.
    """
    sheet, settings = out / "slides.csv", out / "drawn.json"
    if not sheet.exists():
        return False
    if not settings.exists():
        raise ValueError(f"{sheet}: not a sheet that was drawn here; name another folder with --out")
    same = json.loads(settings.read_text(encoding="utf-8")) == asdict(cohort)
    return same and all((out / row.path).exists() for row in list_slides(cohort))


def run(*, out: Path, cohort: Cohort, processes: int) -> Path:
    """Draw the cohort into a folder unless it is there, the sheet last: where there is a sheet the cohort is whole.

    Gives the path of the sheet. Raises ValueError when the slides are too small or the folder holds another sheet.
    """
    check_side(cohort.side_px)
    if cohort.patients < 1:
        raise ValueError(f"{cohort.patients} patients a class: must be 1 or more")
    sheet = out / "slides.csv"
    if is_drawn(cohort, out):
        sheet.touch()  # so that make sees that it has been looked after
        return sheet
    sheet.unlink(missing_ok=True)
    rows = list_slides(cohort)
    # A forked copy of a process in which libvips has worked waits for threads it does not have.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(rows)), mp_context=context) as pool:
        for _ in progress(pool.map(partial(draw_row, cohort=cohort, out=out), rows), len(rows), "drawing", "slides"):
            pass
    artifacts.write_text(out / "drawn.json", json.dumps(asdict(cohort), indent=2) + "\n")
    lines = ["slide_id,patient_id,label,path", *(f"{r.slide_id},{r.patient_id},{r.label},{r.path}" for r in rows)]
    artifacts.write_text(sheet, "\n".join(lines) + "\n")
    return sheet
