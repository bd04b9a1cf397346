"""The whole workflow on a tiny cohort: from slides to tables, cached, resumable, and clear about what is wrong."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from slpd_core import artifacts, config
from slpd_core.artifacts.paths import CohortPaths, PathPattern
from slpd_core.encoders.region_encoder import RegionEncoder
from slpd_core.pretraining import embed
from slpd_core.slides import ledger
from tests.fixtures.region_encoder import save_published
from tests.workflow.artifact_page import find_gaps, pattern, read_page

ROOT = Path(__file__).parents[2]


def test_slides_become_a_table(finished):
    folder, _ = finished
    report = folder / "results" / "tiny" / "report"
    table = pd.read_csv(report / "label" / "table.csv")
    assert len(table) == 6  # a classifier on colors, one on patches, two on each of two runs
    of_task = ("table.md", "table.tex", "predictions.csv", "roc.png", "predictions.png", "knn.png")
    names = (
        "index.html",
        "methods.md",
        "methods.bib",
        "training.png",
        "tsne.png",
        *(f"label/{name}" for name in of_task),
    )
    assert all((report / name).stat().st_size for name in names)
    assert [path.name for path in report.with_name("gallery").iterdir()] == ["slpd.png"]
    drawn = sorted(path.relative_to(report.parent).as_posix() for path in report.with_name("heatmaps").rglob("*.*"))
    assert drawn == ["heatmaps/label/dino/vit_wsi.jpg", "heatmaps/label/slpd/vit_wsi.jpg"]


def test_a_run_says_how_far_it_is_and_what_it_came_to(finished):
    folder, printed = finished
    lines = printed.splitlines()
    jobs = int(re.search(r"^total +(\d+)$", printed, re.MULTILINE)[1]) - 1  # `all` is none
    assert any(line.endswith(f" 0 of {jobs} jobs, time left not known yet") for line in lines)
    assert re.fullmatch(rf"{jobs} of {jobs} jobs done in \d+ (s|min|min \d+ s)\.", lines[-2])
    row = pd.read_csv(folder / "results" / "tiny" / "report" / "label" / "table.csv").iloc[-1]
    assert (row["row"], row["reference"]) == ("slpd/vit_wsi", "slpd/vit_wsi")
    page, used = "Report: results/tiny/report/index.html", "4 of 6 slides used"
    numbers = [f"{row[f'auc_{end}']:.2f}".removeprefix("0") for end in ("mean", "low", "high")]
    assert row["auc_low"] <= 0.5 <= row["auc_high"]
    score = "slpd/vit_wsi AUC {} [{}, {}] (no better than chance)".format(*numbers)
    assert lines[-1] == " · ".join([page, used, score])
    record = json.loads((folder / page.removeprefix("Report: ")).with_name("run.json").read_text())
    assert "snakemake_main.py --cores 2" in record["command"]
    assert record["changed_settings"]["pretrain.n_prototypes"] == {"here": 2, "paper": 4}
    assert not {key for key in record["changed_settings"] if key.startswith("tokens.")}
    assert not re.search(r"Finished jobid|Execute \d+ jobs|^rule |steps \(", printed, re.MULTILINE)


def test_every_stage_left_its_artifact(finished):
    folder, _ = finished
    results = folder / "results" / "tiny"
    tokens, meta = artifacts.read_tokens(results / "tokens" / "fine-1.h5")
    regions, _ = artifacts.read_regions(results / "regions" / "fine-1.h5")
    assert tokens.tokens.shape == (len(regions.coords), 16, 64)
    assert len(regions.coords) == 12
    assert meta["stage"] == "tokens"
    embed, _ = artifacts.read_table(results / "embed" / "slpd.parquet", "embed")
    assert len(embed) == 4 * 12
    assert embed["embedding"].iloc[0].shape == (24,)
    assert not list(results.rglob("*.part"))
    assert not (results / "compared").exists()


def test_a_torn_slide_is_quarantined_and_a_blank_one_flows_through(finished):
    folder, output = finished
    ledger, _ = artifacts.read_table(folder / "results" / "tiny" / "ledger" / "ledger.parquet", "ledger")
    status = ledger.set_index("slide_id")["status"]
    assert status["torn"] == artifacts.QUARANTINED
    assert status["blank"] == artifacts.EMPTY
    assert (status.drop(["torn", "blank"]) == artifacts.OK).all()
    assert re.search(r"\[ledger\].*torn", output), output
    folds, _ = artifacts.read_table(folder / "results" / "tiny" / "folds" / "label" / "folds.parquet", "folds")
    assert not {"torn", "blank"} & set(folds["slide_id"])
    assert "torn" in (folder / "results" / "tiny" / "report" / "index.html").read_text()


def test_the_notebook_explores_the_results(finished, run_notebook):
    results = finished[0] / "results" / "tiny"
    printed = run_notebook("explore_results.ipynb", results, '"../results/demo"', repr(str(results)))
    assert re.search(r"^ok +4$", printed, re.MULTILINE)
    assert "figures: 3" in printed


def test_a_second_run_does_nothing(finished, snakemake):
    assert snakemake(finished[0], "-n").jobs == {}


@pytest.mark.parametrize(
    ("overlay", "jobs"),
    [
        ({"report": {"tsne_perplexity": 7}}, {"report": 1}),
        ({"evaluate": {"epochs": 3}}, {"evaluate": 12, "attention": 2, "heatmaps": 2, "report": 1}),
        (
            {"pretrain": {"runs": {"dino": {"base_lr": 1e-3}}}},
            {"pretrain": 1, "embed": 1, "evaluate": 4, "attention": 1, "heatmaps": 1, "report": 1},
        ),
        (
            {"embed": {"batch_size": 8}},
            {"embed": 2, "gallery": 1, "evaluate": 8, "attention": 2, "heatmaps": 2, "report": 1},
        ),
        ({"folds": {"val_fraction": 0.3}}, {"folds": 1, "evaluate": 12, "attention": 2, "heatmaps": 2, "report": 1}),
        (
            {"tokens": {"batch_size": 4}},
            {
                "tokens": 6,
                "ledger": 1,
                "slide_index": 1,
                "pretrain": 2,
                "embed": 2,
                "gallery": 1,
                "folds": 1,
                "evaluate": 12,
                "attention": 2,
                "heatmaps": 2,
                "report": 1,
            },
        ),
        ({"patch_encoder": {"compared": {"plain": {}}}}, None),
    ],
    ids=["report", "evaluate", "run", "embed", "folds", "tokens", "other without a row"],
)
def test_a_setting_reruns_its_stage_and_those_after_it(finished, snakemake, overlay, jobs):
    done = snakemake(finished[0], "-n", overlay=overlay)
    assert done.jobs == (jobs or {})


def test_a_new_slide_adds_its_own_jobs_only(copied, snakemake):
    shutil.copy2(copied / "slides" / "fine-1.tiff", copied / "slides" / "fine-9.tiff")
    with (copied / "slides.csv").open("a") as sheet:
        sheet.write("fine-9,fine-9,größer,slides/fine-9.tiff\n")
    jobs = snakemake(copied, "-n").jobs
    assert {name: jobs[name] for name in ("tissue", "regions", "tokens", "ledger", "sheet")} == {
        "tissue": 1,
        "regions": 1,
        "tokens": 1,
        "ledger": 1,
        "sheet": 1,
    }


def test_a_mask_of_ones_own_reruns_its_slide_only(finished, snakemake, tmp_path):
    area = {"type": "Polygon", "coordinates": [[[64, 64], [600, 64], [600, 600], [64, 600], [64, 64]]]}
    masks = tmp_path / "masks {1}"  # Snakemake takes braces for wildcards
    masks.mkdir()
    (masks / "fine-1.GeoJSON").write_text(json.dumps({"type": "Feature", "geometry": area, "properties": {}}))
    jobs = snakemake(finished[0], "-n", overlay={"tissue": {"masks_dir": str(masks)}}).jobs
    assert (jobs["tissue"], jobs["regions"], jobs["tokens"], jobs["ledger"]) == (1, 1, 1, 1)


def test_another_encoder_has_its_rows_and_its_settings_touch_nothing_else(widened, snakemake):
    folder, overlay, done = widened
    jobs = {"compared_patch_encoder": 1, "compared_tokens": 6, "compared_ledger": 1, "report": 1}
    assert (jobs | {"evaluate_folds": 3}).items() <= done.jobs.items()
    results = folder / "results" / "tiny"
    table = pd.read_csv(results / "report" / "label" / "table.csv")
    rows = table.loc[table["classifier"] == "DS-MIL", ["features", "pretraining"]].to_numpy().tolist()
    assert rows[:3] == [["color", "–"], ["patch", "none (random)"], ["patch", "plain (random)"]]
    for fold in (0, 1):  # the same weights under another name
        rows = [results / "evaluate" / "label" / name / "dsmil" for name in ("patch_tokens", "plain")]
        paths = [row / f"fold{fold}.parquet" for row in rows]
        pd.testing.assert_frame_equal(*(artifacts.read_table(path, "evaluate")[0] for path in paths))
    assert snakemake(folder, "-n", overlay=overlay).jobs == {}
    changed = overlay | {"patch_encoder": {"compared": {"plain": {"mean": [0.4, 0.4, 0.4]}}}}
    assert snakemake(folder, "-n", overlay=changed).jobs == jobs | {"evaluate": 4, "few_shot": 1, "retrieval": 1}
    assert snakemake(folder, "-n").jobs == {"report": 1}


def test_protocols_are_of_all_features_and_no_setting_of_theirs_is_recorded_without_them(widened, snakemake):
    folder, overlay, done = widened
    results = folder / "results" / "tiny"
    table = pd.read_csv(results / "report" / "label" / "few_shot.csv")
    assert done.jobs["few_shot"] == done.jobs["retrieval"] == table["features"].nunique() == 6
    retrieved = pd.read_csv(results / "report" / "label" / "retrieval.csv")
    assert retrieved.loc[retrieved["features"] == "slpd", "n_prototypes"].tolist() == [1, 2]
    evaluate = {key: value for key, value in overlay["evaluate"].items() if key != "protocols"}
    assert snakemake(folder, "-n", overlay=overlay | {"evaluate": evaluate}).jobs == {"report": 1}


def test_slides_similar_to_those_of_the_sheets_are_found_and_other_queries_run_the_search_alone(widened, snakemake):
    folder, overlay, _ = widened
    results = folder / "results" / "tiny"
    index, _ = artifacts.read_arrays(results / "search" / "slpd" / "index.h5", ("slides", "prototypes"))
    of_run, _ = artifacts.read_arrays(results / "pretrain" / "slpd" / "prototypes.h5", ("slides", "prototypes"))
    assert index["slides"].tolist() == of_run["slides"].tolist()
    np.testing.assert_allclose(index["prototypes"], of_run["prototypes"], atol=1e-5)
    table = pd.read_csv(results / "search" / "slpd" / "similar_slides.csv")
    assert table["query"].tolist() == ["fine-0"] * 2 + ["new"] * 2
    assert "fine-0" not in table["slide_id"][:2].tolist()
    assert table["slide_id"][2] == "fine-0"  # but for a byte behind its end
    assert not table["same_patient"].any()
    page = (results / "search" / "slpd" / "similar_slides.html").read_text()
    assert len(re.findall('<img src="data:image/jpeg;base64,[^"]+" alt="Region of', page)) == 2 * (2 + 2 * 2 * 2)
    other = overlay | {"search": {"slides": ["fine-1"], "k": 2}}
    assert snakemake(folder, "-n", "search", overlay=other).jobs == {"search_slides": 1, "search": 1}
    unknown = snakemake(folder, "-n", overlay=overlay | {"search": {"slides": ["coarse-O"]}})
    assert "'coarse-O' is no slide of the cohort and no file; did you mean coarse-0" in unknown.stdout + unknown.stderr
    assert snakemake(folder, "-n", "search", overlay=overlay).jobs == {}


def test_an_external_label_corrected_runs_its_scores_and_the_report(widened, snakemake):
    folder, overlay, _ = widened
    results, sheet = folder / "results" / "tiny", folder / "rome.csv"
    table, _ = artifacts.read_table(results / "predict" / "rome" / "label" / "table.parquet", "external_results")
    assert (table["slides"] == 2).all()
    assert table["auc"].isin([0, 0.5, 1]).all()  # of one pair of slides
    assert '<h3 id="external-rome-label">rome</h3>' in (results / "report" / "index.html").read_text()
    text = sheet.read_text(encoding="utf-8")
    sheet.write_text(text.replace("größer", "coarse"), encoding="utf-8")
    try:
        plans = [snakemake(folder, "-n", *target, overlay=overlay).jobs for target in ([], ["predict"])]
    finally:
        sheet.write_text(text, encoding="utf-8")
    scores = {"external_labels": 1, "external": 1}
    assert plans == [scores | {"report": 1}, scores | {"predict": 1}]


@pytest.fixture
def rare(finished, tmp_path) -> Path:
    """Artifacts with what few have: attention, focus, and outlines of no slide."""
    made, results = finished[0] / "results" / "tiny", tmp_path / "results" / "rare"
    slides = artifacts.read_table(made / "sheet" / "slides.parquet")[0]["slide_id"]
    for slide in slides:
        regions, meta = artifacts.read_regions(made / "encoded" / f"{slide}.h5")
        measured = replace(regions, focus=np.ones(len(regions.coords), np.float32))
        artifacts.write_regions(results / "encoded" / f"{slide}.h5", measured, meta)
    ledger.run(
        sheet_path=made / "sheet" / "slides.parquet",
        tissue_paths=[made / "tissue" / f"{slide}.geojson" for slide in slides],
        encoded_paths=[results / "encoded" / f"{slide}.h5" for slide in slides],
        out_path=results / "ledger" / "ledger.parquet",
        section=config.LedgerConfig(on_bad_slide="quarantine"),
        unmatched=["notes.txt"],
    )
    embed.run(
        ledger_path=made / "ledger" / "ledger.parquet",
        cohort_ledger_path=made / "ledger" / "ledger.parquet",
        tokens_dir=made / "tokens",
        encoder_path=made / "pretrain" / "slpd" / "encoder.safetensors",
        out_path=results / "embed" / "slpd.parquet",
        section=config.EmbedConfig(batch_size="auto", attention=True),
        device="cpu",
    )
    return results


def test_the_page_of_artifacts_says_what_is_in_them(widened, own_encoder, rare):
    folders = [widened[0] / "results" / "tiny", own_encoder[0] / "results" / "tiny", own_encoder[1], rare]
    unmade = [
        "patch_encoder/checkpoint.pt",
        "pretrain/{run}/checkpoint.pt",
        "preflight/forecast.json",
        "predict/{external}/compared/{encoder}/ledger.parquet",
        "report/pseudonyms.csv",
        "state/{slide}.{mark}.unread",
        "export/slides/{slide}.json",
        "export/{format}/exported.csv",
        "export/h5ad/{run}.h5ad",
        "export/huggingface/{run}/{file}",
    ]
    assert find_gaps(folders, unmade) == []


def test_the_page_of_artifacts_names_every_path():
    """Those of CohortPaths with any names in them; folders are no artifacts."""
    members = {name: member for name, member in vars(CohortPaths).items() if isinstance(member, PathPattern)}
    files = [member for name, member in members.items() if not name.endswith("_dir")]
    assert len(files) > 20
    names = [pattern(name) for section in read_page().values() for name in section.names]
    for text in [text for member in files for text in (member.pattern, member.compared) if text]:
        format = "html" if text.startswith("tables/") else "md"
        path = re.sub(r"\{\w+\}", "x", text.replace("{format}", format))
        assert any(name.fullmatch(path) for name in names), path


@pytest.mark.slow
def test_an_encoder_a_fold_has_never_seen_the_folds_test_slides(copied, snakemake):
    done = snakemake(copied, overlay={"pretrain": {"runs": {"slpd": {"train_on": "train_fold"}}}})
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = {"pretrain": 2, "embed": 2, "gallery": 1, "evaluate": 4, "attention": 1, "heatmaps": 1, "report": 1}
    assert done.jobs == jobs
    results = copied / "results" / "tiny"
    folds, _ = artifacts.read_table(results / "folds" / "label" / "folds.parquet", "folds")
    for fold, own in folds.groupby("fold"):
        arrays, _ = artifacts.read_arrays(results / "pretrain" / f"slpd.fold{fold}" / "prototypes.h5", ("slides",))
        assert set(arrays["slides"]) == set(own[own["part"] == "train"]["slide_id"])
        embedded, _ = artifacts.read_table(results / "embed" / f"slpd.fold{fold}.parquet", "embed")
        assert set(own[own["part"] == "test"]["slide_id"]) <= set(embedded["slide_id"])
    table = pd.read_csv(results / "report" / "label" / "table.csv")
    assert (table["pretraining"] == "slpd").sum() == 2
    page = (results / "report" / "index.html").read_text()
    assert "Region encoders of dino were pretrained, without labels, on the regions of all 4 slides" in page
    assert "The region encoders of slpd were pretrained a fold, on its training slides alone" in page


@pytest.mark.slow
def test_external_slides_are_predicted_by_the_finished_cohort(finished, snakemake, tmp_path):
    """Of two cohorts: a sheet and a folder of slides."""
    folder, _ = finished
    for cohort, name in (("rome", "coarse-0"), ("rome", "blank"), ("rome", "torn"), ("oslo", "fine-0")):
        (tmp_path / cohort).mkdir(exist_ok=True)
        shutil.copy(folder / "slides" / f"{name}.tiff", tmp_path / cohort / f"new-{name}.tiff")
    sheet = tmp_path / "rome.csv"
    sheet.write_text("slide_id,path\n" + "".join(f"{path.stem},{path}\n" for path in (tmp_path / "rome").iterdir()))
    command = ("predict", "--config", f"predict={{sheet: {{rome: {sheet}, oslo: {tmp_path / 'oslo'}}}}}")
    plan = snakemake(folder, "--dry-run", *command).jobs
    assert plan == {
        "external_sheet": 2,
        "tissue": 4,
        "regions": 4,
        "tokens": 4,
        "external_ledger": 2,
        "external_embed": 4,
        "predict_external": 2,
        "predict_index": 2,
        "predict": 1,
    }
    one = "results/tiny/predict/oslo/label/predictions.csv"
    assert snakemake(folder, "--dry-run", one, *command[1:]).jobs["external_sheet"] == 1
    done = snakemake(folder, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "new-torn is quarantined" in done.stderr
    results = folder / "results" / "tiny"
    table = pd.read_csv(results / "predict" / "rome" / "label" / "predictions.csv")
    assert table["slide_id"].value_counts().to_dict() == {
        "new-coarse-0": 4, "new-blank": 1, "new-torn": 1  # 2 classifiers on each of two runs
    }  # fmt: skip
    remarks = table.groupby("slide_id")["remarks"].first()
    assert remarks["new-coarse-0"].startswith("It is coarse-0 of the cohort, byte for byte, on which classifiers are")
    table = pd.read_csv(folder / one)
    assert {*table["slide_id"]} == {"new-fine-0"}
    line = table.query("features == 'slpd' and classifier == 'vit_wsi'").iloc[0]
    tested, _ = artifacts.read_table(results / "evaluate" / "label" / "slpd" / "vit_wsi" / "fold0.parquet", "evaluate")
    other, _ = artifacts.read_table(results / "evaluate" / "label" / "slpd" / "vit_wsi" / "fold1.parquet", "evaluate")
    own = pd.concat([tested, other]).set_index("slide_id").loc["fine-0", "p_größer"]  # of the fold that tests it
    assert (
        abs(line["p_größer"] - own) <= line["sd_größer"] * 2**-0.5 + 2e-6
    )  # two folds: each is that far from their mean
    heatmaps = (results / "predict").glob("*/label/heatmaps/slpd/vit_wsi/*.jpg")
    assert sorted(path.name for path in heatmaps) == ["new-coarse-0.jpg", "new-fine-0.jpg"]
    page = (results / "predict" / "rome" / "index.html").read_text(encoding="utf-8")
    assert all(f'data-value="new-{name}"' in page for name in ("coarse-0", "blank", "torn"))
    assert snakemake(folder, *command).jobs == {}
    assert snakemake(folder).jobs == {}
    nothing = snakemake(folder, "--dry-run", "predict")
    assert "predict.sheet: no slides to predict" in nothing.stderr + nothing.stdout


@pytest.mark.slow
def test_a_search_for_files_takes_them_through_the_stages_of_external_slides(copied, snakemake, tmp_path):
    """One is a slide of the cohort by its path, one a copy of such a slide, one is torn."""
    new = tmp_path / "new"
    new.mkdir()
    for name, source in (("copy", "coarse-0"), ("ripped", "torn")):
        shutil.copy(copied / "slides" / f"{source}.tiff", new / f"{name}.tiff")
    slides = f"[slides/fine-1.tiff, {new / 'copy.tiff'}, {new / 'ripped.tiff'}]"
    command = ("search", "--config", f"search={{slides: {slides}, k: 3}}")
    per_slide = dict.fromkeys(("tissue", "regions", "tokens"), 2)
    once = ("external_sheet", "external_ledger", "external_embed", "search_index", "search_slides", "search")
    assert snakemake(copied, "-n", *command).jobs == per_slide | dict.fromkeys(once, 1)
    done = snakemake(copied, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ripped is quarantined" in done.stderr
    table = pd.read_csv(copied / "results" / "tiny" / "search" / "slpd" / "similar_slides.csv")
    assert table["query"].tolist() == ["fine-1"] * 3 + ["copy"] * 3
    first = table.iloc[3]
    assert (first["slide_id"], first["same_patient"]) == ("coarse-0", True)
    assert first["similarity"] > 0.999
    assert snakemake(copied, *command).jobs == snakemake(copied, "-n").jobs == {}
    alone = snakemake(copied, "search", "--config", f"search={{slides: [{new / 'ripped.tiff'}]}}")
    assert alone.returncode == 0, alone.stdout + alone.stderr


@pytest.mark.slow
def test_rows_of_this_and_another_cohort_join_in_a_table(finished, snakemake):
    folder, _ = finished
    rows = {"Ours": "slpd/vit_wsi", "Neighbours": "slpd/knn"}
    overlay = {"report": {"tables": {"ours": {"cohorts": ["tiny", "other"], "rows": rows}}}}
    results = folder / "results"
    own = pd.read_csv(results / "tiny" / "report" / "label" / "table.csv").set_index("row")
    other = results / "other" / "report" / "label" / "table.parquet"
    _, meta = artifacts.read_table(results / "tiny" / "report" / "label" / "table.parquet", "results")
    artifacts.write_table(other, "results", own.assign(auc_mean=0.25).reset_index(), meta)
    done = snakemake(folder, "tables", overlay=overlay)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.jobs == {"tables": 1}
    table = pd.read_csv(results / "tiny" / "tables" / "ours.csv").set_index(["cohort", "label"])["auc_mean"]
    assert table["tiny", "Ours"] == own["auc_mean"]["slpd/vit_wsi"]
    assert table["other"].to_dict() == {"Ours": 0.25, "Neighbours": 0.25}
    assert snakemake(folder, "-n", "tables", overlay=overlay).jobs == {}
    shutil.rmtree(results / "other")
    missing = snakemake(folder, "tables", overlay=overlay)
    assert "other: no results yet" in (results / "tiny" / "tables" / "ours.md").read_text(), missing.stderr
    nothing = snakemake(folder, "-n", "tables")
    assert "report.tables: none is named" in nothing.stdout + nothing.stderr


def test_the_preflight_looks_and_leaves_its_log_and_forecast_alone(finished, snakemake):
    def dates() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in finished[0].glob("results/**/*") if path.is_file()}

    before = dates()
    done = snakemake(finished[0], "preflight")
    assert done.returncode == 0, done.stderr
    assert "Ready." in done.stdout
    assert "torn.tiff: " in done.stdout
    assert {path.name for path, date in dates().items() if date != before.get(path)} == {
        "preflight.log",
        "forecast.json",
    }
    assert snakemake(finished[0], "-n").jobs == {}


def test_a_preflight_that_finds_something_fails(finished, snakemake):
    done = snakemake(finished[0], "preflight", overlay={"ledger": {"on_bad_slide": "stop"}})
    assert done.returncode == 1
    assert "1 check(s) failed" in done.stderr


def test_snakemakes_own_report_shows_the_figures_with_captions(finished, snakemake):
    folder, _ = finished
    done = snakemake(folder, "--report", "snakemake.html")
    assert done.returncode == 0, done.stdout + done.stderr
    page = (folder / "snakemake.html").read_text()
    results, categories, about = (
        json.loads(re.search(rf'<script id="{part}">\s*var \w+ = (.+?);\n', page)[1])
        for part in ("results", "categories", "workflow-desc")
    )
    results = {path.removeprefix("results/tiny/"): result for path, result in results.items()}
    of_task = [f"report/label/{name}" for name in ("roc.png", "predictions.png", "knn.png", "table.csv")]
    figures = ["report/training.png", "report/tsne.png"]
    drawn = ["gallery/slpd.png", "heatmaps/label/dino/vit_wsi.jpg", "heatmaps/label/slpd/vit_wsi.jpg"]
    assert sorted(results) == sorted(["report/index.html", *of_task, *figures, *drawn])
    assert set(categories) == {"Results", "Pretraining", "Attention"}
    assert all(re.fullmatch(r"<p>.+</p>\s*", result["caption"], re.DOTALL) for result in results.values())
    assert "<em>vit_wsi</em> on regions of\n<em>slpd</em>" in results["heatmaps/label/slpd/vit_wsi.jpg"]["caption"]
    assert "cohort <em>tiny</em>" in about
    assert not re.findall(r"<(?:script|link|img)[^>]*https?:", page)


def test_lint_is_clean(finished, snakemake):
    done = snakemake(finished[0], "--lint")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def cohort(tmp_path, write_cohort):
    write_cohort(tmp_path, patients=2)
    return tmp_path


def asked_for(snakemake, folder: Path, attempt: int) -> dict[tuple[str, str], dict[str, int]]:
    """The memory in MB and the minutes that each job would ask for: (rule, its wildcards) -> {"mem_mb": ..., ...}."""
    output = snakemake(folder, "-n", "--attempt", str(attempt)).stdout
    asked = {}
    for rule, said in re.findall(r"^rule (\w+):\n((?:    .*\n)+)", output, re.MULTILINE):
        wildcards = re.search(r"wildcards: (.*)", said)
        found = {name: int(value) for name, value in re.findall(r"\b(mem_mb|runtime)=(\d+)", said)}
        asked[rule, wildcards[1] if wildcards else ""] = found
    return asked


def test_a_second_attempt_asks_for_twice_the_memory_and_time_and_a_large_slide_for_more_time(cohort, snakemake):
    os.truncate(cohort / "slides" / "fine-1.tiff", 2 * 10**9)
    first, second = (asked_for(snakemake, cohort, attempt) for attempt in (1, 2))
    own = {
        job for job in first if job[0] not in ("all", "sheet", "ledger", "labels", "folds")
    }  # of those a profile says it
    assert {rule for rule, _ in own} >= {"tissue", "regions", "tokens", "pretrain", "embed", "evaluate_folds", "report"}
    for job in own:
        assert first[job].keys() == {"mem_mb", "runtime"}, job
        assert second[job] == {name: 2 * value for name, value in first[job].items()}, job
    assert first["tokens", "slide=fine-0"]["runtime"] == 10
    assert first["tokens", "slide=fine-1"]["runtime"] == 50


def refused(snakemake, folder: Path, *words: str, overlay: dict | None = None) -> None:
    """The workflow stops at once with these words and leaves nothing behind."""
    done = snakemake(folder, overlay=overlay)
    output = done.stdout + done.stderr
    assert done.returncode != 0, output
    assert all(word in output for word in words), output
    assert "Traceback" not in output
    assert not (folder / "results").exists()


def test_a_mistyped_setting_is_refused(cohort, snakemake):
    refused(snakemake, cohort, "tissue.closing: unknown key", overlay={"tissue": {"closing": 1}})


def test_a_missing_sheet_says_how_to_write_one(cohort, snakemake):
    (cohort / "slides.csv").unlink()
    refused(snakemake, cohort, "slides.csv", "slide_id", "make demo")


def test_a_sheet_without_a_column_is_refused(cohort, snakemake):
    sheet = cohort / "slides.csv"
    sheet.write_text(sheet.read_text().replace("patient_id", "patient", 1))
    refused(snakemake, cohort, "patient_id")


def test_columns_of_other_names_are_read_and_a_new_name_reruns_nothing(cohort, snakemake):
    sheet, made = cohort / "slides.csv", ("results/tiny/sheet/slides.parquet", "results/tiny/labels/label.parquet")
    sheet.write_text(sheet.read_text().replace("label", "diagnosis", 1))
    waiting = snakemake(cohort, made[0])
    assert waiting.returncode == 0, waiting.stdout + waiting.stderr
    assert "no slide has a label, so evaluation waits for labels: column diagnosis may hold it: set " in waiting.stderr
    overlay = {"sheet": {"path": "slides.csv", "columns": {"label": "diagnosis"}}}
    done = snakemake(cohort, *made, overlay=overlay)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.jobs == {"labels": 1}
    sheet.write_text(sheet.read_text().replace("diagnosis", "label", 1))
    assert snakemake(cohort, *made).jobs == {}


def test_a_missing_slide_is_refused(cohort, snakemake):
    (cohort / "slides" / "fine-1.tiff").unlink()
    refused(snakemake, cohort, "fine-1", "row 5")


def test_more_folds_than_patients_are_refused(cohort, snakemake):
    refused(snakemake, cohort, "folds.n_folds", "4 patients", overlay={"folds": {"n_folds": 5}})


def test_one_label_only_is_refused(cohort, snakemake):
    sheet = cohort / "slides.csv"
    sheet.write_text(sheet.read_text().replace(",coarse,", ",fine,"))
    refused(snakemake, cohort, "label", "fine")


def test_splits_that_name_no_slide_are_refused(cohort, snakemake):
    (cohort / "splits").mkdir()
    (cohort / "splits" / "splits_0.csv").write_text("train,val,test\ncoarse-0,,FINE-0\nfine-1,,x\x1b[31m\n")
    overlay = {"folds": {"splits_dir": "splits"}}
    refused(
        snakemake, cohort, "splits_0.csv", r"row 3: test 'x\x1b[31m' contains invisible characters", overlay=overlay
    )
    (cohort / "splits" / "splits_0.csv").write_text("train,val,test\ncoarse-0,,FINE-0\nfine-1,,\n")
    hint = "'FINE-0' and the sheet's 'fine-0' differ only in their case"
    refused(snakemake, cohort, "splits_0.csv: no slide is left to test", hint, overlay=overlay)


def test_braces_in_the_paths_of_sheet_splits_and_encoders_are_no_wildcards(cohort, snakemake, tmp_path):
    """Those of outlines and slides neither."""
    folder = tmp_path / "{slide} of {1}"
    shutil.copytree(cohort, folder)
    (folder / "splits").mkdir()
    for fold, slides in enumerate(("fine-0,coarse-0", "fine-1,coarse-1")):
        rows = zip(("fine-1,coarse-1", "fine-0,coarse-0")[fold].split(","), slides.split(","), strict=True)
        text = "train,val,test\n" + "".join(f"{train},,{test}\n" for train, test in rows)
        (folder / "splits" / f"splits_{fold}.csv").write_text(text)
    overlay = {"sheet": {"path": str(folder / "slides.csv")}, "folds": {"splits_dir": str(folder / "splits")}}
    done = snakemake(cohort, "-n", overlay=overlay)
    assert done.jobs["folds"] == 1, done.stdout + done.stderr


def test_a_run_that_the_cohort_is_too_small_for_is_refused(cohort, snakemake):
    overlay = {"pretrain": {"runs": {"slpd": {"n_neighbors": 4}}}}
    refused(snakemake, cohort, "pretrain.runs.slpd.n_neighbors: 4 of 3 other slides; lower it to 3", overlay=overlay)


@pytest.mark.parametrize(
    "target",
    ["evaluate/label/slpdd/knn/fold0.parquet", "evaluate/label/slpd/knn/fold2.parquet", "heatmaps/label/slpd/knn.jpg"],
)
def test_what_the_settings_do_not_name_is_not_made(cohort, snakemake, target):
    done = snakemake(cohort, "-n", f"results/tiny/{target}")
    assert done.returncode != 0
    assert f"No rule to produce results/tiny/{target}" in done.stdout + done.stderr


def test_missing_weights_are_refused(cohort, snakemake):
    overlay = {"patch_encoder": {"source": "hipt", "weights": "gone.safetensors"}}
    refused(snakemake, cohort, "patch_encoder.weights: no file gone.safetensors", "download", overlay=overlay)
    overlay = {"patch_encoder": {"compared": {"uni": overlay["patch_encoder"]}}}
    refused(snakemake, cohort, "patch_encoder.compared.uni.weights: no file gone.safetensors", overlay=overlay)


def test_weights_of_another_architecture_are_refused(cohort, snakemake):
    tensors = {"patch_embed.proj.weight": np.zeros((384, 3, 16, 16), np.float32)}
    artifacts.write_weights(cohort / "w.safetensors", tensors, {})
    own = {"name": "vit_base_patch16_224", "source": "hipt", "weights": "w.safetensors"}
    refused(snakemake, cohort, "w.safetensors has embed_dim 384", "say 768", overlay={"patch_encoder": own})


@pytest.mark.parametrize(
    ("overlay", "what"),
    [
        ({"predict": {"sheet": "new.csv"}}, "predict.sheet.new: FINE-0 are in the cohort's sheet too"),
        ({"predict": {"sheet": "gone.csv"}}, "gone.csv: no such sheet"),
        ({"tissue": {"masks_dir": "masks"}}, "tissue.masks_dir: no slide of a sheet is called other.geojson"),
    ],
    ids=["new slide of the cohort", "no sheet of new slides", "mask of no slide"],
)
def test_texts_that_do_not_fit_are_refused(cohort, snakemake, overlay, what):
    (cohort / "new.csv").write_text("slide_id,path\nFINE-0,slides/fine-1.tiff\n")
    (cohort / "masks").mkdir()
    (cohort / "masks" / "other.geojson").touch()
    refused(snakemake, cohort, what, overlay=overlay)


def test_stop_on_a_bad_slide_stops_before_the_tokens(cohort, snakemake):
    (cohort / "slides" / "fine-1.tiff").write_bytes(b"no slide")
    target = "results/tiny/tokens/fine-1.h5"
    at_once = ("--set-resources", "tissue:wait_s=0")  # its attempts, else 10 and 40 seconds apart
    done = snakemake(cohort, target, *at_once, overlay={"ledger": {"on_bad_slide": "stop"}})
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert re.search(r"\[tissue fine-1\].*fine-1\.tiff: not a whole slide", output), output
    assert not (cohort / "results" / "tiny" / "tissue" / "fine-1.geojson").exists()
    assert not (cohort / target).exists()


def test_a_bad_slide_is_named_at_the_end_and_taken_up_once_it_is_mended(cohort, snakemake):
    slide = cohort / "slides" / "fine-1.tiff"
    whole = slide.read_bytes()
    slide.write_bytes(whole[: len(whole) // 3])
    done = snakemake(cohort, "slides")
    assert done.returncode == 0
    last = [line for line in done.stderr.splitlines() if "fine-1 is quarantined" in line][-1]
    assert re.match(r"fine-1 is quarantined: .*fine-1\.tiff: ", last), last
    slide.write_bytes(whole)
    os.utime(slide, (1, 1))  # as a copy that keeps the date of a file made long ago
    assert snakemake(cohort, "slides", "-n").jobs["tissue"] == 1


DINO = yaml.safe_load((Path(__file__).parent / "dino.yaml").read_text())


@pytest.fixture(scope="session")
def own_encoder(tmp_path_factory, snakemake, write_cohort) -> tuple[Path, Path]:
    """A cohort whose patch encoder was trained on it; its folder, and a copy of one slide's patches."""
    folder = tmp_path_factory.mktemp("own")
    write_cohort(folder, patients=2, with_bad=True)
    encoder, patches = "results/tiny/patch_encoder/weights.safetensors", folder / "results" / "tiny" / "patches"
    done = snakemake(folder, "results/tiny/patches/fine-0.h5", overlay=DINO)
    assert done.returncode == 0, done.stdout + done.stderr
    kept = shutil.copytree(patches, folder / "kept" / "results" / "tiny" / "patches")
    done = snakemake(folder, encoder, overlay=DINO)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, kept.parent


def test_a_patch_encoder_is_trained_on_the_cohorts_own_patches(own_encoder, snakemake):
    cohort, _ = own_encoder
    encoder = "results/tiny/patch_encoder/weights.safetensors"
    folder = cohort / "results" / "tiny"
    assert json.loads(artifacts.read_weights(cohort / encoder)[1]["source"]) == "dino"
    history = pd.read_csv(folder / "patch_encoder" / "history.csv")
    assert history["epoch"].tolist() == [0, 1]
    assert not [*folder.glob("patches/*.h5"), *folder.glob("patch_encoder/checkpoint*")]  # neither is needed any more
    assert snakemake(cohort, encoder, "-n", overlay=DINO).jobs == {}
    recipe = DINO["patch_encoder"]["dino"] | {"stain_jitter": 0.1}
    changed = DINO | {"patch_encoder": DINO["patch_encoder"] | {"dino": recipe}}
    again = snakemake(cohort, encoder, "-n", overlay=changed).jobs
    assert again == {"patches": 6, "patch_encoder": 1}
    assert snakemake(cohort, "-n", encoder, overlay=DINO | {"tokens": {"batch_size": 4}}).jobs == {}


def test_how_an_encoder_would_be_trained_is_nothing_to_one_that_is_not(finished, snakemake):
    overlay = {"patches": DINO["patches"], "patch_encoder": {"dino": DINO["patch_encoder"]["dino"]}}
    assert snakemake(finished[0], "-n", overlay=overlay).jobs == {}


def test_the_slurm_profile_names_rules_that_are_there():
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    blocks = dict(re.findall(r"^(?:rule|use rule \w+ as) (\w+).*:\n((?:    .*\n|\n)*)", text, re.MULTILINE))
    assert yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())["groups"].keys() <= blocks.keys()


ANOTHER_RELEASE = """
import atexit, importlib.metadata, os, sys

real, release = importlib.metadata.version, os.environ["RELEASE"]
importlib.metadata.version = lambda name: release if name == "snakemake" and release else real(name)

@atexit.register
def note():
    module = sys.modules.get("snakemake.sourcecache")
    with open(os.environ["PATCHED"], "a") as file:
        print(hasattr(getattr(module, "parse_uri", None), "cache_info"), file=file)
"""


@pytest.mark.slow
def test_another_release_of_snakemake_plans_without_the_patch(cohort, small, tmp_path, monkeypatch):
    hook, plans = tmp_path / "hook", {}
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(ANOTHER_RELEASE)
    monkeypatch.setenv("PYTHONPATH", str(hook))
    for release, patched in (("", "True"), ("9.99.0", "False")):
        monkeypatch.setenv("RELEASE", release)
        monkeypatch.setenv("PATCHED", str(tmp_path / f"patched{release}"))
        done = small(cohort, "-n")
        assert done.returncode == 0, done.stdout + done.stderr
        assert patched in (tmp_path / f"patched{release}").read_text().split()
        plans[release] = done.jobs
    assert plans[""] == plans["9.99.0"] != {}


NOTE_OPENED = """
import os, sys

def note(event, values):
    opened = event == "open" and str(values[0]).endswith(".dcm")
    if opened or event in ("os.listdir", "os.scandir") and str(values[0]).endswith("masks"):
        with open(os.environ["OPENED"], "a") as file:
            print(os.path.basename(values[0]), file=file)

sys.addaudithook(note)
"""


@pytest.mark.slow
def test_the_process_of_a_job_looks_at_no_other_slide(small, tmp_path, monkeypatch):
    """Snakemake works out a job's parameters there too: of thousands of slides on a share that takes long."""
    rows = ["slide_id,patient_id,label,path"]
    for number in range(4):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / f"{number}.dcm").write_bytes(bytes(128) + b"DICM" + bytes([number]))
        rows.append(f"{number},p{number},{'xy'[number % 2]},{number}/{number}.dcm")
    (tmp_path / "slides.csv").write_text("\n".join(rows))
    (tmp_path / "sitecustomize.py").write_text(NOTE_OPENED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OPENED", str(tmp_path / "opened"))
    done = small(tmp_path, "-n", "--mode", "subprocess", "results/tiny/tissue/2.geojson")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {*(tmp_path / "opened").read_text().split()} == {"2.dcm"}


@pytest.mark.slow
def test_the_folder_of_outlines_is_listed_once_and_by_the_jobs_that_read_one(cohort, small, tmp_path, monkeypatch):
    hook, opened = tmp_path / "hook", tmp_path / "opened"
    masks = tmp_path / "all.masks"  # with a dot: Python looks for packages in the others
    masks.mkdir()
    hook.mkdir()
    (masks / "Fine-0.geojson").touch()
    (hook / "sitecustomize.py").write_text(NOTE_OPENED)
    monkeypatch.setenv("PYTHONPATH", str(hook))
    monkeypatch.setenv("OPENED", str(opened))
    overlay = {"tissue": {"masks_dir": str(masks)}}

    def count_listings(*words):
        opened.write_text("")
        done = small(cohort, "-n", *words, overlay=overlay)
        assert done.returncode == 0, done.stdout + done.stderr
        return opened.read_text().count("masks")

    assert count_listings() == 1
    assert count_listings("--mode", "subprocess", "results/tiny/sheet/slides.parquet") == 0
    assert count_listings("--mode", "subprocess", "results/tiny/tissue/fine-0.geojson") == 1


@pytest.mark.slow
def test_a_published_region_encoder_is_a_row_without_training(copied, snakemake):
    torch.manual_seed(0)
    weights = save_published(RegionEncoder(64, 24, 1, 2, 3), copied / "vit4k_xs_dino.pth")
    runs, rows = {"hipt": {"init_from": str(weights), "epochs": 0}}, {"hipt": ["knn", "vit_wsi"]}
    done = snakemake(copied, overlay={"pretrain": {"runs": runs}, "evaluate": {"classifiers": rows}})
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"pretrain": 1, "embed": 1, "gallery": 1, "report": 1}.items() <= done.jobs.items()
    of_rows = {"evaluate", "evaluate_folds", "attention", "heatmaps"}
    assert done.jobs.keys() - {"pretrain", "embed", "gallery", "report"} <= of_rows
    table = pd.read_csv(copied / "results/tiny/report/label/table.csv")
    assert {"hipt/knn", "hipt/vit_wsi"} <= {*table["row"]}
    page = (copied / "results/tiny/report/index.html").read_text()
    assert "hipt: taken as published" in page
    assert "Nothing was trained: the encoder is that of vit4k_xs_dino.pth as it is." in page
