"""The report says what the predictions say, in every format, and lets nothing in or out."""

import html.parser
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from slpd_core import store
from slpd_core.evaluation import report

HOSTILE = '<script>alert("x")</script>'


def predictions(fold, strength, label="y", one_class=False, seed=0):
    rng = np.random.default_rng([seed, fold])
    truth = np.array([label] * 5 if one_class else [label, "x"] * 5)
    p = 1 / (1 + np.exp(-((truth == label) * 2 - 1) * strength - rng.normal(size=len(truth))))
    ids = [f"s{fold}-{number}" for number in range(len(truth))]
    p_of = {label: p, "x": 1 - p}
    columns = {f"p_{name}": p_of[name] for name in sorted(p_of)}
    return pd.DataFrame({"fold": fold, "slide_id": ids, "patient_id": ids, "label": truth} | columns)


@pytest.fixture
def make(tmp_path, settings):
    """Write artifacts of a small cohort and report on them; gives the folder of the report."""

    def make(rows, n_folds=3, runs=("dino", "slpd"), label="y", quarantined=(), one_class=()):
        meta = store.provenance("stage", 1, {"key": 1})
        paths = []
        for (features, classifier), strength in rows.items():
            for fold in range(n_folds):
                path = tmp_path / features / classifier / f"fold{fold}.parquet"
                named = {"features": features, "classifier": classifier, "classes": json.dumps(sorted([label, "x"]))}
                frame = predictions(fold, strength, label, fold in one_class)
                store.write_table(path, "evaluate", frame, meta | named)
                paths.append(path)
        slides = pd.concat([predictions(fold, 1, label) for fold in range(n_folds)])
        ledger = slides[["slide_id", "patient_id", "label"]].assign(
            status=store.OK, reason="", width_px=9000, height_px=8000, mpp=0.5, mpp_source="vendor", tissue_mm2=3.0
        )
        ledger = ledger.assign(regions=2, fingerprint="f", seconds=np.nan)
        for name, reason in quarantined:
            lost = {"slide_id": name, "patient_id": "p", "label": label, "status": store.QUARANTINED, "reason": reason}
            lost |= {"width_px": 0, "height_px": 0, "mpp": np.nan, "mpp_source": "", "tissue_mm2": 0.0, "regions": 0}
            ledger = pd.concat(
                [ledger, pd.DataFrame([lost | {"fingerprint": "", "seconds": np.nan}])], ignore_index=True
            )
        store.write_table(tmp_path / "ledger.parquet", "ledger", ledger, meta | {"stage": "ledger"})
        folds = slides[["fold", "slide_id", "patient_id", "label"]].assign(part="test")
        store.write_table(tmp_path / "folds.parquet", "folds", folds, meta | {"stage": "folds"})
        Image.new("RGB", (500, 300), "pink").save(tmp_path / "s0-0.png")
        rng = np.random.default_rng(0)
        histories, embeds = {}, {}
        for run in runs:
            regions = np.repeat(slides["slide_id"].to_numpy(), 2)
            frame = pd.DataFrame(
                {"slide_id": regions, "x": 0, "y": 0, "embedding": list(rng.normal(size=(len(regions), 6)))}
            )
            store.write_table(tmp_path / f"{run}.parquet", "embed", frame, meta | {"embed_dim": "6"})
            history = pd.DataFrame(
                {"epoch": [0, 1], "self": [4.0, 3.0], "intra": [0.0, 1.0], "inter": 0.5, "uniform": 4.2}
            )
            store.write_text(tmp_path / f"{run}.csv", history.to_csv(index=False))
            histories[run], embeds[run] = tmp_path / f"{run}.csv", tmp_path / f"{run}.parquet"
        report.run(
            cohort="test",
            ledger_path=tmp_path / "ledger.parquet",
            folds_path=tmp_path / "folds.parquet",
            fold_paths=paths,
            history_paths=histories,
            embed_paths=embeds,
            overlays_dir=tmp_path,
            out_dir=tmp_path / "report",
            section=settings.report,
            seed=1,
        )
        return tmp_path / "report"

    return make


ROWS = {("patch", "mil"): 0.3, ("dino", "knn"): 0.8, ("slpd", "vit_wsi"): 3.0}


def test_the_table_holds_mean_and_sd_of_every_fold(make):
    table = pd.read_csv(make(ROWS) / "table.csv")
    assert table["pretraining"].tolist() == ["–", "dino", "slpd"]
    assert table["classifier"].tolist() == ["MIL", "KNN (mean)", "ViT_WSI"]
    for line, strength in zip(table.to_dict("records"), ROWS.values(), strict=True):
        folds = [predictions(fold, strength) for fold in range(3)]
        aucs = [roc_auc_score(fold["label"] == "y", fold["p_y"]) for fold in folds]
        hits = [((fold["p_y"] > 0.5) == (fold["label"] == "y")).mean() for fold in folds]
        assert line["auc_mean"] == pytest.approx(np.mean(aucs))
        assert line["auc_sd"] == pytest.approx(np.std(aucs, ddof=1))
        assert line["accuracy_mean"] == pytest.approx(np.mean(hits))
        assert line["accuracy_sd"] == pytest.approx(np.std(hits, ddof=1))
        assert line["folds"] == 3


def test_every_format_prints_the_same_numbers(make):
    folder = make(ROWS)
    table = pd.read_csv(folder / "table.csv")
    expected = [report.cell(line["auc_mean"], line["auc_sd"]) for line in table.to_dict("records")]
    texts = {name: (folder / name).read_text() for name in ("table.md", "table.tex", "index.html")}
    assert all(text in texts["table.md"] and text in texts["index.html"] for text in expected)
    assert all(text.replace("±", r"$\pm$") in texts["table.tex"] for text in expected)


def test_the_best_is_bold_and_the_second_underlined():
    table = pd.DataFrame({"auc_mean": [0.8, 0.9004, 0.9001, 0.7, np.nan]})
    assert report.ranks(table, "auc") == ["second", "best", "best", "", ""]


@pytest.mark.parametrize(
    ("mean", "sd", "text"),
    [(0.8641, 0.0419, ".864±.042"), (1.0, 0.0, "1.000±.000"), (0.5, float("nan"), ".500±–"), (float("nan"), 0.1, "–")],
)
def test_numbers_look_like_the_papers(mean, sd, text):
    assert report.cell(mean, sd) == text


class Page(html.parser.HTMLParser):
    """Collects what a page refers to, its element names and its text."""

    def __init__(self, text):
        super().__init__()
        self.references, self.names, self.missing_alt, self.text = [], set(), 0, ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.names.add(tag)
        values = dict(attributes)
        self.references += [values[key] for key in ("src", "href") if key in values]
        self.missing_alt += tag == "img" and not values.get("alt")

    def handle_data(self, data):
        self.text += data


def test_the_page_needs_nothing_from_outside(make):
    page = Page((make(ROWS) / "index.html").read_text())
    assert "img" in page.names
    assert not [reference for reference in page.references if not reference.startswith(("data:image/", "#"))]
    assert "link" not in page.names
    assert "script" not in page.names
    assert page.missing_alt == 0


def test_labels_ids_and_reasons_are_escaped(make):
    folder = make(ROWS, label=HOSTILE, quarantined=[("<b>slide", f"torn {HOSTILE}")])
    text = (folder / "index.html").read_text()
    page = Page(text)
    assert "script" not in page.names
    assert HOSTILE in page.text
    assert "<b>slide" in page.text


def test_quarantined_slides_are_named_with_their_reasons(make):
    text = Page((make(ROWS, quarantined=[("lost", "lost.svs: torn")]) / "index.html").read_text()).text
    assert "1 could not be used" in text
    assert re.search(r"Left out:\s*lost: lost\.svs: torn", text)
    assert "Left out" not in (make(ROWS) / "index.html").read_text()


def test_the_page_says_what_was_pretrained_on_what(make):
    assert "test slides included" in (make(ROWS) / "index.html").read_text()


def test_one_fold_and_an_undefined_auc_are_dashes(make):
    assert "±–" in (make(ROWS, n_folds=1) / "table.md").read_text()
    lines = (make(ROWS, n_folds=1, one_class=(0,)) / "table.md").read_text()
    assert lines.count("| – |") == 3 + 1  # three AUCs and the pretraining of patch features


def test_without_runs_there_is_no_pretraining(make):
    folder = make({("patch", "mil"): 1.0}, runs=())
    assert not (folder / "tsne.png").exists()
    assert "Pretraining</h2>" not in (folder / "index.html").read_text()


def test_the_same_artifacts_give_the_same_page(make):
    assert (make(ROWS) / "index.html").read_bytes() == (make(ROWS) / "index.html").read_bytes()
