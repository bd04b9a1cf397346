"""Hugging Face: the region encoder of a run as weights, configuration and a model card."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from slpd_core import artifacts, config
from slpd_core.runtime import log

VERSION = 1
ARCHITECTURE = ("token_dim", "embed_dim", "depth", "n_heads", "grid")
PATCHES = ("name", "source", "patch_px", "input_px", "pooling", "mean", "std", "token_dim", "interpolate_offset")
CARD_HEAD = {
    "library_name": "slpd",
    "pipeline_tag": "image-feature-extraction",
    "tags": ["histopathology", "whole-slide-images", "self-supervised-learning", "slpd", "hipt"],
}


def make_config(
    encoder_meta: artifacts.Meta, patch_meta: artifacts.Meta, regions: Mapping[str, Any], **about: str
) -> dict[str, Any]:
    """Make the content of config.json.

    Args:
        encoder_meta: Metadata of the region encoder.
        patch_meta: Metadata of the patch encoder.
        regions: size_px and target_mpp.
        about: Further texts.

    Returns:
        The architecture, the tokens that it takes, and the provenance; of files no more than their names.
    """
    provenance = {key: encoder_meta[key] for key in ("slpd_version", "fingerprint", "ledger")}
    return {
        "model_type": "slpd_region_encoder",
        "architectures": ["RegionEncoder"],
        **{key: int(encoder_meta[key]) for key in ARCHITECTURE},
        "patch_encoder": {key: json.loads(patch_meta[key]) for key in PATCHES if key in patch_meta}
        | {"origin": patch_meta["origin"]},
        "regions": {key: regions[key] for key in ("size_px", "target_mpp")},
        "pretrain": _name_files(json.loads(encoder_meta["section"])),
        "provenance": provenance | about,
    }


def _name_files(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the name of a file in place of its path."""
    named = dict(settings)
    if named.get("init_from"):
        named["init_from"] = PurePath(named["init_from"]).name
    return named


def describe_training(ledger: pd.DataFrame, history: pd.DataFrame) -> dict[str, str]:
    """Describe what an encoder was trained on, and how it ended.

    Args:
        ledger: The `ledger` table.
        history: The `history` table.

    Returns:
        Texts by name, without ids of slides or patients.
    """
    usable = ledger[ledger["status"] == artifacts.OK]
    training = {
        "slides": f"{len(usable):,} of {usable['patient_id'].nunique():,} patients",
        "regions": f"{usable['regions'].sum():,}",
        "tissue": f"{usable['tissue_mm2'].sum():,.0f} mm²",
        "epochs": f"{len(history):,}",
    }
    if len(history):
        last = history.iloc[-1]
        training["loss of the last epoch"] = f"{last['loss']:.4g}"
        if "effective_rank" in history:
            training["effective rank of its embeddings"] = f"{last['effective_rank']:.4g}"
    return training


def render_card(content: Mapping[str, Any], training: Mapping[str, str], remarks: str) -> str:
    """Render the model card.

    Args:
        content: As `make_config` returns; with cohort and encoder in its provenance.
        training: As `describe_training` returns.
        remarks: Sentences on the run, one per line.

    Returns:
        Markdown with a head in YAML.
    """
    environment = Environment(
        loader=PackageLoader("slpd_core.export", "."), undefined=StrictUndefined, keep_trailing_newline=True
    )
    provenance, architecture = content["provenance"], {key: content[key] for key in ARCHITECTURE}
    return environment.get_template("model_card.md.j2").render(
        head=yaml.safe_dump(CARD_HEAD, sort_keys=False),
        encoder=provenance["encoder"],
        cohort=provenance["cohort"],
        slpd_version=provenance["slpd_version"],
        regions=content["regions"],
        architecture=architecture,
        arguments=", ".join(f"{key}={value}" for key, value in architecture.items()),
        patch_encoder=content["patch_encoder"],
        training=training,
        remarks=remarks.splitlines(),
        settings=content["pretrain"],
    )


def run(
    *,
    encoder_path: Path,
    patch_encoder_path: Path,
    ledger_path: Path,
    history_path: Path,
    out_dir: Path,
    cohort: str,
    section: config.RegionsConfig,
) -> None:
    """Write model.safetensors, config.json and README.md of a region encoder.

    Args:
        encoder_path: .../{region_encoder}/encoder.safetensors.
        patch_encoder_path: Of the patch encoder whose tokens it takes.
        ledger_path: Of the slides that it was trained on.
        history_path: Of its training.
        out_dir: The folder.
        cohort: Name of the cohort.
        section: Settings of the regions.

    Raises:
        ValueError: The encoder was trained on slides of another ledger.
    """
    tensors, meta = artifacts.read_weights(encoder_path)
    _, patch_meta = artifacts.read_weights(patch_encoder_path)
    ledger, ledger_meta = artifacts.read_table(ledger_path, "ledger")
    artifacts.check_ledger(encoder_path, meta, ledger_meta["fingerprint"])
    history, _ = artifacts.read_table(history_path, "history")
    about = {"encoder": encoder_path.parent.name, "cohort": cohort}
    content = make_config(meta, patch_meta, section.model_dump(), **about)
    artifacts.write_plain_weights(out_dir / "model.safetensors", {key: np.array(one) for key, one in tensors.items()})
    artifacts.write_plain_json(out_dir / "config.json", content)
    card = render_card(content, describe_training(ledger, history), meta.get("remarks", ""))
    artifacts.write_text(out_dir / "README.md", card)
    log.info("%d tensors of %d numbers", len(tensors), sum(one.size for one in tensors.values()))
