"""The report shows the scores of the predictions in every format, escapes all texts and loads nothing."""

import base64
import html.parser
import io
import re
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from slpd_core import artifacts
from slpd_core.drawing import html as page_parts
from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.report import figures, projection, report, task, uncertainty
from slpd_core.workflow import rows
from tests.report.planted_endpoints import FOLLOW_UP, GRADES, VALUES, plant_predictions

HOSTILE = '<script>alert("x")</script>'


def predictions(fold, strength, label="y", one_class=False, seed=0):
    rng = np.random.default_rng([seed, fold])
    truth = np.array([label] * 5 if one_class else [label, "x"] * 5)
    p = 1 / (1 + np.exp(-((truth == label) * 2 - 1) * strength - rng.normal(size=len(truth))))
    ids = [f"s{fold}-{i}" for i in range(len(truth))]
    p_of = {label: p, "x": 1 - p}
    columns = {f"p_{name}": p_of[name] for name in sorted(p_of)}
    return pd.DataFrame({"fold": fold, "slide_id": ids, "patient_id": ids, "label": truth} | columns)


META = artifacts.provenance("stage", 1, {"key": 1})


def ledger_of(slides, left_out, slide_remarks):
    """A ledger of usable `slides`, and of `left_out`: (slide, status, reason)."""
    known = {
        "reason": "",
        "width_px": 9000,
        "height_px": 8000,
        "mpp": 0.5,
        "mpp_source": "vendor",
        "tissue_mm2": 3.0,
        "tissue_source": "segmented",
    }
    unknown = {
        "width_px": 0,
        "height_px": 0,
        "mpp": np.nan,
        "mpp_source": "",
        "tissue_mm2": 0.0,
        "tissue_source": "segmented",
        "regions": 0,
    }
    good = slides[["slide_id", "patient_id"]].assign(status=artifacts.OK, **known, regions=2)
    lost = [
        {"slide_id": name, "patient_id": "p", "status": status, "reason": reason} | unknown
        for name, status, reason in left_out
    ]
    rows = pd.concat([good, *[pd.DataFrame([row]) for row in lost]], ignore_index=True)
    remarks = [slide_remarks.get(name, "") for name in rows["slide_id"]]
    return rows.assign(fingerprint="f", slide_fingerprint=rows["slide_id"], remarks=remarks)


def level_of(features):
    return {"mean_color": "color", "dino": "region", "slpd": "region"}.get(features, "patch")


def write_run(folder, run, slides, remarks="", frozen=False):
    """Write the history and the embeddings of a pretraining run, two regions per slide; frozen: not trained.

    Of the monitored regions, one per slide, the embeddings tell no label before epoch 0 and those of `slides` before
    epoch 1.
    """
    epochs = {
        "epoch": [0, 1],
        "loss": 5.0,
        "loss_self": [4.0, 3.0],
        "loss_intra": [0.0, 1.0],
        "loss_inter": 0.5,
        "log_out_dim": 4.2,
    }
    history = pd.DataFrame({"epoch": [], "loss": []} if frozen else epochs)
    settings = {"epochs": len(history), "alpha_intra": float(run != "dino"), "alpha_inter": 0.0}
    meta = artifacts.provenance("pretrain", 1, settings)
    artifacts.write_table(folder / f"{run}.history.parquet", "history", history, meta)
    slide_ids = slides["slide_id"].to_numpy(str)
    monitored = np.stack([np.ones((len(slides), 2)), np.eye(2)[(slides["label"] == "x").astype(int)]])
    arrays = {"embeddings": monitored[frozen:].astype(np.float16), "region_slide": slide_ids}
    artifacts.write_arrays(folder / f"{run}.monitored.h5", arrays, {}, META)
    embeddings = list(np.random.default_rng(0).normal(size=(2 * len(slide_ids), 6)))
    frame = pd.DataFrame({"slide_id": np.repeat(slide_ids, 2), "x": 0, "y": 0, "embedding": embeddings})
    artifacts.write_table(
        folder / f"{run}.parquet", "embed", frame, META | {"stage": "embed", "embed_dim": "6", "remarks": remarks}
    )


def write_gallery(path, meta):
    """Write a picture as the gallery of a run."""
    path.parent.mkdir(exist_ok=True)
    artifacts.write_picture(path, Image.new("RGB", (640, 320), "pink"), meta=meta)
    return path


def write_heatmap(path, meta):
    """Write a picture as the heat maps of a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    artifacts.write_picture(path, Image.new("RGB", (720, 200), "blue"), meta=meta)
    return path


DRAWN = ("plot_roc", "plot_predictions", "plot_regression", "plot_kaplan_meier", "plot_dynamic_auc")
DRAWN += ("plot_training", "plot_tsne")


def blank_figure(*_, **_options):
    """A figure that takes no time to draw."""
    png = io.BytesIO()
    Image.new("RGB", (600, 300), "white").save(png, "PNG")
    return png.getvalue()


def plant(endpoint, fold, strength, label="y", one_class=False):
    """Predictions of a task; those of follow-up are of patients with two slides."""
    if endpoint.kind == "classification":
        return predictions(fold, strength, label, one_class)
    return plant_predictions(endpoint, fold, strength, slides_per_patient=1 + (endpoint.kind == "survival"))


def write_task(folder, settings, name, rows, endpoint, n_folds, remarks, metas, label, one_class, heatmaps, drawn):
    """Write the labels, folds, predictions and heat maps of a task; return their paths."""
    of_task, paths = folder / "tasks" / name, []
    bags = "patient" if endpoint.kind == "survival" else "slide"
    for (features, classifier), strength in rows.items():
        for fold in range(n_folds):
            path = folder / "evaluate" / name / features / classifier / f"fold{fold}.parquet"
            meta = {"features": features, "classifier": classifier, "bags": bags} | endpoint.meta
            meta |= {"level": level_of(features)} | metas(features)
            frame = plant(endpoint, fold, strength, label, fold in one_class)
            artifacts.write_table(path, "evaluate", frame, META | meta)
            paths.append(path)
    slides = pd.concat([plant(endpoint, fold, 1, label) for fold in range(n_folds)])
    tables = {
        "labels": slides[["slide_id", "patient_id", *endpoint.columns]],
        "folds": slides[["fold", "slide_id", "patient_id", *endpoint.columns]].assign(part="test"),
        "remarks": pd.DataFrame([*remarks], columns=["remark", "id", "fold"], dtype=str),
    }
    unordered = endpoint if endpoint.kind == "ordinal" else make_endpoint(endpoint.kind)
    meta = META | unordered.meta | {"section": settings.folds.model_dump_json(), "published_splits": "", "task": name}
    for stage, table in tables.items():
        artifacts.write_table(of_task / f"{stage}.parquet", stage, table, meta)
        meta = meta | endpoint.meta  # the labels know no classes, but for those that have an order
    pictures = [write_heatmap(folder / "heatmaps" / name / run / "vit_wsi.jpg", drawn) for run in heatmaps]
    return task.TaskPaths(*(of_task / f"{stage}.parquet" for stage in tables), paths, pictures)


def write_report(
    folder,
    settings,
    rows,
    n_folds=3,
    runs=("dino", "slpd"),
    frozen=(),
    label="y",
    left_out=(),
    one_class=(),
    slide_remarks=MappingProxyType({}),
    source="timm",
    remarks=(),
    run_remarks=MappingProxyType({}),
    reference=None,
    ledger_of_fold=META["fingerprint"],
    tasks=None,
    external=(),
    protocols=(),
    pseudonyms=False,
):
    """Write artifacts of a small cohort and its report; return the report's folder.

    The cohort has one task, called label, where `tasks` does not name others: the label of each beside x, or the
    endpoint.
    """

    def metas(features):
        of_cohort = features in COHORT_FEATURES
        meta = {"encoder_source": source if of_cohort else "random", "encoder_name": "vit_s"}
        return meta | {"encoder_normalization": "mean 0.5 0.5 0.5", "ledger": ledger_of_fold}

    shown = artifacts.NUMBERED if pseudonyms else {}
    tasks = {"label": label} if tasks is None else tasks
    classes = {of: make_endpoint("classification", sorted([of, "x"])) for of in tasks.values() if isinstance(of, str)}
    cohort = pd.concat([predictions(fold, 1) for fold in range(n_folds)])
    artifacts.write_table(folder / "ledger.parquet", "ledger", ledger_of(cohort, left_out, slide_remarks), META)
    artifacts.write_picture(folder / "s0-0.png", Image.new("RGB", (500, 300), "pink"))
    for name in runs:
        write_run(folder, name, cohort, run_remarks.get(name, ""), name in frozen)
    report.run(
        cohort="test",
        ledger_path=folder / "ledger.parquet",
        tasks={
            name: write_task(
                folder, settings, name, rows, classes.get(of, of), n_folds, remarks, metas, of, one_class, runs, shown
            )
            for name, of in tasks.items()
        },
        history_paths={name: folder / f"{name}.history.parquet" for name in runs},
        monitored_paths={name: folder / f"{name}.monitored.h5" for name in runs},
        embed_paths={name: folder / f"{name}.parquet" for name in runs},
        gallery_paths=[write_gallery(folder / "gallery" / f"{name}.png", shown) for name in runs if name != "dino"],
        overlays_dir=folder,
        outlines_dir=folder / "tissue",
        benchmarks_dir=folder / "benchmarks",
        out_dir=folder / "report",
        section=settings.report.page.model_copy(update={"reference": reference, "pseudonyms": pseudonyms}),
        seed=1,
        patch_encoder=source,
        settings=settings.methods.model_copy(update={"runs": dict.fromkeys(runs, settings.pretrain.run("slpd"))}),
        patch_history_path=folder / "dino.history.parquet" if source == "dino" else None,
        external_paths=external,
        protocol_paths=protocols,
    )
    return folder / "report"


def write_without_figures(folder, settings, rows, **options):
    """Write a report whose figures are blank, which takes less time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in DRAWN:
            patch.setattr(figures, name, blank_figure)
        patch.setattr(projection, "fit_tsne", lambda embeddings, *_, seed: embeddings[:, :2])
        return write_report(folder, settings, rows, **options)


@pytest.fixture
def make(tmp_path, settings):
    """Write a report; its figures are blank unless drawn."""

    def make(rows, drawn=False, **options):
        return (write_report if drawn else write_without_figures)(tmp_path, settings, rows, **options)

    return make


@pytest.fixture(scope="module")
def report_of_rows(tmp_path_factory, settings):
    """The folder of the report of ROWS, which tests only read."""
    return write_without_figures(tmp_path_factory.mktemp("rows"), settings, ROWS)


COHORT_FEATURES = ("mean_color", "patch_tokens", "dino", "slpd")  # from the cohort's patch encoder
TEXTS = ("index.html", "verdicts.csv", "methods.md", "methods.bib")  # of every report
ROWS = {("patch_tokens", "mil"): 0.3, ("dino", "knn"): 0.8, ("slpd", "vit_wsi"): 3.0}


def test_leaks_of_the_folds_are_told(make, report_of_rows):
    leaks = [("patient on both sides", f"<p{n}>", n) for n in (0, 0, 2)] + [("quarantined", "torn", "")]
    leaks += [("never tested", "NA", "")]
    page = (make(ROWS, remarks=leaks) / "index.html").read_text()
    assert "2 patients stand on both sides of a fold" in page
    assert "patient on both sides, 2 in 2 folds" in page
    assert "&lt;p0&gt;, &lt;p2&gt;" in page
    assert "quarantined, 1" not in page
    assert re.search(r"never tested, 1</summary>\s*<p[^>]*>NA</p>", page)
    assert "no patient stands on both sides of a fold" in (report_of_rows / "index.html").read_text()


def test_scores_without_a_label_are_marked_and_its_folds_told(make, report_of_rows):
    lacking = [("label not trained", "NA", 0), ("label not tested", "NA", 2)]
    folder = make(ROWS, remarks=lacking)
    for name in ("index.html", "label/table.md"):
        text = (folder / name).read_text()
        assert "† In 2 of 3 folds a label is missing" in text
        assert text.count("†") == 1 + 2 * len(ROWS)
    assert "label not trained, 1 in 1 fold<" in (folder / "index.html").read_text()
    assert pd.read_csv(folder / "label/table.csv")["partial_folds"].tolist() == [2] * len(ROWS)
    assert "†" not in (report_of_rows / "index.html").read_text()


def test_the_table_holds_mean_and_sd_of_every_fold(report_of_rows):
    table = pd.read_csv(report_of_rows / "label/table.csv")
    assert table["pretraining"].tolist() == ["vit_s", "dino", "slpd"]
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


class Page(html.parser.HTMLParser):
    """Collect the references of a page, its element names, their ids and its text."""

    def __init__(self, text):
        super().__init__()
        self.references, self.names, self.ids, self.missing_alt, self.text = [], set(), set(), 0, ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.names.add(tag)
        values = dict(attributes)
        self.ids.add(values.get("id"))
        self.references += [values[key] for key in ("src", "href") if key in values]
        self.missing_alt += tag == "img" and not values.get("alt")

    def handle_data(self, data):
        self.text += data


def page_of(folder):
    return Page((folder / "index.html").read_text())


def test_the_table_says_which_encoder_and_folds_it_rests_on(make):
    table = pd.read_csv(make(ROWS | {("mean_color", "knn"): 0.2}, source="hipt") / "label/table.csv").set_index("row")
    expected = "vit_s, HIPT's weights, RGB normalized by mean 0.5 0.5 0.5"
    assert table.loc[["patch_tokens/mil", "slpd/vit_wsi"], "patch_encoder"].tolist() == [expected] * 2
    assert pd.isna(table.loc["mean_color/knn", "patch_encoder"])
    assert set(table["splits"]) == {"3 folds drawn here, grouped by patient"}


def test_the_page_prints_the_table(report_of_rows):
    folder = report_of_rows
    page = re.sub("<br><small>.*?</small>", "", (folder / "index.html").read_text())
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page.split("Results</h2>")[1])[1:4]
    cells = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in rows]
    lines = (folder / "label/table.md").read_text().splitlines()[2:]
    assert cells == [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert all(re.fullmatch(r"[01]?\.\d{3} to [01]?\.\d{3}", row[column]) for row in cells for column in (4, 6))
    assert [row[7:] == ["reference", "–", "–"] for row in cells] == [False, False, True]


def test_the_page_opens_with_the_reference_and_calls_no_row_the_winner(make):
    """The reference is the row of the settings, here the worse one; no row is called best or significantly better."""
    folder = make(ROWS, reference="dino/knn")
    text = " ".join(page_of(folder).text.split())
    table = pd.read_csv(folder / "label/table.csv").set_index("row")
    named = re.search(
        r"The reference row, KNN \(mean\) on regions of dino, has a mean AUC of (\S+) \(95 % interval (\S+) to (\S+)\)",
        text,
    )
    expected = table.loc["dino/knn", ["auc_mean", "auc_low", "auc_high"]]
    assert [float(text) for text in named.groups()] == pytest.approx(expected.to_list(), abs=6e-4)
    shown = re.search(r"would have shown in four of five such cohorts is (\.\d{3}) to (\.\d{3}), by row", text)
    detectable = table["auc_detectable"].dropna()
    assert [float(text) for text in shown.groups()] == pytest.approx([detectable.min(), detectable.max()], abs=6e-4)
    assert not re.search(r"significant|best|winner|highest mean", text)


def test_the_page_states_the_allowance_that_intervals_hold(make, monkeypatch):
    monkeypatch.setattr(uncertainty, "TRAINING", 0.12)
    page = (make(ROWS) / "index.html").read_text()
    assert f"12 % of the variance is added for it (KNN: {uncertainty.KNN_TRAINING * 100:.0f} %)" in page


def test_the_page_needs_nothing_from_outside(report_of_rows):
    folder = report_of_rows
    page = page_of(folder)
    assert "img" in page.names
    outside = {reference for reference in page.references if not reference.startswith(("data:image/", "#"))}
    assert outside == {
        "run.json",
        "methods.md",
        "methods.bib",
        "label/slides.html",
    }  # beside the page, and nothing needs them
    assert not page.names & {"link", "script", "iframe", "object", "embed"}
    assert page.missing_alt == 0
    assert "http" not in re.sub(r"http-equiv|\\url\{http", "", (folder / "index.html").read_text())


def test_links_lead_somewhere(make):
    page = page_of(make(ROWS, left_out=[("lost", artifacts.QUARANTINED, "torn")]))
    inside = [reference[1:] for reference in page.references if reference.startswith("#")]
    assert {"verdicts", "results-label", "pretraining", "slides", "provenance"} <= set(inside) <= page.ids


def test_labels_ids_and_reasons_are_escaped(make):
    page = page_of(make(ROWS, label=HOSTILE, drawn=True, left_out=[("<b>slide", artifacts.QUARANTINED, HOSTILE)]))
    assert not page.names & {"script", "b"}
    assert HOSTILE in page.text
    assert "<b>slide" in page.text


def test_slides_left_out_are_named_with_their_reasons(make, report_of_rows):
    lost = [("lost", artifacts.QUARANTINED, "lost: torn"), ("blank", artifacts.EMPTY, "no region with enough tissue")]
    text = " ".join(page_of(make(ROWS, left_out=lost)).text.split())
    assert "1 slide could not be used, 1 slide had no region" in text
    assert re.search(r"lost\s+\(quarantined\): torn", text)
    assert re.search(r"blank\s+\(empty\): no region with enough tissue", text)
    text = page_of(report_of_rows).text
    assert "30 slides came in and all took part" in text
    assert "Left out" not in text


def test_the_page_says_what_was_pretrained_on_what(make):
    text = page_of(make(ROWS, left_out=[("lost", artifacts.QUARANTINED, "torn")])).text
    assert "on the regions of all 30 slides, test slides included (transductive)" in text


@pytest.mark.parametrize("drawn", [False, True])
def test_an_encoder_taken_as_it_is_was_not_pretrained_on_the_slides(make, drawn):
    text = page_of(make(ROWS, drawn=drawn, frozen=["dino"])).text
    assert "Region encoders of slpd were pretrained, without labels, on the regions of all 30 slides" in text
    assert "dino: taken as published, not trained on these slides by this pipeline." in text
    text = page_of(make(ROWS, frozen=["dino", "slpd"])).text
    assert "transductive" not in text
    assert "dino, slpd: taken as published" in text


def test_the_first_page_says_what_pretraining_did_not_reach(make):
    """The remarks are above all results; a run without remarks is not named."""
    remark = "L_intra <i>trains</i> nothing: this run is plain DINO."
    page = (make(ROWS, run_remarks={"slpd": f"{remark}\nAnd more."}) / "index.html").read_text()
    top = page.partition('<h2 id="results-label">')[0]
    escaped = "L_intra &lt;i&gt;trains&lt;/i&gt; nothing: this run is plain DINO."
    assert f'<p class="note">Pretraining of slpd: {escaped} And more.</p>' in top
    assert "Pretraining of dino" not in page


def test_the_page_names_remarks_on_slides(make, report_of_rows):
    page = " ".join(page_of(make(ROWS, slide_remarks={"s0-1": "9 of 10 px are tissue."})).text.split())
    assert "Remarks on 1 slide that is used all the same" in page
    assert re.search("s0-1 ?: 9 of 10 px are tissue.", page)
    assert "used all the same" not in page_of(report_of_rows).text


def test_one_fold_has_no_deviation(make):
    folder = make(ROWS, n_folds=1, drawn=True)
    assert (folder / "label/table.md").read_text().count("±–") == 6  # three rows, accuracy and AUC
    assert "±–" in page_of(folder).text


def test_an_undefined_auc_is_a_dash_and_said(make):
    folder = make(ROWS, n_folds=1, one_class=(0,), drawn=True)
    lines = (folder / "label/table.md").read_text().splitlines()[2:]
    assert [line.split(" | ")[5:7] for line in lines] == [["–", "–"]] * 3  # AUCs and their intervals
    assert "In fold 0 the test slides show one label only" in page_of(folder).text
    assert "has a mean AUC of – (95 % interval –)" in " ".join(page_of(folder).text.split())
    assert "In fold 1 the test slides" in page_of(make(ROWS, one_class=(1,))).text


def test_without_runs_there_is_no_pretraining(make):
    folder = make({("patch_tokens", "mil"): 1.0}, runs=(), drawn=True)
    assert {path.name for path in folder.iterdir()} == {*TEXTS, "label"}
    tables = {f"table.{suffix}" for suffix in ("parquet", "csv", "md", "tex")} | {"predictions.csv", "slides.html"}
    assert {path.name for path in (folder / "label").iterdir()} == tables | {"roc.png", "predictions.png"}
    text = page_of(folder).text
    assert "Pretraining curves" not in text
    assert "pretrained" not in text
    assert "t-SNE" not in text
    assert "Prototypes of" not in text


def test_each_run_with_prototypes_shows_its_gallery(make):
    folder = make(ROWS, runs=("dino", "slpd", "intra"))
    page = page_of(folder)
    assert "prototypes" in page.ids
    assert re.findall(r"\((gallery/.*)\)", page.text) == ["gallery/slpd.png", "gallery/intra.png"]
    png = artifacts.read_picture(folder.parent / "gallery" / "slpd.png")
    assert f'src="{page_parts.data_uri("png", png)}" width="640" height="320"' in (folder / "index.html").read_text()
    assert "prototypes" not in page_of(make(ROWS, runs=("dino",))).ids


def test_predictions_of_another_cohort_are_refused(make):
    with pytest.raises(ValueError, match=r"fold0\.parquet: was made from another ledger: .*delete the file"):
        make(ROWS, ledger_of_fold="that of another")


def test_each_row_with_attention_shows_where_it_looked(make, report_of_rows):
    folder = report_of_rows
    text, jpeg = (
        (folder / "index.html").read_text(),
        artifacts.read_picture(folder.parent / "heatmaps/label/slpd/vit_wsi.jpg"),
    )
    assert f'src="{page_parts.data_uri("jpeg", jpeg)}" width="720" height="200"' in text
    assert "Attention of ViT_WSI on regions of dino" in text
    assert "Attention" not in (make(ROWS, runs=()) / "index.html").read_text()


def test_the_page_names_the_patch_encoder_and_those_beside_it(make, report_of_rows):
    text = " ".join(page_of(report_of_rows).text.split())
    assert "Patch encoder: vit_s, weights from a file. Pretrained region encoders" in text
    assert "mean RGB" not in text
    beside = ROWS | {("plain", "mil"): 4.0, ("mean_color", "knn"): 0.5}
    text = " ".join(page_of(make(beside)).text.split())
    assert "vit_s, weights from a file. To compare: plain (vit_s, random weights, untrained). Pretrained" in text
    assert "The reference row, ViT_WSI on regions of slpd, has" in text
    assert "mean RGB" in text


def test_a_patch_encoder_of_its_own_shows_how_it_was_trained(make):
    folder = make(ROWS, source="dino", drawn=True)
    page = page_of(folder)
    assert (folder / "patch_encoder.png").stat().st_size
    assert {"patch-encoder", "pretraining"} <= page.ids
    assert "The patch encoder and the region encoders were pretrained, without labels" in page.text
    alone = page_of(make({("patch_tokens", "mil"): 1.0}, runs=(), source="dino"))
    assert "patch-encoder" in alone.ids
    assert "pretraining" not in alone.ids
    assert "The patch encoder was pretrained, without labels" in alone.text


def test_every_prediction_of_all_rows_and_folds_is_in_one_table(make):
    table = pd.read_csv(make(ROWS) / "label/predictions.csv")
    assert [*table.columns] == [
        *("task", "features", "classifier", "fold", "slide_id", "patient_id", "label"),
        *("p_x", "p_y", "ensemble_p_x", "ensemble_p_y"),
    ]
    assert set(table["task"]) == {"label"}
    assert len(table) == 30 * len(ROWS)
    for (features, classifier), strength in ROWS.items():
        for fold in range(3):
            of = table[(table["features"] == features) & (table["classifier"] == classifier) & (table["fold"] == fold)]
            expected = predictions(fold, strength)[[*of.columns[3:9]]]
            pd.testing.assert_frame_equal(of[expected.columns].reset_index(drop=True), expected, atol=1e-6)
    np.testing.assert_array_equal(table[["ensemble_p_x", "ensemble_p_y"]], table[["p_x", "p_y"]])  # all tested once


def test_each_task_has_results_of_its_own(make, tmp_path):
    """The same as if it were the only one; the page shows one after the other, and the slides' labels of both."""
    folder, pngs = make(ROWS, tasks={"subtype": "y", "grade": "high"}), ("roc", "predictions", "knn")
    page = page_of(folder)
    assert {"results-subtype", "results-grade"} <= page.ids
    results = (folder / "index.html").read_text().split('<h2 id="results-')[1:]
    for name, label, other in (("subtype", "y", "high"), ("grade", "high", "y")):
        (section,) = [part.split("<h2")[0] for part in results if part.startswith(name)]
        assert section.startswith(f'{name}">Results: {name}</h2>')
        sizes = re.search(r"30 slides of 30 patients have a label \(([^)]*)\)", section)[1]
        assert sorted(sizes.split(", ")) == sorted([f"15 {label}", "15 x"])
        assert other not in sizes
        assert re.findall(r"\((\w+/\w+\.png)\)", section) == [f"{name}/{png}.png" for png in pngs]
        table = pd.read_csv(folder / name / "table.csv")
        values = [pd.read_csv(folder / name / "predictions.csv")[of].unique() for of in ("task", "label")]
        assert [sorted(of) for of in values] == [[name], sorted(["x", label])]
        alone = make(ROWS, tasks={name: label})
        pd.testing.assert_frame_equal(pd.read_csv(alone / name / "table.csv"), table)
        assert artifacts.read_table(alone / name / "table.parquet", "results")[1]["task"] == name
    assert "Attention of ViT_WSI on regions of dino, task grade" in page.text
    assert all(f'<span class="ok">{of}, 2 regions' in results[-1] for of in ("y, high", "x, x"))


KINDS = {"subtype": "y", "grade": GRADES, "tmb": VALUES, "os": FOLLOW_UP}


def section_of(folder, name):
    """Text of a task's part of the page."""
    parts = (folder / "index.html").read_text().split('<h2 id="')
    return " ".join(Page(next(part for part in parts if part.startswith(f'results-{name}"'))).text.split())


@pytest.fixture(scope="module")
def report_of_kinds(tmp_path_factory, settings):
    """The folder of the report of ROWS on a task of each kind, which tests only read."""
    return write_without_figures(tmp_path_factory.mktemp("kinds"), settings, ROWS, tasks=KINDS)


def test_each_kind_of_endpoint_is_reported_in_its_own_words(report_of_kinds):
    texts = {name: section_of(report_of_kinds, name) for name in KINDS}
    assert "30 slides of 30 patients have a label (9 low, 9 mid, 12 top)." in texts["grade"]
    assert "30 slides of 30 patients have a value (12.5 to 27.5, median 20)." in texts["tmb"]
    assert re.search(r"30 slides of 15 patients have follow-up \(\d+ events\)\.", texts["os"])
    for name, main in {"subtype": "AUC", "grade": "Kappa", "tmb": "R²", "os": "C-index"}.items():
        assert re.search(
            rf"The reference row, ViT_WSI on regions of slpd, has a mean {main} of 1?\.\d{{3}}", texts[name]
        )
        assert f"2 rows are compared in {main} with the reference row" in texts[name]
    assert not any(re.search(r"\bAUC", texts[name]) for name in ("grade", "tmb"))
    assert "the labels" not in texts["tmb"] + texts["os"]
    assert "Test patients, mean ±" in texts["os"]
    assert "Scores by patient are the same" in texts["tmb"]
    assert "log-rank test" in texts["os"]


def test_each_kind_has_the_figures_that_the_workflow_expects(report_of_kinds):
    for name, kind in {"subtype": "classification", "grade": "ordinal", "tmb": "regression", "os": "survival"}.items():
        expected = {*rows.FIGURES[kind]} | ({"knn"} if kind in ("classification", "ordinal") else set())
        assert {path.stem for path in (report_of_kinds / name).glob("*.png")} == expected
        shown = re.findall(r"\((\w+/\w+)\.png\)", section_of(report_of_kinds, name))
        assert {*shown} == {f"{name}/{figure}" for figure in expected}


def test_predictions_of_each_kind_are_listed_with_their_truth(report_of_kinds):
    names = ["task", "features", "classifier", "fold", "slide_id", "patient_id"]
    for name, columns in {"tmb": ["value", "prediction"], "os": ["time", "event", "risk"]}.items():
        table = pd.read_csv(report_of_kinds / name / "predictions.csv")
        assert [*table.columns] == [*names, *columns, f"ensemble_{columns[-1]}"]
        of = table[(table["features"] == "dino") & (table["fold"] == 1)].reset_index(drop=True)
        planted = plant(KINDS[name], 1, ROWS["dino", "knn"])
        pd.testing.assert_frame_equal(of[columns], planted[columns], check_dtype=False, atol=1e-6)
    assert table["event"].isin([0, 1]).all()


def test_each_slide_is_shown_with_its_truth_in_all_tasks(report_of_kinds):
    values = [plant(endpoint, 0, 1).iloc[0] for endpoint in (GRADES, VALUES, FOLLOW_UP)]
    event = "event" if values[2]["event"] else "censored"
    text = f"y, {values[0]['label']}, tmb: {values[1]['value']:.4g}, os: {event} at {values[2]['time']:.4g}, 2 regions"
    assert text in " ".join(page_of(report_of_kinds).text.split())


def test_a_fold_without_a_main_score_is_named_in_the_words_of_its_kind(make, monkeypatch):
    """Fold 1: one value; nobody outlives the first event."""

    def planted(endpoint, fold, *options):
        frame = plant_predictions(endpoint, fold, 1.0, slides_per_patient=1 + (endpoint is FOLLOW_UP))
        constant = {"value": 7.0} if endpoint is VALUES else {"time": 2.0, "event": True}
        return frame.assign(**constant) if fold == 1 else frame

    monkeypatch.setitem(globals(), "plant", planted)
    folder = make(ROWS, tasks={"tmb": VALUES, "os": FOLLOW_UP})
    assert "In fold 1 the test slides have one value only: there is no R²" in section_of(folder, "tmb")
    expected = "In fold 1 the test patients hold no event that another of them outlives: there is no C-index"
    assert expected in section_of(folder, "os")
    assert pd.read_csv(folder / "os/table.csv")["c_index_folds"].tolist() == [2] * 3


def test_groups_of_values_are_no_labels_that_a_fold_may_lack(make):
    folder = make(ROWS, tasks={"tmb": VALUES}, remarks=[("label not trained", "q1", 0)])
    assert "†" not in (folder / "tmb/table.md").read_text()
    assert pd.read_csv(folder / "tmb/table.csv")["partial_folds"].tolist() == [0] * len(ROWS)


def test_figures_of_each_kind_are_drawn_of_their_cases(make, monkeypatch):
    drawn = {}
    for name in ("plot_regression", "plot_kaplan_meier", "plot_dynamic_auc"):
        monkeypatch.setattr(figures, name, lambda *args, name=name, **_: drawn.update({name: args}) or blank_figure())
    make(ROWS, tasks={"tmb": VALUES, "os": FOLLOW_UP}, drawn=True)
    title, predicted, truth = drawn["plot_regression"]
    assert (title, len(truth)) == ("ViT_WSI on regions of slpd", 30)
    planted = pd.concat([plant(VALUES, fold, ROWS["slpd", "vit_wsi"]) for fold in range(3)]).set_index("slide_id")
    np.testing.assert_array_equal(np.sort(truth), np.sort(planted["value"]))
    assert np.corrcoef(truth, predicted)[0, 1] == pytest.approx(planted[["value", "prediction"]].corr().iloc[0, 1])
    ((title, (time, _, high)),) = drawn["plot_kaplan_meier"][0].items()
    follow_up = pd.concat([plant(FOLLOW_UP, fold, ROWS["slpd", "vit_wsi"]) for fold in range(3)])
    patients = follow_up.drop_duplicates("patient_id")
    assert (title, high.sum()) == ("ViT_WSI on regions of slpd", (patients["risk"] > 0).sum())
    np.testing.assert_array_equal(np.sort(time), np.sort(patients["time"]))
    panels, _, times = drawn["plot_dynamic_auc"]
    assert [*panels] == ["KNN (mean)", "MIL", "ViT_WSI"]
    assert panels["ViT_WSI"]["slpd"].shape == (3, len(times))


def test_without_labels_all_but_the_results_is_reported(make):
    folder = make({}, tasks={}, drawn=True, slide_remarks={"s0-1": "9 of 10 px are tissue."})
    page = page_of(folder)
    text = " ".join(page.text.split())
    assert "30 slides came in and all took part (30 patients)" in text
    assert "The slides have no labels: nothing was evaluated" in text
    assert {path.name for path in folder.iterdir()} == {*TEXTS, "training.png", "tsne.png"}
    assert {"pretraining", "prototypes", "slides", "provenance"} <= page.ids
    assert not {"attention", "results-label"} & page.ids
    assert "of up to 10 random slides, runs side by side: coloured by slide." in text
    assert 's0-0<br><span class="ok">2 regions' in (folder / "index.html").read_text()
    inside = [reference[1:] for reference in page.references if reference.startswith("#")]
    assert [*dict.fromkeys(inside)] == ["verdicts", "pretraining", "prototypes", "slides", "methods", "provenance"]
    assert "no labels" not in page_of(make(ROWS)).text


def test_the_curve_of_the_nearest_regions_is_that_of_each_task(make, monkeypatch):
    """The embeddings of all runs tell the labels of subtype, and none of the others, before epoch 1."""
    drawn, knn_history = [], task.knn_history

    def noted(*arrays, labels, **named):
        drawn.append((set(labels.values()), knn_history(*arrays, labels=labels, **named)["knn_accuracy"].tolist()))
        return knn_history(*arrays, labels=labels, **named)

    monkeypatch.setattr(task, "knn_history", noted)
    folder = make(ROWS, tasks={"subtype": "y", "grade": "high"}, drawn=True)
    assert [labels for labels, _ in drawn] == [{"x", "y"}] * 2 + [{"x", "high"}] * 2  # two runs each
    assert all(before < 1 and after == 1 for _, (before, after) in drawn)
    assert (folder / "subtype/knn.png").stat().st_size
    assert "knn.png" not in page_of(make(ROWS, runs=())).text


def test_with_nothing_evaluated_the_slides_are_still_reported(make):
    text = page_of(make({}, runs=("dino",), drawn=True)).text
    assert "30 slides came in" in text
    assert "were tested" not in text


def test_the_slides_shown_in_the_plane_are_the_same_in_any_order():
    """Of each label; slides without one are shown only where none has."""
    ledger = pd.DataFrame({"slide_id": [f"s{i:02d}" for i in range(20)], "status": artifacts.OK})
    ledger.loc[3, "status"] = artifacts.QUARANTINED
    labels = dict(zip(ledger["slide_id"], "xy" * 9, strict=False))
    chosen = projection.choose_slides(ledger, labels, 4, seed=1)
    assert [labels[slide] for slide in chosen] == ["x"] * 4 + ["y"] * 4
    assert chosen == projection.choose_slides(ledger[::-1], labels, 4, seed=1)
    assert set(chosen) != set(projection.choose_slides(ledger, labels, 4, seed=2))
    assert set(projection.choose_slides(ledger, labels, 20, seed=1)) == {*labels} - {"s03"}
    unlabeled = projection.choose_slides(ledger, {}, 4, seed=1)
    assert len(set(unlabeled)) == 4
    assert set(projection.choose_slides(ledger, {}, 20, seed=1)) == {*ledger["slide_id"]} - {"s03"}


def test_thumbnails_are_small_and_stop_at_the_limit(tmp_path):
    for name in "abc":
        artifacts.write_picture(tmp_path / f"{name}.png", Image.new("RGBA", (900, 300), "pink"))
    slides = ["a", "missing", "b", "c"]
    whole = page_parts.inline_thumbnails(tmp_path, slides, max_bytes=10**6)
    assert list(whole) == ["a", "missing", "b", "c"]
    assert whole["missing"] == ""
    jpeg = base64.b64decode(whole["a"].removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(jpeg)).size == (200, 67)
    assert list(page_parts.inline_thumbnails(tmp_path, slides, max_bytes=2 * len(whole["a"]))) == ["a", "missing", "b"]
    assert page_parts.inline_thumbnails(tmp_path, slides, max_bytes=-1) == {}


@pytest.mark.long
def test_the_page_of_a_thousand_slides_stays_below_25_mb(make, tmp_path):
    """Thumbnails of noise do not compress; those that do not fit are missing, and the page says so."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    artifacts.write_picture(tmp_path / "noise.png", noise)
    for fold in range(100):
        for i in range(fold == 0, 10):  # make() draws s0-0
            (tmp_path / f"s{fold}-{i}.png").hardlink_to(tmp_path / "noise.png")
    page = make({("slpd", "vit_wsi"): 3.0}, n_folds=100, drawn=True) / "index.html"
    assert 20e6 < page.stat().st_size < 25e6
    shown = int(re.search(r"The first (\d+) of 1000 slides", page.read_text())[1])
    assert page.read_text().count('loading="lazy"') == shown > 500


BENCHMARK = "s\th:m:s\tmax_rss\tcpu_time\n"


def test_the_page_says_what_each_stage_took(make, tmp_path):
    jobs = {
        "tokens/a": "3600.4\t1:00:00\t1500.0\t9",
        "tokens/b": "65\t0:01:05\t-\t-",  # too short for its memory to be measured
        "evaluate/slpd/knn/fold0": "1.2\t0:00:01\tNA\t1",
        "compared/plain/tokens/a": "10\t0:00:10\t100\t1",
        "predict/predict": "99\t0:01:39\t100\t1",
        "pretrain/slpd": "60\t0:01:00\t2000\t1",
    }
    attempts = ["10:00:00,000 INFO ---- pretrain slpd begins ----", "10:59:00,000 INFO stopped in epoch 3"]
    attempts += [
        "12:00:00,000 INFO ---- pretrain slpd begins ----",
        "12:01:00,000 INFO ---- pretrain slpd is done in 60.0 s ----",
    ]
    artifacts.write_text(
        tmp_path / "logs" / "pretrain" / "slpd.log", "".join(f"2026-12-01 {line}\n" for line in attempts)
    )
    for name, line in jobs.items():
        artifacts.write_text(tmp_path / "benchmarks" / f"{name}.tsv", BENCHMARK + line + "\n")
    page = make(ROWS)
    text = (page / "index.html").read_text().split("Most memory")[1].split("</table>")[0]
    rows = [re.findall(r">([^<]+)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", text)]
    assert rows == [
        ["tokens", "2", "1:01:05", "1:00:00", "1.5"],
        ["other patch encoders", "1", "0:00:10", "0:00:10", "0.1"],
        ["pretrain", "1", "1:00:00", "1:00:00", "2.0"],  # and the 59 minutes of an attempt that was stopped
        ["evaluate", "1", "0:00:01", "0:00:01", "–"],
    ]


def test_the_page_says_the_seed_and_the_versions(report_of_rows):
    text = (report_of_rows / "index.html").read_text()
    assert re.search(r"Seed 1; Python 3\.\d+\.\d+, snakemake 9\.\S+, torch ", text)


def test_every_file_stands_in_the_provenance(report_of_rows):
    text = page_of(report_of_rows).text
    files = [f"label/{features}/{classifier}/fold{fold}" for features, classifier in ROWS for fold in range(3)]
    files += ["ledger", "labels/label", "folds/label", "dino", "slpd"]
    assert [name for name in files if f"\n{name}" not in text] == []
    assert "key: 1" in text
    assert artifacts.provenance("stage", 1, {"key": 1})["fingerprint"] in text


@pytest.mark.long
def test_the_same_artifacts_give_the_same_page(make):
    assert (make(ROWS, drawn=True) / "index.html").read_bytes() == (make(ROWS, drawn=True) / "index.html").read_bytes()


@pytest.mark.long
@pytest.mark.parametrize(("width", "dark"), [(400, False), (1280, False), (1280, True)])
def test_a_browser_shows_the_page(make, browser, width, dark):
    """On narrow and wide screens, light and dark: nothing is wider than the screen, no picture is missing, no error."""
    lost = [
        ("lost", artifacts.QUARANTINED, HOSTILE),
        ("a-very-long-name" * 9, artifacts.EMPTY, "no-space-to-break-at" * 9),
    ]
    folder = make(
        {("patch_tokens", "mil"): 0.3, ("slpd", "vit_wsi"): 3.0},
        left_out=lost,
        tasks=KINDS | {"subtype": "tumour" * 9},
        source="dino",
        drawn=True,
    )
    seen = browser(folder / "index.html", width, dark)
    assert seen["console"] == seen["broken"] == []
    assert seen["images"] == (folder / "index.html").read_text().count("<img ")
    assert width - 20 < seen["view"] == seen["page"]
    assert seen["headings"][0] == 1
    assert set(seen["headings"][1:]) == {2, 3}
    assert (seen["ink"] > 0.8 and seen["paper"] < 0.2) if dark else (seen["ink"] < 0.2 and seen["paper"] > 0.9)
