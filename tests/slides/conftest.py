"""Planted slides, the settings of the slides chapter, and real scanner files where they are at hand."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from slpd_core import config
from slpd_core.slides.reader import write_slide

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "slides"
GLASS = 244
TISSUE = (200, 120, 170)


@pytest.fixture(scope="session")
def settings() -> config.Config:
    """config.yaml as it stands."""
    return config.load(yaml.safe_load((ROOT / "config.yaml").read_text()))


@pytest.fixture
def planted(tmp_path):
    """Write a slide of glass with rectangles of given colours: {(x, y, width, height): rgb}, level-0 px."""

    def write(size_px: tuple[int, int], rectangles: dict, mpp: float = 0.5, name: str = "planted") -> Path:
        pixels = np.full((size_px[1], size_px[0], 3), GLASS, np.uint8)
        for (x, y, width, height), colour in rectangles.items():
            pixels[y : y + height, x : x + width] = colour
        path = tmp_path / f"{name}.tiff"
        write_slide(path, pixels, mpp)
        return path

    return write


@pytest.fixture(scope="session")
def real():
    """A real scanner file by its name; skips where the files are not at hand."""

    def find(name: str) -> Path:
        if not (REAL / name).exists():
            pytest.skip(f"no real slides at {REAL.parent.name}/{REAL.name}")
        return REAL / name

    return find
