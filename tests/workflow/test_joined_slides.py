"""Several slides in one job: chosen once, the same tokens, and nothing encoded twice."""

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from slpd_core import artifacts
from slpd_core.artifacts.paths import CohortPaths
from slpd_core.workflow.joined_slides import JoinedSlides, choose_slides_per_job

SIX = [f"s{i}" for i in range(6)]


def by_user(slides):
    return {"tokens": {"slides_per_job": SimpleNamespace(value=slides)}}


@pytest.mark.parametrize(
    ("n_slides", "overwritten", "limits", "chosen"),
    [
        (20, {}, {"_cores": 2}, 1),
        (1000, {}, {"_cores": 2}, 50),
        (1000, {}, {"_cores": 8}, 15),
        (1000, {}, {"_cores": 64}, 1),
        (1000, {}, {}, 1),  # nothing says how many jobs run at a time
        (1000, {}, {"gpu": 4, "_cores": 64}, 50),
        (100, {}, {"gpu": 8}, 3),
        (1000, {"tokens": {"gpu": SimpleNamespace(value=0)}}, {"gpu": 4, "_cores": 64}, 1),
        (10, by_user(200), {"_cores": 64}, 200),
        (1000, by_user(1), {"gpu": 1}, 1),
        (0, {}, {"gpu": 1}, 1),
        (0, {}, {}, 1),
    ],
)
def test_a_job_takes_slides_as_long_as_no_gpu_and_no_core_idles(n_slides, overwritten, limits, chosen):
    assert choose_slides_per_job(n_slides, overwritten, limits) == chosen


@pytest.fixture
def join(tmp_path):
    """Plan the jobs of slides by the ids of cohort and external ones; `user` sets slides per job."""

    def join(cohort, external=(), user=4, planning=True, compared=()):
        slides = SimpleNamespace(
            cohort=cohort, external={"rome": [*external]}, rows={slide: {} for slide in [*cohort, *external]}
        )
        encoders = SimpleNamespace(settings=SimpleNamespace(patch_encoder=SimpleNamespace(compared=compared)))
        resources = SimpleNamespace(overwrite_resources=by_user(user), overwrite_threads={"tokens": 8})
        workflow = SimpleNamespace(resource_settings=resources, global_resources={}, is_main_process=planning)
        joined = JoinedSlides(CohortPaths(tmp_path), slides, encoders, workflow)
        joined.resources = resources
        return joined

    return join


def slides_of(joined):
    return [list(job.slides) for job in joined.jobs]


def test_slides_are_split_evenly_and_external_ones_apart(join):
    assert slides_of(join(SIX, ["x", "y", "z"])) == [SIX[:3], SIX[3:], ["x", "y", "z"]]
    assert slides_of(join(SIX, user=6)) == [SIX]
    assert slides_of(join(SIX, ["x"], user=1)) == []
    assert slides_of(join([])) == []
    assert slides_of(join(SIX[:5], user=3)) == [SIX[:2], SIX[2:5]]


def test_what_is_recorded_stays(join, tmp_path):
    first = join(SIX)
    assert slides_of(join(SIX, user=2)) != slides_of(first)  # a dry run records nothing
    first.record()
    assert slides_of(join(SIX, user=2)) == slides_of(first)
    assert slides_of(join(SIX, user=2, planning=False)) == slides_of(first)
    more = join(["new", *SIX, "newer"], user=2)
    assert slides_of(more) == [*slides_of(first), ["new", "newer"]]
    more.record()
    fewer = join([*SIX[:2], "newer"])
    assert [(job.rule, *job.slides) for job in fewer.jobs] == [("tokens_0", *SIX[:2]), ("tokens_2", "newer")]


def test_slides_that_have_tokens_keep_their_jobs(join, tmp_path):
    (tmp_path / "tokens").mkdir()
    for slide in SIX[:4]:
        (tmp_path / "tokens" / f"{slide}.h5").touch()
    assert slides_of(join(SIX)) == [SIX[4:]]


def test_what_the_user_sets_for_a_slide_holds_for_several(join):
    joined = join(SIX, user=6, compared=("hipt",))
    assert [job.rule for job in joined.jobs] == ["tokens_0", "compared_tokens_0"]
    assert joined.resources.overwrite_resources["tokens_0"] == joined.resources.overwrite_resources["tokens"]
    assert joined.resources.overwrite_threads == {"tokens": 8, "tokens_0": 8}
    job = joined.jobs[1]
    assert job.files(CohortPaths(job.paths.root).tokens)[0].endswith("compared/{encoder}/tokens/s0.h5")


JOINED = ("--set-resources", "tokens:slides_per_job=3", "--until", "ledger", "compared_ledger")


COMPARED = {"patch_encoder": {"compared": {"plain": {}}}, "evaluate": {"classifiers": {"plain": ["dsmil"]}}}


def test_slides_of_one_job_come_out_as_those_of_a_job_each(copied, snakemake, results_of):
    """Two jobs of three slides, a torn and a blank one among them, encode what six do; then only what is new."""
    results = copied / "results" / "tiny"
    alone = {name: content for name, content in results_of(copied).items() if name.startswith(("tokens/", "encoded/"))}
    assert len(alone) == 12
    shutil.rmtree(results / "tokens")
    shutil.rmtree(results / "encoded")
    done = snakemake(copied, *JOINED, overlay=COMPARED)
    assert done.returncode == 0, done.stdout + done.stderr
    rules = {"tokens_0", "tokens_1", "compared_tokens_0", "compared_tokens_1"}
    assert {name: count for name, count in done.jobs.items() if "tokens" in name} == dict.fromkeys(rules, 1)
    joined = results_of(copied)
    assert [name for name, content in alone.items() if joined[name] != content] == []
    for path in (results / "tokens").glob("*.h5"):  # the compared encoder is the cohort's own
        own, compared = (artifacts.read_tokens(each) for each in (path, results / "compared/plain/tokens" / path.name))
        np.testing.assert_array_equal(own[0].tokens, compared[0].tokens)

    assert snakemake(copied, "-n", "--until", "ledger", "compared_ledger", overlay=COMPARED).jobs == {}
    slide = copied / "slides" / "fine-0.tiff"
    slide.write_bytes(slide.read_bytes() + b"\0")
    done = snakemake(copied, *JOINED, overlay=COMPARED)
    assert done.returncode == 0, done.stdout + done.stderr
    logs = [path.read_text() for path in (results / "logs").rglob("tokens/joined/*.log")]
    assert len(logs) == 4
    reused = sorted(name for log in logs for name in re.findall(r"(\S+): encoded by an earlier job", log))
    assert reused == ["coarse-0", "coarse-0", "größe-1", "größe-1"]
