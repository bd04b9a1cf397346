"""The recipe of a few steps, and small networks on vectors of 8 numbers."""

import pytest
from torch import nn

from slpd_core.ssl.head import ProjectionHead
from slpd_core.ssl.schedules import Recipe
from slpd_core.ssl.student_teacher import Network, StudentTeacher


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """The paper's recipe, for 4 epochs of small batches."""
    return Recipe(epochs=4, batch_size=12, warmup_epochs=1)


@pytest.fixture(scope="session")
def start():
    """Student and teacher with an encoder of one layer, 8 to `width` numbers."""

    def start(seed: int, width: int = 24) -> StudentTeacher:
        def build(drop_path: float) -> Network:
            return Network(nn.Linear(8, width), ProjectionHead(width, 32, 16, 40))

        return StudentTeacher.create(build, ("self",), seed)

    return start
