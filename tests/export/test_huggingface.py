"""A region encoder for the Hugging Face hub is the run's own, and its card tells what it was trained on."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

import slpd_core as slpd
from slpd_core import artifacts, config
from slpd_core.encoders.region_encoder import RegionEncoder, read_region_encoder, write_region_encoder
from slpd_core.export import huggingface

HPARAMS = {"token_dim": 8, "embed_dim": 12, "depth": 2, "n_heads": 2, "grid": 3}
PATCH = {"name": "test_vit", "source": "hipt", "patch_px": 64, "input_px": 64, "pooling": "cls", "token_dim": 8}
PATCH |= {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolate_offset": 0.1}


@pytest.fixture
def written(tmp_path):
    """Write an encoder with what it was made from, and export it; returns the folder and the encoder's file."""

    def write(to: str = "export", epochs: int = 2, ledger: str = "l"):
        torch.manual_seed(0)
        settings = {"epochs": epochs, "init_from": "/home/someone/vit4k_xs_dino.pth", "alpha_inter": 1.0}
        meta = artifacts.provenance("pretrain", 1, settings) | {
            "ledger": ledger,
            "remarks": "L_inter reaches all.\nYes.",
        }
        encoder = tmp_path / "pretrain" / "slpd" / "encoder.safetensors"
        write_region_encoder(encoder, RegionEncoder(**HPARAMS), meta)
        patch = {key: json.dumps(value) for key, value in PATCH.items()} | {"origin": "vit256.pth"}
        patch |= artifacts.provenance("patch_encoder", 1, {})
        artifacts.write_weights(tmp_path / "patch.safetensors", {"x": np.zeros(1, np.float32)}, patch)
        rows = [
            ("secret-1", "p", "ok", 30, 10.0),
            ("secret-2", "p", "ok", 12, 5.0),
            ("bad", "q", "quarantined", 0, 0.0),
        ]
        columns = ["slide_id", "patient_id", "status", "regions", "tissue_mm2"]
        ledger_table = pd.DataFrame(rows, columns=columns).reindex(columns=artifacts.TABLES["ledger"])
        artifacts.write_table(tmp_path / "ledger.parquet", "ledger", ledger_table, {"fingerprint": "l"})
        history = pd.DataFrame(
            {"epoch": range(epochs), "loss": [3.0, 2.5][:epochs], "effective_rank": [4.0, 5.25][:epochs]}
        )
        artifacts.write_table(tmp_path / "history.parquet", "history", history, {})
        huggingface.run(
            encoder_path=encoder,
            patch_encoder_path=tmp_path / "patch.safetensors",
            ledger_path=tmp_path / "ledger.parquet",
            history_path=tmp_path / "history.parquet",
            out_dir=tmp_path / to,
            cohort="demo",
            section=config.default_config().regions,
        )
        return tmp_path / to, encoder

    return write


def test_the_weights_are_the_runs_and_make_the_same_embeddings(written):
    folder, path = written()
    state, (original, _) = load_file(folder / "model.safetensors"), read_region_encoder(path)
    assert {name: tensor.shape for name, tensor in state.items()} == {
        name: tensor.shape for name, tensor in original.state_dict().items()
    }
    architecture = {key: json.loads((folder / "config.json").read_text())[key] for key in HPARAMS}
    assert architecture == HPARAMS
    encoder = slpd.build_region_encoder(folder / "model.safetensors", device="cpu", **architecture)
    tokens = np.random.default_rng(0).normal(size=(3, 16, 8)).astype(np.float16)
    np.testing.assert_array_equal(slpd.embed(tokens, encoder), slpd.embed(tokens, original))


def test_the_code_of_the_card_runs(written, monkeypatch):
    folder, _ = written()
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    names = {"tokens": np.zeros((2, 9, 8), np.float16)}
    exec(compile(code, "README.md", "exec"), names)
    assert names["embeddings"].shape == (2, 12)


def test_the_card_tells_what_it_was_trained_on_and_no_ids_or_paths(written):
    folder, _ = written()
    text = (folder / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head) == huggingface.CARD_HEAD
    for line in (
        "| slides | 2 of 1 patients |",
        "| regions | 42 |",
        "| tissue | 15 mm² |",
        "| loss of the last epoch | 2.5 |",
        "| effective rank of its embeddings | 5.25 |",
        "| origin | vit256.pth |",
        "| `alpha_inter` | 1.0 |",
        "| `init_from` | vit4k_xs_dino.pth |",
        "L_inter reaches all.",
    ):
        assert line in body.splitlines(), line
    everything = text + (folder / "config.json").read_text()
    assert not re.search("secret|someone|None of|{{|}}", everything)
    assert json.loads((folder / "config.json").read_text())["provenance"]["cohort"] == "demo"


def test_tables_of_the_card_are_whole(written):
    """A blank line ends each table, and none stands inside."""
    lines = (written()[0] / "README.md").read_text().splitlines()
    for before, line, after in zip(lines, lines[1:], lines[2:], strict=False):
        if not line:
            assert not (before.startswith("|") and after.startswith("|") and not after.startswith("| setting")), before


def test_an_encoder_that_was_not_trained_has_a_card(written):
    text = (written(epochs=0)[0] / "README.md").read_text()
    assert "| epochs | 0 |" in text
    assert "It was not trained: it has the weights that its run began with" in text
    assert "loss of the last epoch" not in text


def test_two_exports_have_equal_bytes(written):
    (one, _), (two, _) = written("one"), written("two")
    names = sorted(path.name for path in one.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    assert [(one / name).read_bytes() for name in names] == [(two / name).read_bytes() for name in names]


def test_an_encoder_of_another_cohort_is_refused(written):
    with pytest.raises(ValueError, match=r"encoder\.safetensors: was made from another ledger"):
        written(ledger="theirs")
