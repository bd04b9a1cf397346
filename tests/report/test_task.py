"""A task's part of the report: its files, its predictions of all folds, and what regions tell of its labels."""

import numpy as np
import pandas as pd
import pytest

from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.report import figures, task
from slpd_core.report.result_rows import ResultRow, join_folds
from tests.report.planted_endpoints import VALUES, plant_predictions

ENDPOINT = make_endpoint("classification", ["x", "y"])


def predictions(p):
    """Predictions of y: of slide s by folds 0 and 2, of slide t by fold 1."""
    frame = pd.DataFrame({"fold": [0, 1, 2], "slide_id": ["s", "t", "s"], "patient_id": "p", "label": "y"})
    return frame.assign(p_x=1 - np.array(p), p_y=p)


def test_files_are_grouped_by_task(tmp_path):
    names = ("labels", "folds", "remarks")
    of_each = [[tmp_path / f"{task}.{name}" for task in ("a", "b")] for name in names]
    predictions = [tmp_path / task / features / "knn" / "fold0.parquet" for features in "ab" for task in "ab"]
    heatmaps = [tmp_path / task / "a" / "abmil.jpg" for task in "ba"]
    grouped = task.group_paths(["a", "b"], *of_each, predictions, heatmaps)
    assert [*grouped] == ["a", "b"]
    for i, paths in enumerate(grouped.values()):
        assert [paths.labels, paths.folds, paths.remarks] == [of[i] for of in of_each]
        assert paths.predictions == [predictions[i], predictions[2 + i]]
        assert paths.heatmaps == [heatmaps[1 - i]]


def test_an_ensemble_is_the_mean_over_the_folds_that_test_the_slide():
    """Of its own row alone; slide s is tested by folds 0 and 2, slide t by fold 1."""
    rows = []
    for classifier, shift in (("knn", 0.0), ("mil", 0.1)):
        frame = predictions(np.array([0.2, 0.7, 0.4]) + shift)
        rows.append(ResultRow("slpd", "region", classifier, ("random", "vit"), ENDPOINT, frame, frame, frame))
    none = pd.DataFrame()
    joined = task.join_predictions(task.TaskResults("grade", ENDPOINT, none, none, none, rows, rows[0], none, {}))
    assert joined["task"].tolist() == ["grade"] * 6
    assert joined["classifier"].tolist() == ["knn"] * 3 + ["mil"] * 3
    assert joined["ensemble_p_y"].tolist() == pytest.approx([0.3, 0.7, 0.3, 0.4, 0.8, 0.4])
    assert joined["ensemble_p_x"].tolist() == pytest.approx([0.7, 0.3, 0.7, 0.6, 0.2, 0.6])
    empty = task.join_predictions(task.TaskResults("grade", ENDPOINT, none, none, none, [], None, none, {}))
    assert (len(empty), [*empty.columns[:4]]) == (0, ["task", "features", "classifier", "fold"])


def test_nearest_regions_of_other_patients_tell_the_labels():
    """Planted: no label before epoch 0, the slide before epoch 1, the label before epoch 2; slide e has none."""
    slides = np.repeat(["a", "b", "c", "d", "e"], 12)
    labels, patients = {"a": "x", "b": "x", "c": "y", "d": "y"}, dict(zip("abcde", "pqrse", strict=True))
    ones = np.ones((60, 5))
    by_slide = np.eye(5)[np.repeat(range(5), 12)] + 0.1 * np.eye(5)[np.repeat([2, 3, 0, 1, 0], 12)]
    by_label = np.eye(5)[np.repeat([0, 0, 1, 1, 1], 12)]
    embeddings = np.stack([ones, by_slide, by_label]).astype(np.float16)
    history = task.knn_history(embeddings, slides, labels=labels, patients=patients)
    assert history["epoch"].tolist() == [0, 1, 2]
    assert history["knn_accuracy"].tolist()[1:] == [0, 1]  # the slides nearest to each are of the other label
    one_patient = task.knn_history(embeddings, slides, labels=labels, patients=dict.fromkeys("abcde", "p"))
    assert one_patient["knn_accuracy"].isna().all()
    assert task.knn_history(embeddings, slides, labels={}, patients=patients)["knn_accuracy"].isna().all()


@pytest.mark.parametrize(("bags", "n"), [("slide", 20), ("patient", 10)])
def test_predictions_are_drawn_of_the_cases_that_are_scored(monkeypatch, bags, n):
    """Two slides per patient; the second fold tests those of the first again."""
    meta = {"features": "slpd", "level": "region", "classifier": "mil", "encoder_source": "random", "bags": bags}
    tables = [plant_predictions(VALUES, 0, 1.0, n=20, slides_per_patient=2).assign(fold=fold) for fold in (0, 1)]
    tables[1]["prediction"] += 1
    (row,) = join_folds([(table, meta | VALUES.meta | {"encoder_name": "vit"}) for table in tables], ["slpd"])
    none, drawn = pd.DataFrame(), []
    monkeypatch.setattr(figures, "plot_regression", lambda *arrays, **_: drawn.append(arrays) or b"")
    task.draw_figures(task.TaskResults("tmb", VALUES, none, none, none, [row], row, none, {}), [])
    ((title, predicted, truth),) = drawn
    assert (title, len(predicted), len(truth)) == ("MIL on regions of slpd", n, n)
    once = tables[0].drop_duplicates("patient_id" if bags == "patient" else "slide_id")
    assert np.sort(predicted) == pytest.approx(np.sort(once["prediction"] + 0.5))


def test_the_panels_stand_in_the_order_of_the_classifiers(monkeypatch):
    frame = predictions([0.2, 0.7, 0.4]).assign(label=["x", "y", "x"], fold=0)
    rows = [
        ResultRow(features, "patch", classifier, ("random", "vit"), ENDPOINT, frame, frame, frame)
        for features, classifier in (
            ("mean_color", "dsmil"),
            ("patch_tokens", "knn"),
            ("patch_tokens", "mil"),
            ("patch_tokens", "dsmil"),
        )
    ]
    monkeypatch.setattr(figures, "plot_roc", lambda panels, _: list(panels))
    assert task.draw_roc(rows, []) == ["KNN (mean)", "MIL", "DS-MIL"]
