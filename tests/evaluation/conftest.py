"""Settings of the evaluation and planted embeddings."""

from pathlib import Path

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
