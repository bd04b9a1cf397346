"""Settings for what the rules compute, without Snakemake."""

from pathlib import Path

from slpd_core import config
from tests.shipped_config import read_shipped

ROOT = Path(__file__).parents[2]


def load_settings(**sections) -> config.Config:
    """Load config.yaml with two folds and these keys, or keys of its sections."""
    values = read_shipped()
    for section, keys in ({"folds": {"n_folds": 2}} | sections).items():
        values[section] = values[section] | keys if isinstance(keys, dict) else keys
    return config.load(values)
