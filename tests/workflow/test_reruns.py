"""The table of docs/reruns.md: what runs again after a change, and that nothing else does."""

import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from slpd_core import artifacts
from slpd_core.wsi import outages

ROOT = Path(__file__).parents[2]
OF_A_SLIDE = {"tissue": 1, "regions": 1, "tokens": 1}
AFTER_THE_LABELS = {"folds": 1, "evaluate": 2, "attention": 1, "heatmaps": 1, "report": 1}
ONCE = {"ledger": 1, "slide_index": 1}
AFTER_THE_LEDGER = ONCE | {"pretrain": 1, "embed": 1, "gallery": 1} | AFTER_THE_LABELS


@pytest.fixture
def cohort(finished_small, tmp_path) -> Path:
    """A copy of the finished cohort with the settings of `small`, to be changed."""
    return shutil.copytree(finished_small, tmp_path / "cohort", copy_function=shutil.copy2)


def test_a_fold_runs_again_alone_and_comes_out_the_same(cohort, small):
    name = "results/tiny/evaluate/label/slpd/vit_wsi/fold1.parquet"
    before = (cohort / name).read_bytes()
    (cohort / name).unlink()
    done = small(cohort, name)
    assert done.returncode == 0, done.stderr
    assert done.jobs == {"evaluate": 1}
    assert (cohort / name).read_bytes() == before
    assert small(cohort, "-n").jobs == {}


@pytest.mark.slow
def test_a_classifier_added_trains_on_every_fold_and_one_taken_out_only_leaves_the_table(cohort, small):
    rows = small.settings["evaluate"]["classifiers"]
    two = {"evaluate": {"classifiers": rows | {"slpd": ["vit_wsi", "logreg"]}}}
    done = small(cohort, overlay=two)
    assert done.returncode == 0, done.stderr
    assert done.jobs == {"evaluate": 2, "report": 1}
    done = small(cohort, overlay={"report": {"pseudonyms": True}})
    assert done.returncode == 0, done.stderr
    assert done.jobs == {"gallery": 1, "heatmaps": 1, "report": 1}  # names of slides are drawn in the first two
    report = cohort / "results" / "tiny" / "report"
    assert len(pd.read_csv(report / "label" / "table.csv")) == 1
    key = pd.read_csv(report / "pseudonyms.csv", dtype=str)
    files = {path.name: path.read_text(errors="replace") for path in report.rglob("*.*")}
    texts = {name: text for name, text in files.items() if name != "pseudonyms.csv" and not name.endswith(".png")}
    assert {"index.html", "slides.html", "run.json", "predictions.csv", "verdicts.csv"} <= {*texts}
    named = [(file, name) for file, text in texts.items() for name in (*key["slide_id"], str(cohort)) if name in text]
    assert named == []
    assert small(cohort, "-n", overlay=two).jobs == {"gallery": 1, "heatmaps": 1, "report": 1}


def test_focus_runs_the_regions_again_where_it_is_to_be_measured(cohort, small):
    assert small(cohort, "-n", overlay={"regions": {"min_focus": None}}).jobs == {}
    jobs = small(cohort, "-n", overlay={"regions": {"min_focus": 0}}).jobs
    assert (jobs["regions"], "tissue" in jobs) == (6, False)


def test_a_runs_settings_leave_the_slides_alone(cohort, small):
    changed = {"pretrain": {"runs": {"dino": False, "slpd": {"base_lr": 1e-3}}}}
    jobs = {"pretrain": 1, "embed": 1, "gallery": 1, "evaluate": 2, "attention": 1, "heatmaps": 1, "report": 1}
    assert small(cohort, "-n", overlay=changed).jobs == jobs


@pytest.mark.parametrize("how", ["newer", "older", "same size, same second", "not read by the last run"])
def test_a_slide_replaced_is_read_again_and_no_other(cohort, small, how):
    slide = cohort / "slides" / "coarse-0.tiff"
    stat = slide.stat()
    if how in ("newer", "older"):
        shutil.copy(cohort / "slides" / "coarse-1.tiff", slide)
    if how == "older":
        os.utime(slide, (1e9, 1e9))
    elif how == "same size, same second":
        os.utime(slide, ns=(stat.st_atime_ns, stat.st_mtime_ns // 10**9 * 10**9 + 5))
    elif how == "not read by the last run":
        mark = outages.name_mark(cohort / "results" / "tiny" / "state", "coarse-0", Path("any"))
        outages.explain(outages.UnreadableSlideError("away"), mark, slide)
    done = small(cohort, "-n")
    assert done.jobs == OF_A_SLIDE | AFTER_THE_LEDGER
    assert set(re.findall(r"wildcards: slide=(.+)", done.stdout)) == {"coarse-0"}


def test_a_slide_added_is_read_and_no_other(cohort, small):
    shutil.copy(cohort / "slides" / "coarse-1.tiff", cohort / "slides" / "coarse-2.tiff")
    with (cohort / "slides.csv").open("a", encoding="utf-8") as sheet:
        sheet.write("coarse-2,coarse-2,coarse,slides/coarse-2.tiff\n")
    done = small(cohort, "-n")
    assert done.jobs == {"sheet": 1, "labels": 1} | OF_A_SLIDE | AFTER_THE_LEDGER
    assert set(re.findall(r"wildcards: slide=(.+)", done.stdout)) == {"coarse-2"}


def test_a_label_corrected_leaves_the_slides_alone(cohort, small):
    sheet = cohort / "slides.csv"
    text = sheet.read_text(encoding="utf-8")
    for wrong, right in (("coarse-0,coarse,", "coarse-0,größer,"), ("fine-0,größer,", "fine-0,coarse,")):
        assert wrong in text
        text = text.replace(wrong, right)
    sheet.write_text(text, encoding="utf-8")
    assert small(cohort, "-n").jobs == {"labels": 1} | AFTER_THE_LABELS


def test_labels_removed_leave_the_slides_and_the_pretraining(cohort, small):
    sheet = cohort / "slides.csv"
    table = pd.read_csv(sheet, dtype=str)
    table.drop(columns="label").to_csv(sheet, index=False)
    done = small(cohort)
    assert done.returncode == 0, done.stderr
    assert done.jobs == {"report": 1}
    assert "no slide has a label, so evaluation waits for labels" in done.stderr
    assert "nothing was evaluated" in (cohort / "results" / "tiny" / "report" / "index.html").read_text()
    assert small(cohort, "-n").jobs == {}
    table.to_csv(sheet, index=False)
    assert small(cohort, "-n").jobs == {"report": 1}


@pytest.fixture
def clinical(cohort) -> pd.DataFrame:
    """Labels of two tasks by patient, beside the slides: a class and a survival."""
    table = pd.DataFrame({"patient_id": pd.read_csv(cohort / "slides.csv", dtype=str)["patient_id"]})
    table = table.assign(kras=["wt", "mut"] * 3, months=[3.0, 9, 4, 8, 5, 7], died=[1, 0] * 3)
    table.to_csv(cohort / "clinical.csv", index=False)
    return table


SURVIVAL = {"kind": "survival", "time": "months", "event": "died"}


def name_tasks(**tasks) -> dict:
    return {"labels": {"path": "clinical.csv", "key": "patient_id", "tasks": tasks}}


def test_what_changes_in_one_task_leaves_the_others(cohort, clinical, small):
    both = name_tasks(kras={}, os=SURVIVAL)
    done = small(cohort, overlay=both)
    assert done.returncode == 0, done.stderr
    assert done.jobs == {"labels": 2, "folds": 2, "evaluate_folds": 2, "attention": 2, "heatmaps": 2, "report": 1}
    page = (cohort / "results" / "tiny" / "report" / "index.html").read_text()
    assert 'id="results-kras"' in page
    assert 'id="results-os"' in page
    one_task = {"labels": 1} | AFTER_THE_LABELS

    clinical.assign(months=[3.0, 9, 4, 8, 5, 6]).to_csv(cohort / "clinical.csv", index=False)
    assert small(cohort, "-n", overlay=both).jobs == one_task
    clinical.assign(note="seen again").rename(columns={"kras": "KRAS status"}).to_csv(
        cohort / "clinical.csv", index=False
    )
    renamed_column = name_tasks(kras={"column": "KRAS status"}, os=SURVIVAL)
    assert small(cohort, "-n", overlay=renamed_column).jobs == {}

    clinical.to_csv(cohort / "clinical.csv", index=False)
    assert small(cohort, "-n", overlay=name_tasks(kras={})).jobs == {"report": 1}
    done = small(cohort, "-n", overlay=name_tasks(kras={"kind": "ordinal", "order": ["wt", "mut"]}, death=SURVIVAL))
    assert done.jobs == {"labels": 2, "folds": 2, "evaluate": 4, "attention": 2, "heatmaps": 2, "report": 1}


def test_an_encoder_that_is_now_trained_here_takes_the_place_of_the_weights_that_are_there(cohort, small):
    trained = yaml.safe_load((ROOT / "tests" / "workflow" / "dino.yaml").read_text())
    del trained["regions"]
    jobs = {"patches": 6, "patch_encoder": 1, "tokens": 6, "slides": 1} | ONCE
    done = small(cohort, "-n", "slides", overlay=trained)
    assert done.jobs == jobs, done.stdout + done.stderr


def test_tokens_deleted_are_not_missed(cohort, small):
    shutil.rmtree(cohort / "results" / "tiny" / "tokens")
    assert small(cohort, "-n").jobs == {}


def test_tokens_made_once_more_outdate_nothing(cohort, small):
    """Not even where they are too large to be compared: the ledger reads a small file of each slide's instead."""
    name, compared = "results/tiny/tokens/coarse-0.h5", 16_000
    assert (cohort / name).stat().st_size > compared
    (cohort / name).unlink()
    done = small(cohort, name)
    assert done.jobs == {"tokens": 1}, done.stderr
    assert small(cohort, "-n", "--max-checksum-file-size", str(compared)).jobs == {}


@pytest.mark.parametrize(
    ("module", "jobs"),
    [
        ("report/report", {"report": 1}),
        ("evaluation/folds", {"folds": 1, "evaluate": 2, "attention": 1, "heatmaps": 1, "report": 1}),
        ("slides/tokens", {"tokens": 6} | AFTER_THE_LEDGER),
        ("slides/slide_index", {"slide_index": 1}),
    ],
)
def test_a_version_raised_runs_its_stage_again_and_those_after_it(cohort, small, tmp_path, module, jobs):
    for name in ("rules", "slpd_core", "workflow_scripts", "profiles", "envs"):
        shutil.copytree(ROOT / name, tmp_path / "project" / name)
    snakefile, _ = (shutil.copy2(ROOT / name, tmp_path / "project") for name in ("Snakefile", "config.yaml"))
    path = tmp_path / "project" / "slpd_core" / f"{module}.py"
    path.write_text(re.sub(r"^VERSION = (\d+)", r"VERSION = 9\1", path.read_text(), flags=re.MULTILINE))
    assert small(cohort, "-n", "--snakefile", snakefile).jobs == jobs


@pytest.mark.slow
def test_results_moved_to_another_machine_are_as_they_were(cohort, small, tmp_path):
    """The slides lie elsewhere there, by another sheet; what is changed there is seen."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(cohort, moved, copy_function=shutil.copy2)
    (moved / "slides").rename(tmp_path / "archive")
    text = (moved / "slides.csv").read_text(encoding="utf-8")
    (moved / "slides.csv").unlink()
    (moved / "here.csv").write_text(text.replace(",slides/", f",{tmp_path / 'archive'}/"), encoding="utf-8")
    here = {"sheet": {"path": "here.csv"}}
    assert small(moved, "-n", overlay=here).jobs == {}
    assert small(moved, "-n", overlay=here | {"report": {"tsne_perplexity": 7}}).jobs == {"report": 1}
    done = small(moved, "--forcerun", "gallery", overlay=here)  # which reads slides
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_cohort_that_shares_slides_takes_their_tokens(cohort, small):
    shared = {"tokens": {"cache_dir": "cache"}}
    assert small(cohort, "-n", overlay=shared).jobs == {}
    names = ("coarse-0", "fine-0")
    targets = [f"results/tiny/tokens/{name}.h5" for name in names]
    (cohort / targets[0]).unlink()
    (cohort / targets[1]).unlink()
    assert small(cohort, *targets, overlay=shared).jobs == {"tokens": 2}
    sheet = (cohort / "slides.csv").read_text(encoding="utf-8")
    (cohort / "second.csv").write_text(sheet.replace("coarse-0,", "c0,").replace("fine-0,", "f0,"), encoding="utf-8")
    second = shared | {"cohort": "second", "sheet": {"path": "second.csv"}}
    done = small(cohort, *(f"results/second/tokens/{name}.h5" for name in ("c0", "f0")), overlay=second)
    assert done.returncode == 0, done.stdout + done.stderr
    logs = {path.stem: path.read_text(encoding="utf-8") for path in cohort.glob("results/second/logs/tokens/*.log")}
    assert {name for name, text in logs.items() if "taken from cache/" in text} == {"c0", "f0"}
    for name, other in zip(names, ("c0", "f0"), strict=True):
        paths = [cohort / "results" / "tiny" / "tokens" / f"{name}.h5"]
        paths.append(cohort / "results" / "second" / "tokens" / f"{other}.h5")
        ours, theirs = map(artifacts.read_tokens, paths)
        assert (ours[0].tokens == theirs[0].tokens).all()
        assert ours[1] == theirs[1]
