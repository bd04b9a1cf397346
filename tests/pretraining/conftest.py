"""A tiny cohort of tokens and the settings of a tiny run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from slpd_core import config, store
from slpd_core.pretraining.cohort import Cohort

ROOT = Path(__file__).parents[2]
TINY = {
    "n_prototypes": 2,
    "global_crop": 3,
    "n_local_crops": 3,
    "local_crop": 2,
    "embed_dim": 24,
    "depth": 2,
    "n_heads": 2,
    "hidden_dim": 32,
    "bottleneck_dim": 16,
    "out_dim": 40,
    "epochs": 4,
    "batch_size": 12,
    "warmup_epochs": 1,
}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors are worked on faster by one thread than by several that wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def section() -> config.PretrainRun:
    """The run slpd with tiny networks."""
    values = yaml.safe_load((ROOT / "config.yaml").read_text())
    values["pretrain"] |= TINY
    return config.load(values).pretrain.run("slpd")


@pytest.fixture
def make_cohort():
    """A cohort of slides of the given numbers of regions, tokens of a 4 x 4 grid, (4, 4, 8)."""

    def make(*sizes: int, seed: int = 0) -> Cohort:
        rng = np.random.default_rng(seed)
        tokens = rng.normal(size=(sum(sizes), 4, 4, 8)).astype(np.float16)
        ids = [f"s{number}" for number in range(len(sizes))]
        slide_of = np.repeat(np.arange(len(sizes)), sizes)
        coords = np.stack([np.arange(len(slide_of)) * 4096, slide_of], axis=1)
        return Cohort(
            torch.from_numpy(tokens), slide_of, coords, ids, [f"p{name}" for name in ids], "f", ["x"] * len(ids)
        )

    return make


@pytest.fixture
def on_disk(tmp_path):
    """Write a cohort as the slides chapter leaves it: a ledger and tokens; gives their paths."""

    def write(cohort: Cohort) -> tuple[Path, Path]:
        rows = []
        for slide, slide_id in enumerate(cohort.slide_ids):
            own = cohort.slide_of == slide
            info = store.SlideInfo(slide_id, store.OK, "", 9000, 9000, 0.5, "sheet", "f")
            regions = store.Regions(info, cohort.coords[own], np.ones(own.sum(), np.float32), 4096, 4096, 0.5)
            meta = store.provenance("tokens", 1, {}, slide_id)
            with store.writing_tokens(tmp_path / "tokens" / f"{slide_id}.h5", regions, 4, 8, meta) as written:
                if own.any():
                    written.tokens[:] = cohort.tokens.numpy()[own].reshape(-1, 16, 8)
            status = store.OK if own.any() else store.EMPTY
            row = (
                slide_id,
                cohort.patient_ids[slide],
                "x",
                status,
                "",
                9000,
                9000,
                0.5,
                "sheet",
                1.0,
                "segmented",
                own.sum(),
            )
            rows.append((*row, meta["fingerprint"], ""))
        frame = pd.DataFrame(rows, columns=[*store.TABLES["ledger"]])
        store.write_table(tmp_path / "ledger.parquet", "ledger", frame, store.provenance("ledger", 1, {}))
        return tmp_path / "ledger.parquet", tmp_path / "tokens"

    return write
