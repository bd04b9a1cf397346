"""The page of predictions: the best row, undecided and unlike slides as they are planted, problems first."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from slpd_core import artifacts
from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.report import predict_index
from slpd_core.report.predict_index import describe_prediction_folds, measure_unlikeness

CLASSES = make_endpoint("classification", ["x", "y"])
META = artifacts.provenance("stage", 1, {}, "f")
ENCODER = {"encoder_source": "random", "encoder_name": "vit", "encoder_normalization": ""}
SLIDES = ["sure", "split", "far", "torn"]


def embed_table(means, regions=2):
    """Embeddings of slides whose mean is planted; each region is as far from it on either side."""
    rows = [
        (slide, 0, 0, np.asarray(mean, np.float32) + offset)
        for slide, mean in means.items()
        for offset in np.linspace(-1, 1, regions)
    ]
    return pd.DataFrame(rows, columns=[*artifacts.TABLES["embed"]])


@pytest.mark.parametrize(
    ("endpoint", "folds", "expected"),
    [
        (CLASSES, [[0.1, 0.9], [0.3, 0.7]], ("y", 0.8, 2, False)),
        (CLASSES, [[0.1, 0.9], [0.6, 0.4]], ("y", 0.65, 1, True)),
        (make_endpoint("survival"), [[-1.0], [0.5]], ("low risk", -0.25, 1, True)),
        (make_endpoint("regression"), [[1.0], [3.0]], ("", 2.0, 2, False)),
    ],
)
def test_a_slide_is_undecided_where_a_classifier_of_a_fold_says_otherwise(endpoint, folds, expected):
    described = describe_prediction_folds(np.array(folds), endpoint)
    assert (described["predicted"], described["agree"], described["undecided"]) == (expected[0], *expected[2:])
    assert described["value"] == pytest.approx(expected[1])
    assert described["sd"] == pytest.approx(np.std(np.array(folds)[:, -1], ddof=1))


def test_one_in_a_hundred_of_the_cohorts_own_kind_is_unlike_it_and_every_other_kind():
    rng = np.random.default_rng(0)
    cohort = embed_table({f"c{i}": mean for i, mean in enumerate(rng.normal(size=(400, 4)))})
    own = embed_table({f"e{i}": mean for i, mean in enumerate(rng.normal(size=(400, 4)))})
    unlike = np.array([*measure_unlikeness(own, cohort).values()]) > 1
    assert 0 < unlike.mean() < 0.04
    shifted = embed_table({f"s{i}": mean + 8 for i, mean in enumerate(rng.normal(size=(20, 4)))})
    assert min(measure_unlikeness(shifted, cohort).values()) > 1


def test_unlikeness_is_not_measured_by_few_slides_or_by_slides_that_are_alike():
    few = embed_table({f"c{i}": [i, 0] for i in range(7)})
    alike = embed_table({f"c{i}": [1, 0] for i in range(20)})
    assert measure_unlikeness(few, few) == measure_unlikeness(few, alike) == measure_unlikeness(few[:0], few) == {}


@pytest.fixture
def page(tmp_path):
    """Write the page of SLIDES by two rows, of which slpd/vit_wsi is right in the cohort; returns its text."""
    cohort, folder = tmp_path / "results" / "lung", tmp_path / "results" / "lung" / "predict" / "rome"
    ledger = pd.DataFrame(0, range(len(SLIDES)), [*artifacts.TABLES["ledger"]]).assign(
        slide_id=SLIDES,
        status=[artifacts.OK] * 3 + [artifacts.QUARANTINED],
        reason=["", "", "", "torn: no <slide>"],
        remarks=["", "", "", ""],
        width_px=[10, 10, 10, 0],
    )
    for of in (cohort / "regions", folder / "label" / "heatmaps" / "slpd" / "vit_wsi"):
        of.mkdir(parents=True)
    artifacts.write_table(folder / "ledger.parquet", "ledger", ledger, META)
    paths, tables = [], []
    for features, classifier, p in (("slpd", "knn", 0.4), ("slpd", "vit_wsi", 0.9)):
        for fold in (0, 1):
            truth = ["x", "y"] * 8
            tested = pd.DataFrame({"slide_id": [f"c{fold}{i:02}" for i in range(16)], "label": truth, "fold": fold})
            tested = tested.assign(patient_id=tested["slide_id"], p_y=[1 - p if name == "x" else p for name in truth])
            meta = META | ENCODER | CLASSES.meta | {"features": features, "classifier": classifier, "level": "region"}
            paths.append(tmp_path / f"{classifier}{fold}.parquet")
            tested = tested.assign(p_x=1 - tested["p_y"])
            artifacts.write_table(paths[-1], "evaluate", tested, meta | {"task": "label", "bags": "slide"})
            p_y = [0.9, 0.8 - 0.5 * fold, 0.9] if classifier == "vit_wsi" else [0.1] * 3
            of_fold = pd.DataFrame({"slide_id": SLIDES[:3], "p_y": p_y}).assign(features=features, fold=fold)
            tables.append(of_fold.assign(classifier=classifier, p_x=1 - of_fold["p_y"]))
    artifacts.write_table(folder / "label" / "folds.parquet", "external", pd.concat(tables), META)
    Image.new("RGB", (8, 8)).save(folder / "label" / "heatmaps" / "slpd" / "vit_wsi" / "sure.jpg")
    for slide in SLIDES[:3]:
        artifacts.write_picture(cohort / "regions" / f"{slide}.png", Image.new("RGB", (64, 64)))
    rng = np.random.default_rng(1)
    embeds = tmp_path / "external.parquet", tmp_path / "cohort.parquet"
    external = {"sure": [0, 0], "split": [0, 0], "far": [50, 0]}
    artifacts.write_table(embeds[0], "embed", embed_table(external), META | {"embed_dim": "2"})
    of_cohort = {f"c{i}": mean for i, mean in enumerate(rng.normal(size=(20, 2)))}
    artifacts.write_table(embeds[1], "embed", embed_table(of_cohort), META | {"embed_dim": "2"})
    predict_index.run(
        external="rome",
        ledger_path=folder / "ledger.parquet",
        prediction_paths=[folder / "label" / "folds.parquet"],
        evaluate_paths=paths,
        embed_paths={"slpd": [str(path) for path in embeds]},
        tissue_dir=cohort / "tissue",
        regions_dir=cohort / "regions",
        out_path=folder / "index.html",
        runs=["slpd"],
    )
    return (folder / "index.html").read_text(encoding="utf-8")


def test_the_best_row_predicts_and_problems_come_first(page):
    body = page.partition("<tbody>")[2]
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body, re.DOTALL)
    names = [re.search(r'scope="row" data-value="(\w+)"', row)[1] for row in rows]
    assert names == ["torn", "far", "split", "sure"]
    texts = [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in rows]
    assert texts[0] == "torn overlay outline quarantined – – – 0 no &lt;slide&gt;"
    assert re.fullmatch(r"far overlay outline predicted y 0.90 ± 0.00 [\d.]+ unlike the cohort 0", texts[1])
    assert "undecided y by 1 of 2 0.55 ± 0.35" in texts[2]
    assert texts[3].startswith("sure overlay outline attention predicted y 0.90 ± 0.00 0.")
    assert 'href="label/heatmaps/slpd/vit_wsi/sure.jpg"' in rows[3]
    assert 'href="../../regions/sure.png"' in rows[3]


def test_what_to_know_is_said_before_the_predictions(page):
    said = re.findall(r'<li class="(\w+)">.*?<div>(.*?)</div>', page, re.DOTALL)
    score = "slpd/vit_wsi, cross-validated on the cohort: AUC 1.00 [.7"
    assert [level for level, _ in said] == ["warn", "pass", "warn", "warn"]
    assert said[0][1] == "Slides predicted: 3 of 4."
    assert said[1][1].startswith(score)
    assert said[1][1].endswith("(better than chance). It is the best of 2 rows, so the score is somewhat too high.")
    assert [re.search(r": (\d)\.$", sentence)[1] for _, sentence in said[2:]] == ["1", "1"]
    assert "not for diagnosis" in page
    assert "divided by the 99th percentile" in page
