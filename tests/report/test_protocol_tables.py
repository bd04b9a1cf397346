"""The report's part on evaluate.protocols: which tables it has, in which order, and what it says of other tasks."""

import pandas as pd
import pytest

from slpd_core import artifacts
from slpd_core.endpoints.kinds import Classification, make_endpoint
from tests.report.test_few_shot_results import plant_scores
from tests.report.test_report import META, ROWS, page_of, write_without_figures
from tests.report.test_retrieval_results import plant_queries

X_OR_Y = Classification(("x", "y"))
LEVELS = {"slpd": "region", "patch_tokens": "patch", "mean_token": "region", "mean_color": "color"}
COHORT = {"ledger": META["fingerprint"], "encoder_source": "hipt", "encoder_name": "vit_s"}


def write_few_shot(folder, features, level, remarks="", **metas):
    """Write the `few_shot` table of features of a task called label."""
    path = folder / "few_shot" / "label" / f"{features}.parquet"
    meta = META | COHORT | {"features": features, "level": LEVELS[features], "remarks": remarks} | metas
    artifacts.write_table(path, "few_shot", plant_scores(level, len(features), n_folds=3), meta)
    return path


@pytest.fixture
def make(tmp_path, settings):
    """Write a report with few-shot tables of LEVELS."""

    def make(reference=None, **options):
        levels = dict(zip(LEVELS, (0.8, 0.6, 0.7, 0.5), strict=True))
        remarks = "16 slides per class: <left out>."
        paths = [write_few_shot(tmp_path, name, level, remarks) for name, level in levels.items()]
        return write_without_figures(tmp_path, settings, ROWS, protocols=paths, reference=reference, **options)

    return make


def test_features_stand_in_the_order_of_the_result_table_beside_the_references(make):
    folder = make(reference="patch_tokens/mil")
    table, meta = artifacts.read_table(folder / "label" / "few_shot.parquet", "few_shot_results")
    assert [*dict.fromkeys(table["features"])] == ["mean_color", "patch_tokens", "mean_token", "slpd"]
    assert [*dict.fromkeys(table["pretraining"])] == ["–", "HIPT", "mean token", "slpd"]
    assert meta["reference"] == "patch_tokens"
    assert table.loc[table["features"] == "patch_tokens", "auc_difference"].isna().all()
    pd.testing.assert_frame_equal(pd.read_csv(folder / "label" / "few_shot.csv"), table, check_exact=False)
    text = (folder / "label" / "few_shot.md").read_text()
    assert "AUC less that of patch_tokens (95 % interval) by training slides of each class." in text
    assert (folder / "label" / "few_shot.tex").exists()
    assert (folder / "label" / "few_shot.png").stat().st_size > 1000


def test_the_page_has_a_section_with_table_picture_and_remarks(make):
    page = page_of(make())
    assert "few_shot" in page.ids
    assert "16 slides per class: <left out>." in page.text
    assert page.text.count("16 slides per class") == 1
    assert "#few_shot" in page.references
    assert "Scores by the number of training slides" in page.text
    assert "without classes" not in page.text


def test_a_task_without_classes_is_named(make):
    page = page_of(make(tasks={"label": "y", "tmb": make_endpoint("regression")}))
    assert "tmb: without classes, and therefore without this evaluation" in page.text


def test_without_protocols_the_page_has_no_section(tmp_path, settings):
    assert "few_shot" not in page_of(write_without_figures(tmp_path, settings, ROWS)).ids


def test_a_table_of_another_ledger_is_refused(tmp_path, settings):
    path = write_few_shot(tmp_path, "slpd", 0.8, ledger="other")
    with pytest.raises(ValueError, match="another ledger"):
        write_without_figures(tmp_path, settings, ROWS, protocols=[path])


def test_retrieval_has_a_section_and_tables_of_its_own(tmp_path, settings):
    paths = []
    for features, numbers in {"patch_tokens": (1,), "slpd": (1, 4)}.items():
        path = tmp_path / "retrieval" / "label" / f"{features}.parquet"
        meta = META | COHORT | {"features": features, "level": LEVELS[features], "remarks": ""}
        artifacts.write_table(path, "retrieval", plant_queries(numbers=numbers), meta)
        paths.append(path)
    folder = write_without_figures(tmp_path, settings, ROWS, protocols=[*paths, write_few_shot(tmp_path, "slpd", 0.8)])
    table = pd.read_csv(folder / "label" / "retrieval.csv")
    assert table[["features", "level", "n_prototypes"]].to_numpy().tolist() == [
        *(["patch_tokens", "patch", 1], ["slpd", "region", 1], ["slpd", "region", 4])
    ]
    page = page_of(folder)
    assert {"few_shot", "retrieval"} <= page.ids
    lines = (folder / "label" / "retrieval.md").read_text().splitlines()
    assert lines[0] == "| Features | Pretraining | M | mAP@5 | MV@1 | MV@3 | MV@5 | mAP@5 difference |"
    assert (folder / "label" / "retrieval.parquet").exists()
