"""The result table: numbers counted one by one, the order of rows, and the same cells in every format."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.metrics

from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.report import result_rows, result_table, table_format
from tests.report.planted_endpoints import FOLLOW_UP, GRADES, VALUES, plant_predictions

CLASSES = ["x", "y"]
ENDPOINT = make_endpoint("classification", CLASSES)


LEVELS = {"mean_color": "color", **dict.fromkeys(("dino", "slpd", "mean_token", "whitened_mean_token"), "region")}


def fold_of(features, classifier, fold, strength, n=12, source="random", name="vit"):
    """An `evaluate` table and its metadata; a higher strength predicts better."""
    rng = np.random.default_rng([fold, len(features), len(classifier)])
    label = np.array(CLASSES * (n // 2))
    p = 1 / (1 + np.exp(-((label == "y") * 2 - 1) * strength - rng.normal(size=n)))
    ids = [f"s{fold}-{i}" for i in range(n)]
    frame = pd.DataFrame({"fold": fold, "slide_id": ids, "patient_id": ids, "label": label, "p_x": 1 - p, "p_y": p})
    meta = {"features": features, "level": LEVELS.get(features, "patch"), "classifier": classifier}
    return frame, meta | ENDPOINT.meta | {"bags": "slide", "encoder_source": source, "encoder_name": name}


def auc_by_counting(frame):
    """Fraction of pairs of slides, one per class, in the right order."""
    pairs = [
        (a > b) + (a == b) / 2
        for a in frame.loc[frame["label"] == "y", "p_y"]
        for b in frame.loc[frame["label"] == "x", "p_y"]
    ]
    return sum(pairs) / len(pairs) if pairs else math.nan


def mean_sd_by_hand(values):
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


STRENGTHS = {
    ("slpd", "vit_wsi"): 2.0,
    ("dino", "mil"): 0.8,
    ("patch_tokens", "dsmil"): 0.3,
    ("slpd", "knn"): 1.0,
    ("patch_tokens", "knn"): 0,
}


@pytest.fixture(scope="module")
def folds():
    return [fold_of(*key, fold, strength) for key, strength in STRENGTHS.items() for fold in (2, 0, 1)]


@pytest.fixture(scope="module")
def table(folds):
    rows = result_rows.join_folds(folds, ["dino", "slpd"])
    return result_table.make_table(rows, result_rows.select_reference(rows, "slpd/knn"), ENDPOINT)


def test_mean_tokens_stand_before_the_runs_under_names_of_their_own():
    parts = [fold_of(features, "knn", 0, 1.0) for features in ("slpd", "whitened_mean_token", "mean_token")]
    rows = result_rows.join_folds(parts, ["slpd"])
    assert [row.names["pretraining"] for row in rows] == ["mean token, whitened", "mean token", "slpd"]


def test_patch_stands_first_then_the_runs_as_given_and_classifiers_in_their_order(folds):
    rows = result_rows.join_folds(folds, ["dino", "slpd"])
    expected = [
        ("patch_tokens", "knn"),
        ("patch_tokens", "dsmil"),
        ("dino", "mil"),
        ("slpd", "knn"),
        ("slpd", "vit_wsi"),
    ]
    assert [(row.features, row.classifier) for row in rows] == expected
    assert [row.features for row in result_rows.join_folds(folds, ["slpd", "dino"])][2:] == ["slpd", "slpd", "dino"]


def test_the_rows_bear_the_papers_names(table):
    assert table[["features", "pretraining", "classifier"]].to_numpy().tolist() == [
        ["patch", "none (random)", "KNN (mean)"],
        ["patch", "none (random)", "DS-MIL"],
        ["region", "dino", "MIL"],
        ["region", "slpd", "KNN (mean)"],
        ["region", "slpd", "ViT_WSI"],
    ]


def test_baselines_stand_first_and_say_what_they_are():
    encoders = [
        ("slpd", "hipt", "vit_s"),
        ("uni", "timm", "vit_l"),
        ("plain", "random", "vit_s"),
        ("same", "hipt", "vit_s"),
    ]
    encoders += [("patch_tokens", "hipt", "vit_s"), ("mean_color", "hipt", "vit_s")]
    folds = [fold_of(name, "mil", 0, 1.0, source=source, name=of) for name, source, of in encoders]
    rows = result_rows.join_folds(folds, ["slpd"])
    assert [(row.names["features"], row.names["pretraining"]) for row in rows] == [
        ("color", "–"),
        ("patch", "HIPT"),
        ("patch", "uni (vit_l)"),
        ("patch", "plain (random)"),
        ("patch", "same (HIPT)"),
        ("region", "slpd"),
    ]
    assert [row.sentence for row in rows[:3]] == [
        "MIL on the mean colours of patches",
        "MIL on patches",
        "MIL on patches of uni",
    ]


@pytest.mark.parametrize(
    ("source", "text"), [("timm", "vit_l"), ("dino", "DINO (stage one)"), ("random", "none (random)")]
)
def test_patches_are_called_by_the_weights_of_their_encoder(source, text):
    (row,) = result_rows.join_folds([fold_of("patch_tokens", "mil", 0, 1.0, source=source, name="vit_l")], [])
    assert row.names["pretraining"] == text


def test_means_and_deviations_are_those_counted_by_hand(folds, table):
    for features, classifier, line in (("patch_tokens", "knn", 0), ("slpd", "vit_wsi", 4)):
        frames = [frame for frame, meta in folds if (meta["features"], meta["classifier"]) == (features, classifier)]
        aucs = [auc_by_counting(frame) for frame in frames]
        hits = [((frame["p_y"] > 0.5) == (frame["label"] == "y")).mean() for frame in frames]
        assert table.loc[line, ["auc_mean", "auc_sd"]].tolist() == pytest.approx(mean_sd_by_hand(aucs))
        assert table.loc[line, ["accuracy_mean", "accuracy_sd"]].tolist() == pytest.approx(mean_sd_by_hand(hits))
    assert (table["folds"] == 3).all()


def test_an_undefined_auc_leaves_the_mean_to_the_other_folds():
    folds = [fold_of("dino", "mil", fold, 1.0) for fold in range(3)]
    folds[1] = (folds[1][0].assign(label="y"), folds[1][1])
    line = result_table.make_table(result_rows.join_folds(folds, ["dino"]), None, ENDPOINT).loc[0]
    aucs = [auc_by_counting(folds[fold][0]) for fold in (0, 2)]
    assert (line["folds"], line["auc_folds"]) == (3, 2)
    assert (line["auc_mean"], line["auc_sd"]) == pytest.approx(mean_sd_by_hand(aucs))


def test_every_mean_lies_within_its_interval(table):
    for score in ("auc", "accuracy", "f1", "patient_auc", "patient_balanced_accuracy"):
        assert (table[f"{score}_low"] < table[f"{score}_mean"]).all()
        assert (table[f"{score}_mean"] <= table[f"{score}_high"]).all()


def test_every_row_stands_against_the_reference(table):
    reference = table["row"] == "slpd/knn"
    assert (table["reference"] == "slpd/knn").all()
    for score in ("auc", "accuracy"):
        away = table[f"{score}_mean"] - table.loc[reference, f"{score}_mean"].item()
        columns = [f"{score}_difference{end}" for end in ("_low", "", "_high")] + [f"{score}_detectable"]
        assert table.loc[reference, columns].isna().all(axis=None)
        low, mean, high, detectable = table.loc[~reference, columns].to_numpy().T
        np.testing.assert_allclose(mean, away[~reference], atol=1e-12)
        np.testing.assert_allclose(high - mean, mean - low)
        assert (detectable > high - mean).all()
    (printed,) = result_table.format_tables(table, ENDPOINT)
    column = printed.columns.index("AUC difference")
    assert [cells[column] == "reference" for _, cells in printed.lines] == [*reference]


def test_the_reference_is_the_row_named_or_the_last_whatever_the_scores(folds):
    rows = result_rows.join_folds(folds, ["slpd", "dino"])
    assert result_rows.select_reference(rows, "patch_tokens/knn").key == "patch_tokens/knn"
    assert result_rows.select_reference(rows, None).key == "dino/mil"
    assert result_rows.select_reference([], None) is None
    with pytest.raises(
        ValueError, match=r"report\.reference: 'slpd/mil' was not evaluated; name one of patch_tokens/knn, "
    ):
        result_rows.select_reference(rows, "slpd/mil")


def test_scores_by_patient_are_of_the_mean_over_a_patients_slides():
    """Each patient has a slide that is predicted well and one that may not be; their mean is always right."""
    frame, meta = fold_of("slpd", "mil", 0, 0.0)
    rng = np.random.default_rng(0)
    right = np.where(frame["label"] == "y", 1.0, 0.0)
    off = rng.permutation([0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    p = np.concatenate([right * (1 - off) + (1 - right) * off, right])
    two = pd.concat([frame, frame.assign(slide_id=frame["slide_id"] + "b")]).assign(p_y=p, p_x=1 - p)
    rows = result_rows.join_folds([(two, meta)], ["slpd"])
    table = result_table.make_table(rows, rows[0], ENDPOINT)
    assert table.loc[0, "accuracy_mean"] == pytest.approx(1 - 6 / 24)
    assert table.loc[0, ["patient_accuracy_mean", "patient_auc_mean"]].tolist() == [1, 1]
    (_, by_patient) = result_table.format_tables(table, ENDPOINT)
    assert by_patient.columns == ["Accuracy by patient", "95 % interval", "AUC by patient", "95 % interval"]
    assert [text for text, _ in zip(*[iter(by_patient.lines[0][1])] * 2, strict=True)] == ["1.000±–", "1.000±–"]
    whole = result_rows.join_folds([(frame, meta)], ["slpd"])
    assert len(result_table.format_tables(result_table.make_table(whole, whole[0], ENDPOINT), ENDPOINT)) == 1


@pytest.mark.parametrize(
    ("value", "text"), [(0.0213, "+.021"), (-0.2, "−.200"), (-0.0001, ".000"), (0.0001, ".000"), (math.nan, "–")]
)
def test_a_difference_is_printed_with_its_sign(value, text):
    assert table_format.format_difference(value) == text
    assert table_format.format_difference_interval(value, 0.05) == ("–" if math.isnan(value) else f"{text} to +.050")


def test_a_mean_over_folds_that_lack_a_label_is_marked(folds):
    rows = result_rows.join_folds(folds, ["dino", "slpd"])
    whole, partial = (result_table.make_table(rows, rows[0], ENDPOINT, lacking) for lacking in ((), {1, 7}))
    assert (whole["partial_folds"].tolist(), partial["partial_folds"].tolist()) == ([0] * 5, [1] * 5)
    (plain,), (marked,) = result_table.format_tables(whole, ENDPOINT), result_table.format_tables(partial, ENDPOINT)
    assert plain.notes == []
    assert marked.notes[0].startswith("† In 1 of 3 folds a label is missing")
    for (_, without), (_, cells) in zip(plain.lines, marked.lines, strict=True):
        assert [*cells[:4]] == [f"{without[0]}†", without[1], f"{without[2]}†", without[3]]
    assert table_format.format_latex(marked).count(r"$\dagger$ ") == 10
    assert table_format.format_markdown(marked).count("† |") == 10


def test_no_rows_are_a_table_with_a_head_only():
    table = result_table.make_table([], None, ENDPOINT)
    assert table.empty
    assert len(table_format.format_markdown(result_table.format_tables(table, ENDPOINT)[0]).splitlines()) == 2


@pytest.mark.parametrize(
    ("mean", "sd", "text"),
    [(0.8641, 0.0419, ".864±.042"), (1.0, 0.0, "1.000±.000"), (0.5, math.nan, ".500±–"), (math.nan, 0.1, "–")],
)
def test_numbers_look_like_the_papers(mean, sd, text):
    assert table_format.format_mean_sd(mean, sd) == text


def test_markdown_and_latex_print_the_numbers_of_the_csv(table):
    (printed,) = result_table.format_tables(table, ENDPOINT)
    cells = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in table_format.format_markdown(printed).splitlines()[2:]
    ]
    latex = table_format.format_latex(printed)
    assert r"95 \% interval" in latex
    body = re.search(r"\\midrule\n(.*)\\bottomrule", latex, re.DOTALL)[1].splitlines()
    tex = [[cell.strip() for cell in line.removesuffix(r" \\").split("&")] for line in body]
    assert len(cells) == len(tex) == len(table)

    def number(value):
        return f"{value:.3f}".replace("0.", ".")

    for i, line in enumerate(table.to_dict("records")):
        expected = [line["features"], line["pretraining"], line["classifier"]]
        for score in ("accuracy", "auc"):
            mean, sd, low, high = (number(line[f"{score}_{end}"]) for end in ("mean", "sd", "low", "high"))
            expected += [f"{mean}±{sd}", f"{low} to {high}"]
        if line["row"] == "slpd/knn":
            expected += ["reference", "–", "–"]
        else:
            difference, low, high, detectable = (
                line[f"auc_{end}"] for end in ("difference", "difference_low", "difference_high", "detectable")
            )
            signed = [("+" if value > 0 else "−") + number(abs(value)) for value in (difference, low, high)]
            signed = [re.sub(r".(\.000)", r"\1", text) for text in signed]
            expected += [signed[0], f"{signed[1]} to {signed[2]}", number(detectable)]
        assert cells[i] == expected
        replaced = [("_", r"\_"), ("–", "--"), ("±", r"$\pm$"), ("−", "$-$")]
        for old, new in replaced:
            expected = [cell.replace(old, new) for cell in expected]
        assert tex[i] == expected


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123456, "0.0123"), (1.5, "1.50"), (12.345, "12.3"), (1234.5, "1234"), (0.0, "0.00")]
)
def test_a_score_with_a_unit_has_three_digits(value, text):
    assert table_format.format_score(value, table_format.count_decimals(value)) == text


@pytest.mark.parametrize(("value", "text"), [(-0.1234, "−.123"), (-1.5, "−1.500"), (-0.0001, ".000")])
def test_a_negative_score_keeps_its_sign(value, text):
    assert table_format.format_score(value) == text


def planted_rows(endpoint, slides_per_patient=1, bags="slide", n=20):
    """Rows of three folds, of weak and strong predictions."""
    folds = []
    for classifier, strength in (("knn", 0.3), ("logreg", 1.0), ("mil", 3.0)):
        for fold in range(3):
            frame = plant_predictions(endpoint, fold, strength, n=n, slides_per_patient=slides_per_patient)
            _, meta = fold_of("slpd", classifier, fold, 1.0)
            folds.append((frame, meta | endpoint.meta | {"bags": bags}))
    return result_rows.join_folds(folds, ["slpd"])


ORACLES = {
    "kappa": lambda t: sklearn.metrics.cohen_kappa_score(t["label"], predicted_grades(t), weights="quadratic"),
    "accuracy": lambda t: (t["label"] == predicted_grades(t)).mean(),
    "r2": lambda t: sklearn.metrics.r2_score(t["value"], t["prediction"]),
    "mae": lambda t: sklearn.metrics.mean_absolute_error(t["value"], t["prediction"]),
    "spearman": lambda t: scipy.stats.spearmanr(t["value"], t["prediction"]).statistic,
}


def predicted_grades(table):
    return np.array(GRADES.classes)[table[GRADES.prediction_columns].to_numpy().argmax(1)]


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [(GRADES, ("accuracy", "kappa")), (VALUES, ("r2", "mae", "spearman"))],
    ids=["ordinal", "values"],
)
def test_every_kind_has_its_scores(endpoint, shown):
    rows = planted_rows(endpoint)
    table = result_table.make_table(rows, rows[0], endpoint)
    assert f"{shown[0] if endpoint is VALUES else shown[1]}_folds" in table
    for row, line in zip(rows, table.to_dict("records"), strict=True):
        for score in shown:
            values = [ORACLES[score](part) for _, part in row.predictions.groupby("fold")]
            assert (line[f"{score}_mean"], line[f"{score}_sd"]) == pytest.approx(mean_sd_by_hand(values))
            assert line[f"{score}_low"] < line[f"{score}_mean"] < line[f"{score}_high"]
    (printed,) = result_table.format_tables(table, endpoint)
    titles = {"accuracy": "Accuracy", "kappa": "Kappa", "r2": "R²", "mae": "MAE", "spearman": "Spearman"}
    main = titles[endpoint.main_score]
    heads = [head for score in shown for head in (titles[score], "95 % interval")]
    assert printed.columns == [*heads, f"{main} difference", "95 % interval", "Detectable"]
    assert not [column for column in table if "auc" in column]
    if "mae" in shown:
        cells = [cells[heads.index("MAE") : heads.index("MAE") + 2] for _, cells in printed.lines]
        assert all(re.fullmatch(r"\d\.\d\d±\d\.\d\d \d\.\d\d to \d\.\d\d", " ".join(pair)) for pair in cells)


def test_a_linear_classifier_is_called_by_what_it_fits():
    names = {}
    for endpoint in (ENDPOINT, GRADES, VALUES, FOLLOW_UP):
        names[endpoint.kind] = result_rows.name_classifier("logreg", endpoint)
        assert result_rows.name_classifier("knn", endpoint) == "KNN (mean)"
    assert names == {
        "classification": "LR (mean)",
        "ordinal": "LR (mean)",
        "regression": "Ridge (mean)",
        "survival": "Cox (mean)",
    }


def test_patients_whose_slides_are_one_bag_are_scored_once(sksurv):
    """Two slides per patient, with one risk: the C-index is that of the patients, and no second table is needed."""
    rows = planted_rows(FOLLOW_UP, slides_per_patient=2, bags="patient")
    table = result_table.make_table(rows, rows[0], FOLLOW_UP)
    for row, mean in zip(rows, table["c_index_mean"], strict=True):
        folds = [part.drop_duplicates("patient_id") for _, part in row.predictions.groupby("fold")]
        assert [len(part) for part in folds] == row.per_fold["n"].to_list() == [10] * 3
        expected = [
            sksurv.metrics.concordance_index_censored(*(t[c] for c in ("event", "time", "risk")))[0] for t in folds
        ]
        assert mean == pytest.approx(np.mean(expected))
    assert (table["c_index_low"] == table["patient_c_index_low"]).all()
    (printed,) = result_table.format_tables(table, FOLLOW_UP, by_patient=True)
    assert printed.notes == ["The slides of a patient are one bag: scores are of patients."]
    by_slide = planted_rows(FOLLOW_UP, slides_per_patient=2)
    assert by_slide[0].per_fold["n"].to_list() == [20] * 3


def test_no_row_is_a_winner(table):
    (printed,) = result_table.format_tables(table, ENDPOINT)
    assert not re.search(
        r"\*\*|<u>|textbf|underline", table_format.format_markdown(printed) + table_format.format_latex(printed)
    )
