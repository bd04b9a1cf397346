"""Crops are offset as the slides of the cohort differ, each by an offset of its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from slpd_core import config
from slpd_core.pretraining.pretrain import select_arguments
from slpd_core.pretraining.slide_offset import SlideOffset, mean_tokens, slide_covariance
from slpd_core.pretraining.stage_two import StageTwo

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def stained(make_cohort):
    """400 slides whose tokens are noise and an offset along one direction, of deviation 3."""
    rng, direction = np.random.default_rng(0), np.eye(8)[2]
    cohort = make_cohort(*(2,) * 400)
    offsets = 3 * rng.standard_normal(400)[cohort.slide_of, None] * direction
    tokens = 0.1 * rng.normal(size=cohort.tokens.shape) + offsets[:, None, None]
    return replace(cohort, tokens=torch.from_numpy(tokens).half())


def test_mean_tokens_are_those_of_the_slides(make_cohort):
    cohort = make_cohort(3, 1, 5)
    expected = [cohort.tokens[cohort.slide_of == slide].double().mean((0, 1, 2)).numpy() for slide in range(3)]
    np.testing.assert_allclose(mean_tokens(cohort), expected, rtol=1e-12)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_offsets_vary_as_the_slides_do(stained, factor):
    views = [torch.zeros(2, 3000, 1, 1, 8), torch.zeros(1, 3000, 1, 1, 8)]
    offset = SlideOffset.estimate(stained, factor, CPU)
    drawn = torch.cat(offset.augment(views, np.arange(3000), 3000, np.random.default_rng(1))).flatten(0, 3).numpy()
    deviation = drawn.std(0)
    assert abs(deviation[2] / (3 * factor) - 1) < 0.1
    assert np.delete(deviation, 2).max() < 0.1 * deviation[2]


def test_an_offset_is_one_per_crop(stained):
    views = [torch.rand(2, 4, 3, 3, 8), torch.rand(5, 4, 2, 2, 8)]
    offset = SlideOffset.estimate(stained, 1.0, CPU)
    shifted = offset.augment(views, np.arange(4), 4, np.random.default_rng(1))
    moved = [(new - old).flatten(2, 3) for new, old in zip(shifted, views, strict=True)]
    for change in moved:
        torch.testing.assert_close(change, change[:, :, :1].expand_as(change), rtol=0, atol=1e-5)
    firsts = torch.cat([change[:, :, 0].flatten(0, 1) for change in moved])
    assert len(np.unique(firsts.numpy().round(4), axis=0)) == 7 * 4


def test_a_share_of_a_batch_gets_the_offsets_of_the_whole(stained):
    views, offset = torch.rand(2, 6, 3, 3, 8), SlideOffset.estimate(stained, 1.0, CPU)
    (whole,) = offset.augment([views], np.arange(6), 6, np.random.default_rng(1))
    rows = np.array([1, 3, 5])
    (share,) = offset.augment([views[:, rows]], rows, 6, np.random.default_rng(1))
    torch.testing.assert_close(share, whole[:, rows], rtol=0, atol=0)


@pytest.mark.parametrize("n", [0, 1])
def test_of_one_slide_nothing_varies(n):
    assert not slide_covariance(np.ones((n, 4))).any()


def test_crops_are_drawn_the_same_with_and_without_offsets(stained, section):
    """The paper's crops, and on top of them the offset; without the setting no bit changes."""
    batches = []
    for factor in (0.0, 1.0):
        arguments = select_arguments(section.model_copy(update={"slide_offset": factor}))
        stage = StageTwo.create(stained, seed=3, **arguments)
        batches.append(next(iter(stage.load(0, stage.shuffle(0), 0))))
    without, offset = batches
    change = (offset.views[0] - without.views[0]).flatten(2, 3)
    assert change.abs().max() > 0.1
    torch.testing.assert_close(change, change[:, :, :1].expand_as(change), rtol=0, atol=1e-5)


def test_the_papers_run_records_no_offset():
    values = yaml.safe_load((ROOT / "config.yaml").read_text())
    values["pretrain"]["runs"]["offset"] = {"slide_offset": 1}
    pretrain = config.load(values).pretrain
    assert "slide_offset" not in pretrain.run("slpd").model_dump()
    assert pretrain.run("offset").model_dump()["slide_offset"] == 1
