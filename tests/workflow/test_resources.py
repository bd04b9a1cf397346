"""What jobs ask for by planted settings, without Snakemake."""

from pathlib import Path
from types import SimpleNamespace as Wildcards

import pandas as pd
import pytest
import yaml

from slpd_core import config
from slpd_core.workflow import forecast, resources
from slpd_core.workflow.encoders import Encoders
from slpd_core.workflow.forecast import training_hours
from slpd_core.workflow.resources import (
    JobResources,
    encoding_threads,
    gpus_by_rule,
    last_attempt,
    per_attempt,
    pretrain_memory,
    resource_limit,
)
from slpd_core.workflow.slides import SlideFiles

ROOT = Path(__file__).parents[2]


@pytest.fixture
def job(tmp_path):
    """A thousand slides, the first of 2 MB, with these settings of the patch encoder."""

    def make(**patch_encoder) -> JobResources:
        values = yaml.safe_load((ROOT / "config.yaml").read_text())
        values["patch_encoder"] |= patch_encoder
        settings = config.load(values)
        (tmp_path / "0.svs").write_bytes(bytes(2_000_000))
        rows = [{"slide_id": str(i), "path": str(tmp_path / f"{i}.svs"), "mpp": float("nan")} for i in range(1000)]
        sheet = pd.DataFrame(rows)
        slides = SlideFiles(settings, sheet, {}, {}, planning=False)
        return JobResources(settings, slides, Encoders(settings, slides.cohort))

    return make


def test_each_attempt_asks_for_so_much_more():
    assert [per_attempt(1500)(Wildcards(), attempt) for attempt in (1, 2, 3)] == [1500, 3000, 4500]
    assert per_attempt(lambda wildcards: wildcards.x + 0.4)(Wildcards(x=10), 2) == 20


def test_an_encoder_per_fold_is_trained_on_less(job):
    whole, fold = (job().pretrain_minutes(Wildcards(region_encoder=name)) for name in ("slpd", "slpd.fold0"))
    assert fold - 60 == pytest.approx(0.9 * (whole - 60))


def test_a_job_that_reads_a_slide_waits_longer_each_time_and_knows_its_last_attempt():
    attempts = range(1, resources.READ_RETRIES + 2)
    assert [resources.wait_before_attempt(Wildcards(), attempt) for attempt in attempts] == [0, 10, 40]
    assert [last_attempt(Wildcards(), attempt) for attempt in attempts] == [0, 0, 1]


def test_a_large_slide_has_more_time(job):
    minutes = job().slide_minutes(3, per_gb=20)
    assert minutes(Wildcards(slide="0")) == pytest.approx(3 + 20 * 0.002)
    assert minutes(Wildcards(slide="1")) == 3  # a file that is not there is told by its job
    with pytest.raises(ValueError, match=r"gone: no such slide in slides\.csv"):
        minutes(Wildcards(slide="gone"))


def test_heavy_weights_need_more_memory(job, tmp_path):
    light = job().encoding_mb(Wildcards(), 1, 1)
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(bytes(1_000_000))
    heavy = job(source="hipt", weights=str(weights)).encoding_mb(Wildcards(), 1, 1)
    assert light == round(3000 + 20 * 4096**2 * 3 / 1e6)
    assert heavy - light == 4


def test_threads_that_read_need_more_memory_and_are_for_gpus(job):
    alone, eight = (job().encoding_mb(Wildcards(), threads, 1) for threads in (1, 8))
    assert eight - alone == pytest.approx(7 * 8 * 4096**2 * 3 / 1e6, abs=1)
    assert job().encoding_mb(Wildcards(), 8, 2) == 2 * eight
    assert [encoding_threads(limits) for limits in ({}, {"gpu": 0, "_cores": 16}, {"gpu": 2})] == [1, 1, 8]


@pytest.mark.parametrize(("cores", "gpus", "threads"), [(16, 1, 8), (16, 4, 4), (4, 1, 4), (2, 4, 1)])
def test_no_gpu_waits_for_the_cores_of_anothers_job(cores, gpus, threads):
    assert encoding_threads({"gpu": gpus, "_cores": cores}) == threads


def test_training_asks_for_time_by_cohort_and_epochs(job):
    assert job().pretrain_minutes(Wildcards(region_encoder="slpd")) == pytest.approx(60 + 1000 * 60 * 100 / 250 / 60)
    assert job().evaluate_minutes(Wildcards(classifier="mil", fold="3")) == pytest.approx(30 + 1000 * 20 / 150)
    assert job().evaluate_minutes(Wildcards(classifier="knn", fold="3")) == pytest.approx(30 + 1000 / 150)
    assert job().evaluate_minutes(Wildcards(classifier="knn")) == pytest.approx(30 + 10 * 1000 / 150), "of all folds"
    trained = job(source="dino")
    assert trained.patch_encoder_minutes(Wildcards()) == pytest.approx(60 + 1000 * 200 * 100 / 300 / 60)
    assert (trained.patch_encoder_threads(Wildcards()), trained.patch_encoder_gpus(Wildcards())) == (8, 1)
    assert job().patch_encoder_minutes(Wildcards()) == 30
    assert (job().patch_encoder_threads(Wildcards()), job().patch_encoder_gpus(Wildcards())) == (1, 0)


def test_hours_grow_with_items_and_epochs_and_shrink_with_speed():
    assert training_hours(3600, 2, 1) == 2
    assert training_hours(7200, 2, 4) == 1


def test_limits_of_the_command_line_are_read_as_numbers():
    limits = {"gpu": Wildcards(value=4), "_cores": 8, "mem_mb": None}
    assert [resource_limit(limits, name) for name in ("gpu", "_cores", "mem_mb", "turn")] == [4, 8, 0, 0]
    overwritten = {
        "pretrain": {"gpu": Wildcards(value=4)},
        "embed": {"gpu": 1},
        "tokens": {"mem_mb": 5},
        "x": {"gpu": "2*attempt"},
    }
    assert gpus_by_rule(overwritten) == {"pretrain": 4}


def test_pretraining_has_the_memory_of_its_rule_or_of_the_command_line():
    more = {"pretrain": {"mem_mb": Wildcards(value=64_000)}}
    assert pretrain_memory({}, {}) == forecast.PRETRAIN_MB
    assert pretrain_memory(more, {}) == 64_000
    assert pretrain_memory(more, {"mem_mb": 14_000}) == pretrain_memory({}, {"mem_mb": 14_000}) == 14_000
