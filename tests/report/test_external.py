"""External validation from tables to table, figures and the page's values."""

import json

import numpy as np
import pandas as pd
import pytest

from slpd_core import artifacts
from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.evaluation import classifiers
from slpd_core.evaluation.training import Bags
from slpd_core.report import external, external_audit, external_table
from slpd_core.report.result_rows import ResultRow
from tests.report.test_report import write_without_figures

ENDPOINT = make_endpoint("classification", ["x", "y"])
ENCODER = {"encoder_source": "random", "encoder_name": "vit", "encoder_normalization": ""}
MODELS = (("patch_tokens", "knn"), ("slpd", "vit_wsi"))
N = 40


def ledger(path, slides, patients=None, contents=None, status=None) -> str:
    """Write a ledger; returns its fingerprint."""
    frame = pd.DataFrame("", range(len(slides)), [*artifacts.TABLES["ledger"]])
    frame = frame.assign(slide_id=slides, patient_id=patients or slides, slide_fingerprint=contents or slides)
    meta = artifacts.provenance("ledger", 1, {}, path.name)
    artifacts.write_table(path, "ledger", frame.assign(status=status or artifacts.OK), meta)
    return meta["fingerprint"]


class Planted:
    """A cohort of slides c00.. and an external one of slides e00..; y if the number is odd."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.slides = [f"e{i:02}" for i in range(N)]
        self.labels = pd.Series(np.where(np.arange(N) % 2, "y", "x"), self.slides)
        self.contents, self.status = [*self.slides], artifacts.OK
        self.p = (self.labels == "y").astype(float).to_numpy() * 0.8 + 0.1  # separable

    def run(self, n_resamples: int = 100, **options):
        """Run the stage; returns its table and metadata."""
        folder, of_cohort = self.folder, [f"c{i:02}" for i in range(10)]
        cohort = ledger(folder / "cohort.parquet", of_cohort)
        own = ledger(folder / "ledger.parquet", self.slides, contents=self.contents, status=self.status)
        paths, rows = [], []
        for features, classifier in MODELS:
            level = "patch" if features == "patch_tokens" else "region"
            for fold in (0, 1):
                tested = pd.DataFrame({"slide_id": of_cohort[fold::2]})
                tested = tested.assign(fold=fold, patient_id=tested["slide_id"], label=["x", "x", "x", "y", "y"])
                tested = tested.assign(p_y=[0.1, 0.2, 0.3, 0.6, 0.7]).assign(p_x=lambda t: 1 - t["p_y"])
                meta = artifacts.provenance("evaluate", 1, {}, features, str(fold)) | ENCODER | {"ledger": cohort}
                meta |= {"features": features, "classifier": classifier, "level": level}
                paths.append(folder / features / f"fold{fold}.parquet")
                artifacts.write_table(paths[-1], "evaluate", tested, meta | ENDPOINT.meta | {"bags": "slide"})
                frame = pd.DataFrame({"slide_id": self.slides, "p_x": 1 - self.p, "p_y": self.p})
                rows.append(frame.assign(features=features, classifier=classifier, fold=fold))
        meta = artifacts.provenance("predict", 1, {}) | {"ledger": own}
        artifacts.write_table(folder / "folds.parquet", "external", pd.concat(rows), meta)
        labels = pd.DataFrame({"slide_id": self.labels.index, "patient_id": self.labels.index, "label": self.labels})
        meta = artifacts.provenance("labels", 1, {})
        artifacts.write_table(folder / "labels.parquet", "labels", labels.reset_index(drop=True), meta)
        arguments = {
            "external": "rome",
            "task": "label",
            "labels_path": folder / "labels.parquet",
            "predictions_path": folder / "folds.parquet",
            "ledger_path": folder / "ledger.parquet",
            "cohort_ledger_path": folder / "cohort.parquet",
            "evaluate_paths": paths,
            "out_dir": folder / "out",
            "figures_dir": folder / "out" / "figures",
            "runs": ["slpd"],
            "reference": None,
            "seed": 1,
            "n_resamples": n_resamples,
        }
        external.run(**arguments | options)
        return artifacts.read_table(folder / "out" / "table.parquet", "external_results")


@pytest.fixture
def planted(tmp_path) -> Planted:
    return Planted(tmp_path)


def test_separable_slides_are_told_apart_by_every_row(planted):
    table, meta = planted.run()
    assert table["row"].tolist() == ["patch_tokens/knn", "slpd/vit_wsi"]
    assert (table["auc"] == 1).all()
    assert (table["patient_accuracy"] == 1).all()
    assert (table["slides"] == N).all()
    assert (table["threshold"] == 0.6).all()  # of the cohort: its highest that calls every y
    assert (table[["sensitivity", "specificity", "ppv", "npv"]] == 1).all(axis=None)
    assert (table["sensitivity_low"] < 0.9).all()  # of 20 patients, however right
    assert meta["truth"] == f"{N // 2} x, {N // 2} y"
    assert json.loads(meta["remarks"]) == []
    assert {path.name for path in (planted.folder / "out" / "figures").iterdir()} == {
        "roc.png",
        "predictions.png",
        "decision.png",
    }


def test_shuffled_labels_are_told_at_chance(planted):
    planted.labels[:] = np.random.default_rng(2).permutation(planted.labels)
    table, _ = planted.run(n_resamples=300)
    assert (table["auc_low"] < 0.5).all()
    assert (table["auc_high"] > 0.5).all()


def test_a_patients_slides_that_are_one_bag_are_scored_by_patient(planted):
    table, meta = planted.run()
    tables = external_table.format_external_tables(table, ENDPOINT, bags="patient")
    assert [*tables[0].columns[:3]] == ["Accuracy", "95 % interval", "AUC"]
    assert len(tables) == 2  # and the threshold
    assert meta["bags"] == "slide"


def test_the_truth_stands_beside_the_mean_prediction(planted):
    planted.run()
    lines = pd.read_csv(planted.folder / "out" / "labeled_predictions.csv")
    assert len(lines) == 2 * N
    of_row = lines[lines["features"] == "slpd"].set_index("slide_id")
    assert (of_row["label"] == planted.labels).all()
    np.testing.assert_allclose(of_row["p_y"], planted.p)


def test_tables_are_printed_with_the_threshold_of_the_cohort(planted):
    planted.run()
    text = (planted.folder / "out" / "table.md").read_text()
    assert "| Threshold | Sensitivity | 95 % interval |" in text
    assert ".600 | 1.000 |" in text
    assert "by patient" not in text  # each slide is a patient
    assert r"\begin{tabular}" in (planted.folder / "out" / "table.tex").read_text()


def test_a_label_that_no_classifier_knows_is_left_out_and_named(planted):
    planted.labels[["e00", "e02"]] = ["z", "Y"]
    table, meta = planted.run()
    assert (table["slides"] == N - 2).all()
    assert json.loads(meta["remarks"]) == [
        "2 labeled slides (e00, e02) have a label that no classifier knows ('Y', 'z'); they are not scored",
        "label 'Y' is 'y' of the cohort but for case or spaces; write it alike",
    ]


def test_slides_of_the_cohort_and_slides_without_regions_test_nothing(planted):
    planted.contents[4] = "c03"
    planted.status = [artifacts.EMPTY, *[artifacts.OK] * (N - 1)]
    table, meta = planted.run()
    assert (table["slides"] == N - 2).all()
    empty, leaked = json.loads(meta["remarks"])
    assert empty.startswith("1 labeled slide (e00) has no usable regions")
    assert leaked.startswith("1 labeled slide (e04) has the bytes of a slide of the cohort")


def test_patients_of_the_cohort_are_remarked_on(planted):
    labels = pd.DataFrame({"slide_id": ["a", "b"], "patient_id": ["p", "q"], "label": ["x", "y"]})
    own = pd.DataFrame({"slide_id": ["a", "b"], "slide_fingerprint": ["1", "2"], "status": artifacts.OK})
    cohort = pd.DataFrame({"slide_fingerprint": ["", "3"], "patient_id": ["q", "r"]})
    two = make_endpoint("classification", ["x", "y"])
    scored, remarks = external_audit.select_scored(labels, own, cohort, two)
    assert len(scored) == 2
    assert remarks[0].startswith("1 patient ids are in the cohort too: q; if they are the same people")


def test_a_slide_of_the_cohort_spoils_the_bag_of_its_patient(planted):
    labels = pd.DataFrame({"slide_id": [*"abcd"], "patient_id": [*"ppqr"], "label": [*"xxyy"]})
    own = labels.assign(slide_fingerprint=[*"1234"], status=artifacts.OK)
    cohort = pd.DataFrame({"slide_fingerprint": ["1"], "patient_id": ["z"]})
    two = make_endpoint("classification", ["x", "y"])
    scored, _ = external_audit.select_scored(labels, own, cohort, two)
    assert scored["slide_id"].tolist() == ["b", "c", "d"]
    scored, remarks = external_audit.select_scored(labels, own, cohort, two, bags="patient")
    assert scored["slide_id"].tolist() == ["c", "d"]
    assert remarks[0].startswith("2 labeled slides (a, b) have the bytes of a slide of the cohort")
    divided = labels.assign(patient_id=[*"ppqq"], label=[*"xxyx"])
    scored, remarks = external_audit.select_scored(
        divided, own, cohort.assign(slide_fingerprint="9"), two, bags="patient"
    )
    assert scored["slide_id"].tolist() == ["a", "b"]
    assert remarks[0].startswith(
        "2 labeled slides (c, d) have a patient whose slides differ in the truth, but are one bag"
    )


def test_a_cohort_of_one_class_has_no_auc_and_says_so(planted):
    planted.labels[:] = "x"
    table, meta = planted.run()
    assert table["auc"].isna().all()
    assert json.loads(meta["remarks"]) == ["no slide is y: scores that compare classes are undefined"]
    assert (table["accuracy"] == 0.5).all()
    assert table["sensitivity"].isna().all()
    assert (table["specificity"] == 0.5).all()


def test_nothing_to_score_is_a_table_without_scores(planted):
    planted.labels[:] = "z"
    table, _ = planted.run()
    assert (table["slides"] == 0).all()
    assert table["accuracy"].isna().all()
    assert not any((planted.folder / "out" / "figures").iterdir())


def test_a_table_of_another_ledger_is_refused(planted):
    planted.run()
    other = planted.folder / "other.parquet"
    ledger(other, planted.slides, contents=["other"] * N)
    with pytest.raises(ValueError, match="ledger"):
        planted.run(ledger_path=other)


def test_three_classes_have_no_threshold_and_a_decision_curve_each():
    three = make_endpoint("classification", ["a", "b", "c"])
    assert not external_table.is_binary(three)
    assert not external_table.is_binary(make_endpoint("ordinal", ["a", "b"]))


def test_the_page_names_cohort_task_and_figures(planted):
    planted.run()
    (described,), pngs, metas = external.describe_external([planted.folder / "out" / "table.parquet"])
    assert (described["external"], described["task"], described["slides"]) == ("rome", "label", N)
    assert [*pngs] == [f"predict/rome/label/figures/{name}" for name in ("decision", "predictions", "roc")]
    assert described["figures"]["roc"] == "predict/rome/label/figures/roc"
    assert [*metas] == ["predict/rome/label/table"]


def test_the_page_has_a_section_on_external_cohorts_only_if_there_are_any(planted, tmp_path, settings):
    planted.labels[["e00", "e02"]] = "<z>"
    planted.run()
    table = planted.folder / "out" / "table.parquet"
    rows = {("slpd", "vit_wsi"): 3.0}
    page = (write_without_figures(tmp_path / "with", settings, rows, external=[table]) / "index.html").read_text()
    assert '<a href="#external">External</a>' in page
    assert '<h3 id="external-rome-label">rome</h3>' in page
    assert f"{N - 2} slides of {N - 2} patients are scored ({N // 2 - 2} x, {N // 2} y), of {N} slides" in page
    assert "2 labeled slides (e00, e02) have a label that no classifier knows (&#39;&lt;z&gt;&#39;)" in page
    (described,), *_ = external.describe_external([table], with_remarks=False)
    assert described["remarks"] == ["Remarks on its slides are not shown"]
    assert "calls a slide y from the threshold on" in page
    assert "Decision curves" in page
    plain = (write_without_figures(tmp_path / "without", settings, rows) / "index.html").read_text()
    assert "external" not in plain.lower()


@pytest.mark.parametrize(("kind", "names"), [("regression", ["predictions"]), ("survival", ["kaplan_meier"])])
def test_other_endpoints_have_figures_of_their_own(kind, names):
    endpoint, rng = make_endpoint(kind), np.random.default_rng(0)
    ids = [f"s{i:02}" for i in range(30)]
    table = pd.DataFrame({"slide_id": ids, "patient_id": ids, "fold": 0, "label": "all", "event": True})
    table = table.assign(value=rng.normal(size=30), time=rng.random(30) + 0.1).assign(risk=lambda t: -t["time"] + 0.5)
    table = table.assign(prediction=table["value"] + 0.1)
    row = ResultRow("slpd", "region", "mil", ("random", "vit"), endpoint, table, table, table)
    pngs = external.draw_external([(row, table)], endpoint, None, ["slpd"])
    assert [*pngs] == names
    assert all(png.startswith(b"\x89PNG") for png in pngs.values())
    assert external.draw_external([(row, table[:0])], endpoint, None, ["slpd"]) == {}


@pytest.mark.parametrize(("shift", "low", "high"), [(4.0, 1.0, 1.0), (0.0, 0.2, 0.8)])
def test_planted_embeddings_are_scored_by_what_is_in_them(planted, shift, low, high):
    """Slides of y lie apart from those of x, or not, in both cohorts: a classifier of the one tells the other."""
    rng, endpoint = np.random.default_rng(1), make_endpoint("classification", ["x", "y"])
    labels = np.arange(N) % 2
    train, test = (rng.normal(size=(N, 3, 8)) + shift * labels[:, None, None] for _ in range(2))
    ids = [*map(str, range(N))]
    model = classifiers.fit_classifier(lambda i: train[int(i)], Bags(ids, labels), endpoint, "logreg", 0)
    predict = classifiers.build_predictor(model)
    planted.p = np.array([predict(bag)[0][1] for bag in test])
    table, _ = planted.run()
    assert table["auc"].between(low, high).all()
