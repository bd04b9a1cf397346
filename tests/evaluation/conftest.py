"""Settings of the evaluation, planted embeddings, and a browser."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from slpd_core import config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def settings() -> config.Config:
    """config.yaml as it stands."""
    return config.load(yaml.safe_load((ROOT / "config.yaml").read_text()))


@pytest.fixture
def make_slides():
    """A table of slides: `per_label` patients a label, each patient's number of slides cycling through `slides`."""

    def make(per_label: int, labels=("x", "y"), slides=(1, 2)) -> pd.DataFrame:
        rows = []
        for label in labels:
            for patient in range(per_label):
                for number in range(slides[patient % len(slides)]):
                    rows.append((f"{label}{patient:02d}-{number}", f"{label}{patient:02d}", label))
        return pd.DataFrame(rows, columns=["slide_id", "patient_id", "label"])

    return make


@pytest.fixture
def plant():
    """Embeddings whose mean carries the label: slide_id → float32 (L, dim), L between 3 and 8."""

    def plant(slides: pd.DataFrame, signal: float, dim: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        direction = {label: rng.normal(size=dim) for label in sorted(slides["label"].unique())}
        return {
            slide: (rng.normal(size=(rng.integers(3, 9), dim)) + signal * direction[label]).astype(np.float32)
            for slide, label in zip(slides["slide_id"], slides["label"], strict=True)
        }

    return plant


# A page of its own looks at the one under test in a frame as wide as a phone or a desk: the page itself runs no script.
LOOK = """<!DOCTYPE html><body><iframe src="%s" width="%d" height="900"></iframe><script>
onload = () => {
  const page = frames[0].document, view = page.documentElement, images = [...page.images];
  images.forEach(image => image.loading = "eager");
  const light = text => text.match(/[0-9]+/g).slice(0, 3).reduce((sum, channel) => sum + Number(channel), 0) / 765;
  const style = frames[0].getComputedStyle(page.body);
  setTimeout(() => document.body.textContent = JSON.stringify({
    images: images.length, broken: images.filter(image => !image.naturalWidth).map(image => image.alt),
    view: view.clientWidth, page: view.scrollWidth,
    headings: [...page.querySelectorAll("h1, h2, h3")].map(heading => Number(heading.tagName[1])),
    ink: light(style.color), paper: light(style.backgroundColor),
  }), 1000);
};
</script></body>"""


@pytest.fixture
def browser(tmp_path) -> Callable[..., dict[str, Any]]:
    """Open a page in Chromium, `width` px wide; gives what it shows there, and what it wrote to the console."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium here")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--enable-logging=stderr"]
    command += ["--disable-background-networking", "--allow-file-access-from-files", "--disable-web-security"]
    command += ["--virtual-time-budget=20000", "--dump-dom"]

    def look(page: Path, width: int, dark: bool = False) -> dict[str, Any]:
        frame = tmp_path / "frame.html"
        frame.write_text(LOOK % (page.as_uri(), width))
        own = [f"--user-data-dir={tmp_path / 'chromium'}", f"--blink-settings=preferredColorScheme={int(not dark)}"]
        done = subprocess.run([*command, *own, frame.as_uri()], capture_output=True, text=True, timeout=120, check=True)
        found = json.loads(re.search("<body>(.*)</body>", done.stdout, re.DOTALL)[1])
        return found | {"console": [line for line in done.stderr.splitlines() if "CONSOLE" in line]}

    return look
