"""The recipe with small networks, and such networks on vectors of 8 numbers."""

from pathlib import Path

import pytest
import yaml
from torch import nn

from slpd_core import config
from slpd_core.ssl.head import ProjectionHead
from slpd_core.ssl.student_teacher import Network, Networks

ROOT = Path(__file__).parents[2]
SMALL = {"hidden_dim": 32, "bottleneck_dim": 16, "out_dim": 40, "epochs": 4, "batch_size": 12, "warmup_epochs": 1}


@pytest.fixture(scope="session")
def recipe() -> config.SelfDistillationConfig:
    """config.yaml's recipe of stage two, with a small head."""
    values = yaml.safe_load((ROOT / "config.yaml").read_text())["pretrain"] | SMALL
    return config.SelfDistillationConfig(**{key: values[key] for key in config.SelfDistillationConfig.model_fields})


@pytest.fixture(scope="session")
def start():
    """Student and teacher with an encoder of one layer, 8 to `width` numbers."""

    def start(recipe: config.SelfDistillationConfig, seed: int, width: int = 24) -> Networks:
        def build(drop_path: float) -> Network:
            head = ProjectionHead(width, recipe.hidden_dim, recipe.bottleneck_dim, recipe.out_dim)
            return Network(nn.Linear(8, width), head)

        return Networks.start(build, recipe, ("self",), seed, "cpu")

    return start
