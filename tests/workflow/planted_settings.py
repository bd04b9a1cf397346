"""Settings for what the rules compute, without Snakemake."""

from pathlib import Path

import yaml

from slpd_core import config

ROOT = Path(__file__).parents[2]


def load_settings(**sections) -> config.Config:
    """Load config.yaml with two folds and these keys of its sections."""
    values = yaml.safe_load((ROOT / "config.yaml").read_text())
    for section, keys in ({"folds": {"n_folds": 2}} | sections).items():
        values[section] |= keys
    return config.load(values)
