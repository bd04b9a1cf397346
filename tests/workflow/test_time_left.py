"""The time that a run has left: weighed by the forecast, corrected by finished jobs, added up as the preflight does."""

import math
import random
from types import SimpleNamespace

import pytest

from slpd_core.runtime import JobProgress
from slpd_core.workflow.time_left import PlannedJob, TimeLeft, count_slots, plan_job


def jobs_of(stage: str, count: int, **fields) -> list[PlannedJob]:
    return [PlannedJob(f"{stage} {i}", (stage,), forecast=stage, **fields) for i in range(count)]


def numbered(*jobs: PlannedJob) -> dict[int, PlannedJob]:
    return dict(enumerate(jobs))


def test_by_the_forecast_alone_it_is_the_sum_of_stages():
    jobs = numbered(*jobs_of("tissue", 5, slots=2), *jobs_of("tokens", 3, slots=2, units=4), *jobs_of("pretrain", 1))
    forecast = {"tissue": 10.0, "tokens": 100.0, "pretrain": 1000.0}
    left = TimeLeft(jobs, forecast)
    assert left.estimate([]) == (5 * 10 / 2 + 3 * 4 * 100 / 2 + 1000, True)
    for number, job in jobs.items():
        left.begin(number)
        left.finish(number, job.units * forecast[job.forecast])
    assert left.estimate([]) == (0, True)


@pytest.mark.parametrize("seed", range(5))
def test_where_the_machine_is_slower_by_a_factor_the_rest_is_too(seed):
    draw = random.Random(seed)
    forecast = {name: draw.uniform(1, 100) for name in "abc"}
    jobs = numbered(*(job for name in "abc" for job in jobs_of(name, 6, units=draw.randint(1, 5))))
    factors = {name: draw.uniform(0.1, 10) for name in "abc"}
    seconds = {i: factors[job.forecast] * job.units * forecast[job.forecast] for i, job in jobs.items()}
    left = TimeLeft(jobs, forecast)
    order = [0, 6, 12, *draw.sample([i for i in jobs if i % 6], 9)]  # one of each stage, and some
    for number in order:
        left.begin(number)
        left.finish(number, seconds[number])
    rest = [number for number in jobs if number not in order]
    assert left.estimate([]) == (pytest.approx(sum(seconds[number] for number in rest)), True)


def test_what_a_running_job_tells_counts_for_it_and_else_its_time_so_far():
    jobs = numbered(*jobs_of("pretrain", 2))
    left = TimeLeft(jobs, {"pretrain": 100.0})
    left.begin(0)
    assert left.estimate([(0, 30.0, None)]) == (70 + 100, True)
    assert left.estimate([(0, 300.0, None)]) == (0 + 100, True), "late, but it cannot take less than nothing"
    assert left.estimate([(0, 30.0, JobProgress("", "epochs", 1, 4, left_s=25.0))]) == (25 + 100, True)
    left.retry(0)
    assert left.estimate([]) == (200, True)


def test_a_stage_without_a_forecast_is_guessed_until_one_of_its_jobs_has_finished():
    jobs = numbered(*jobs_of("tokens", 2, assumed_s=600.0), *jobs_of("evaluate", 3, assumed_s=3000.0))
    left = TimeLeft(jobs, {})
    assert math.isnan(left.estimate([])[0])
    left.begin(0)
    assert math.isnan(left.estimate([(0, 5.0, None)])[0])
    left.finish(0, 6.0)  # a hundredth of what it asked for
    assert left.estimate([]) == (pytest.approx(6 + 3 * 30), False)
    left.begin(2)
    left.finish(2, 8.0)
    assert left.estimate([]) == (pytest.approx(6 + 2 * 8), True)


def test_a_job_of_seconds_needs_no_forecast():
    jobs = numbered(plan_job("ledger", {}, ["ledger.parquet"]), plan_job("folds", {"task": "label"}, ["folds.parquet"]))
    assert TimeLeft(jobs, {}).estimate([]) == (6, True)


@pytest.mark.parametrize(
    ("rule", "wildcards", "outputs", "name", "line", "units"),
    [
        ("tissue", {"slide": "a.b"}, ["a.b.geojson", "a.b.png"], "tissue a.b", "tissue", 1),
        ("tokens", {"slide": "a"}, ["tokens/a.h5", "encoded/a.h5"], "tokens a", "tokens", 1),
        (
            "tokens_3",
            {},
            [f"{k}/{s}.h5" for k in ("tokens", "encoded") for s in "abc"],
            "tokens a and 2 more",
            "tokens",
            3,
        ),
        (
            *("compared_tokens_12", {"encoder": "uni"}, [f"{k}/{s}.h5" for k in ("tokens", "encoded") for s in "ab"]),
            *("compared_tokens uni a and 1 more", "tokens of uni", 2),
        ),
        ("pretrain", {"region_encoder": "slpd.fold3"}, ["e", "h"], "pretrain slpd.fold3", "pretrain slpd", 1),
        (
            *("evaluate", {"task": "label", "features": "slpd", "classifier": "knn", "fold": "3"}, ["p", "m"]),
            *("evaluate label/slpd/knn/3", "evaluate", 1),
        ),
        (
            *("evaluate_folds", {"task": "label", "features": "slpd", "classifier": "knn"}, ["p"] * 5 + ["m"] * 5),
            *("evaluate label/slpd/knn", "evaluate", 5),
        ),
        ("report", {}, ["index.html"], "report", "", 1),
    ],
)
def test_jobs_are_named_by_their_subject_and_weighed_by_their_slides_and_folds(
    rule, wildcards, outputs, name, line, units
):
    job = plan_job(rule, wildcards, outputs)
    assert (job.name, job.forecast, job.units) == (name, line, units)


def test_as_many_jobs_run_at_a_time_as_cores_nodes_and_gpus_allow():
    limits = {"_cores": 8, "gpu": SimpleNamespace(value=2), "mem_mb": 10, "_nodes": SimpleNamespace(value=None)}
    assert count_slots({"_cores": 1, "gpu": 0, "mem_mb": 5}, limits) == 8
    assert count_slots({"_cores": 3, "gpu": 0}, limits) == 2
    assert count_slots({"_cores": 1, "gpu": 1}, limits) == 2
    assert count_slots({"_cores": 16}, limits) == 1
    assert count_slots({"_cores": 4, "_nodes": 1}, {"_cores": None, "_nodes": 100}) == 100
