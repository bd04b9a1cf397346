"""The page of all test slides puts those first that the reference row is most wrong about, with every row's numbers."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from slpd_core.drawing.html import inline_jpeg
from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.report import metrics, result_rows, slide_table
from slpd_core.report.task import TaskResults
from tests.report.planted_endpoints import FOLLOW_UP, GRADES, VALUES, plant_predictions

LABELS = make_endpoint("classification", ["<b>x", "y", "z"])


def plant_task(endpoint, tables):
    """Results of a task: a row for each list of its folds' predictions, the last is the reference."""
    of_rows = {"level": "region", "encoder_source": "hipt", "encoder_name": "vit", "bags": "slide", "classifier": "knn"}
    folds = [(frame, of_rows | endpoint.meta | {"features": name}) for name, of in tables.items() for frame in of]
    rows = result_rows.join_folds(folds, [*tables])
    return TaskResults("task", endpoint, None, None, None, rows, rows[-1], None, {})


def plant_labels(fold, probabilities, labels):
    frame = pd.DataFrame(probabilities, columns=LABELS.prediction_columns)
    ids = [f"s{fold}-{i}" for i in range(len(frame))]
    return frame.assign(fold=fold, slide_id=ids, patient_id=ids, label=labels)


# Four slides: right and sure, wrong and sure, wrong and unsure, right and unsure.
SURE = plant_labels(
    0,
    [[0.8, 0.1, 0.1], [0.05, 0.9, 0.05], [0.3, 0.4, 0.3], [0.3, 0.3, 0.4]],
    ["<b>x", "<b>x", "<b>x", "z"],
)
OTHER = plant_labels(0, [[0.2, 0.7, 0.1]] * 4, SURE["label"])


@pytest.fixture
def task():
    return plant_task(LABELS, {"dino": [OTHER], "slpd": [SURE]})


def test_the_most_confidently_wrong_come_first(task):
    table = slide_table.list_test_slides(task)
    assert table.index.tolist() == ["s0-1", "s0-2", "s0-3", "s0-0"]
    assert table["error"].tolist() == pytest.approx([0.85, 0.1, -0.1, -0.7])
    assert table["predicted"].tolist() == ["y", "y", "z", "<b>x"]
    assert table["slpd/knn"].tolist() == pytest.approx([0.05, 0.3, 0.4, 0.8])
    assert table["dino/knn"].tolist() == pytest.approx([0.2, 0.2, 0.1, 0.2])
    assert [key for key in table if "/" in key] == ["slpd/knn", "dino/knn"]  # the reference first


def test_a_slide_that_several_folds_test_has_its_mean_prediction_and_these_folds():
    again = SURE.assign(fold=3, **{f"p_{name}": p for name, p in zip(LABELS.classes, (0, 0, 1), strict=True)})
    table = slide_table.list_test_slides(plant_task(LABELS, {"slpd": [SURE, again]}))
    assert set(table["folds"]) == {"0, 3"}
    assert table.loc["s0-0", "slpd/knn"] == pytest.approx(0.4)
    assert table.loc["s0-0", "predicted"] == "z"


@pytest.mark.parametrize("endpoint", [GRADES, VALUES, FOLLOW_UP], ids=lambda endpoint: endpoint.kind)
def test_errors_of_the_other_kinds_fall_with_the_truth(endpoint):
    """They are sorted, and without any where each prediction is the truth, or orders as it does."""
    folds = [plant_predictions(endpoint, fold, 1.0) for fold in range(3)]
    table = slide_table.list_test_slides(plant_task(endpoint, {"slpd": folds}))
    assert len(table) == 30
    assert (table["error"].dropna().diff().dropna() <= 0).all()
    perfect = []
    for frame in folds:
        truth = (
            frame["value"]
            if endpoint is VALUES
            else frame["event"] * 1e-6 - frame["time"]
            if endpoint is FOLLOW_UP
            else 0.0
        )
        columns = dict.fromkeys(endpoint.prediction_columns, truth)
        columns |= {f"p_{name}": frame["label"] == name for name in endpoint.classes}
        perfect.append(frame.assign(**columns))
    errors = slide_table.measure_errors(plant_task(endpoint, {"slpd": perfect}).rows[0]).dropna()
    assert len(errors) > 9
    assert (errors == (-1 if endpoint is GRADES else 0)).all()


def test_regressions_are_sorted_by_the_distance_from_the_value():
    folds = [plant_predictions(VALUES, fold, 1.0) for fold in range(2)]
    results = plant_task(VALUES, {"slpd": folds})
    pooled = metrics.pool_predictions(pd.concat(folds), VALUES)
    residuals = (pooled["prediction"] - pooled["value"]).abs().sort_values(ascending=False)
    table = slide_table.list_test_slides(results)
    assert table.index.tolist() == residuals.index.tolist()
    assert table["error"].tolist() == pytest.approx(residuals.tolist())


def test_the_page_is_inline_escaped_and_links_what_is_there(tmp_path, task):
    (tmp_path / "regions").mkdir()
    (tmp_path / "regions" / "s0-1.png").touch()
    page = tmp_path / "report" / "task" / "slides.html"
    page.parent.mkdir(parents=True)
    thumbnails = {"s0-0": "", "s0-1": inline_jpeg(Image.new("RGB", (200, 100), "pink"))}
    heatmap = tmp_path / "heatmaps" / "task" / "slpd" / "abmil.jpg"
    links = {"overlay": (tmp_path / "regions", ".png"), "outline": (tmp_path / "tissue", ".geojson")}
    slide_table.write_slide_table(page, task, thumbnails, links, [heatmap])
    text = page.read_text()
    assert "<b>" not in text
    hrefs = {*re.findall('href="([^"]*)"', text)}
    assert hrefs == {"../index.html", "../../regions/s0-1.png", "../../heatmaps/task/slpd/abmil.jpg"}
    assert len(re.findall('<img [^>]*src="data:image/jpeg;base64,', text)) == 1
    assert [*re.findall('<th scope="row" data-value="([^"]*)"', text)] == ["s0-1", "s0-2", "s0-3", "s0-0"]
    assert [*re.findall('<td class="(right|wrong)"', text)] == ["wrong", "wrong", "right", "right"]
    assert "default-src 'none'" in text


def test_pictures_stop_where_the_page_is_full(monkeypatch):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (200, 200, 3), np.uint8).astype(np.uint8))
    thumbnails = dict.fromkeys("abcd", inline_jpeg(noise)) | {"b": ""}
    whole = slide_table.shrink_thumbnails(thumbnails, pd.Index([*"abcd"]))
    assert [*whole] == [*"abcd"]
    assert len(whole["a"]) < len(thumbnails["a"]) / 2
    monkeypatch.setattr(slide_table, "MAX_THUMBNAIL_BYTES", 2 * len(whole["a"]))
    assert [*slide_table.shrink_thumbnails(thumbnails, pd.Index([*"abcd"]))] == [*"abc"]
    assert [*slide_table.shrink_thumbnails({}, pd.Index([*"ab"]))] == [*"ab"]


@pytest.mark.long
@pytest.mark.parametrize(("width", "dark"), [(400, True), (1280, False)])
def test_a_browser_shows_the_page(browser, tmp_path, task, width, dark):
    """Its table is sorted by script, which the policy allows; nothing is wider than the screen."""
    page = tmp_path / "slides.html"
    slide_table.write_slide_table(page, task, {"s0-1": inline_jpeg(Image.new("RGB", (200, 100), "pink"))}, {})
    seen = browser(page, width, dark)
    assert seen["console"] == seen["broken"] == []
    assert seen["images"] == 1
    assert width - 20 < seen["view"] == seen["page"]
