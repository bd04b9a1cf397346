"""The result table: numbers from a slow count, order, ranks, and that every format says the same."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from slpd_core.evaluation import printing, rows

CLASSES = ["x", "y"]


LEVELS = {"colour": "colour", "dino": "region", "slpd": "region"}  # all others are of patches


def fold_of(features, classifier, fold, strength, n=12, source="random", name="vit"):
    """An `evaluate` table whose classifier is the better the stronger, and its metadata."""
    rng = np.random.default_rng([fold, len(features), len(classifier)])
    label = np.array(CLASSES * (n // 2))
    p = 1 / (1 + np.exp(-((label == "y") * 2 - 1) * strength - rng.normal(size=n)))
    ids = [f"s{fold}-{i}" for i in range(n)]
    frame = pd.DataFrame({"fold": fold, "slide_id": ids, "patient_id": ids, "label": label, "p_x": 1 - p, "p_y": p})
    meta = {"features": features, "level": LEVELS.get(features, "patch"), "classifier": classifier}
    return frame, meta | {"classes": json.dumps(CLASSES), "encoder_source": source, "encoder_name": name}


def auc_by_counting(frame):
    """The share of pairs of slides, one a class, that stand in the right order."""
    pairs = [
        (a > b) + (a == b) / 2
        for a in frame.loc[frame["label"] == "y", "p_y"]
        for b in frame.loc[frame["label"] == "x", "p_y"]
    ]
    return sum(pairs) / len(pairs) if pairs else math.nan


def mean_sd_by_hand(values):
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


GIVEN = {
    ("slpd", "vit_wsi"): 2.0,
    ("dino", "mil"): 0.8,
    ("patch", "dsmil"): 0.3,
    ("slpd", "knn"): 1.0,
    ("patch", "knn"): 0,
}


@pytest.fixture(scope="module")
def folds():
    return [fold_of(*key, fold, strength) for key, strength in GIVEN.items() for fold in (2, 0, 1)]


@pytest.fixture(scope="module")
def table(folds):
    return rows.make_table(rows.join_folds(folds, ["dino", "slpd"]), 1 / 2, seed=1)


def test_patch_stands_first_then_the_runs_as_given_and_classifiers_in_their_order(folds):
    found = rows.join_folds(folds, ["dino", "slpd"])
    expected = [("patch", "knn"), ("patch", "dsmil"), ("dino", "mil"), ("slpd", "knn"), ("slpd", "vit_wsi")]
    assert [(row.features, row.classifier) for row in found] == expected
    assert [row.features for row in rows.join_folds(folds, ["slpd", "dino"])][2:] == ["slpd", "slpd", "dino"]


def test_the_rows_bear_the_papers_names(table):
    assert table[["features", "pretraining", "classifier"]].to_numpy().tolist() == [
        ["patch", "none (random)", "KNN (mean)"],
        ["patch", "none (random)", "DS-MIL"],
        ["region", "dino", "MIL"],
        ["region", "slpd", "KNN (mean)"],
        ["region", "slpd", "ViT_WSI"],
    ]


def test_baselines_stand_first_and_say_what_they_are():
    given = [
        ("slpd", "hipt", "vit_s"),
        ("uni", "timm", "vit_l"),
        ("plain", "random", "vit_s"),
        ("same", "hipt", "vit_s"),
    ]
    given += [("patch", "hipt", "vit_s"), ("colour", "hipt", "vit_s")]
    folds = [fold_of(name, "mil", 0, 1.0, source=source, name=of) for name, source, of in given]
    found = rows.join_folds(folds, ["slpd"])
    assert [(row.names["features"], row.names["pretraining"]) for row in found] == [
        ("colour", "–"),
        ("patch", "HIPT"),
        ("patch", "uni (vit_l)"),
        ("patch", "plain (random)"),
        ("patch", "same (HIPT)"),
        ("region", "slpd"),
    ]
    assert [row.sentence for row in found[:3]] == [
        "MIL on the mean colours of patches",
        "MIL on patches",
        "MIL on patches of uni",
    ]


@pytest.mark.parametrize(
    ("source", "text"), [("timm", "vit_l"), ("dino", "DINO (stage one)"), ("random", "none (random)")]
)
def test_patches_are_called_by_the_weights_of_their_encoder(source, text):
    (row,) = rows.join_folds([fold_of("patch", "mil", 0, 1.0, source=source, name="vit_l")], [])
    assert row.names["pretraining"] == text


def test_means_and_deviations_are_those_counted_by_hand(folds, table):
    for features, classifier, line in (("patch", "knn", 0), ("slpd", "vit_wsi", 4)):
        own = [frame for frame, meta in folds if (meta["features"], meta["classifier"]) == (features, classifier)]
        aucs = [auc_by_counting(frame) for frame in own]
        hits = [((frame["p_y"] > 0.5) == (frame["label"] == "y")).mean() for frame in own]
        assert table.loc[line, ["auc_mean", "auc_sd"]].tolist() == pytest.approx(mean_sd_by_hand(aucs))
        assert table.loc[line, ["accuracy_mean", "accuracy_sd"]].tolist() == pytest.approx(mean_sd_by_hand(hits))
    assert (table["folds"] == 3).all()


def test_an_undefined_auc_leaves_the_mean_to_the_other_folds():
    folds = [fold_of("dino", "mil", fold, 1.0) for fold in range(3)]
    folds[1] = (folds[1][0].assign(label="y"), folds[1][1])
    line = rows.make_table(rows.join_folds(folds, ["dino"]), 1 / 2, seed=1).loc[0]
    aucs = [auc_by_counting(folds[fold][0]) for fold in (0, 2)]
    assert (line["folds"], line["auc_folds"]) == (3, 2)
    assert (line["auc_mean"], line["auc_sd"]) == pytest.approx(mean_sd_by_hand(aucs))


def test_every_row_has_an_interval_and_stands_against_the_best(folds, table):
    for score in ("auc", "accuracy", "f1"):
        assert (table[f"{score}_low"] <= table[f"{score}_pooled"]).all()
        assert (table[f"{score}_pooled"] <= table[f"{score}_high"]).all()
    best = table["auc_mean"].idxmax()
    assert table["p"].isna().tolist() == [line == best for line in table.index]
    others = table.drop(best)
    np.testing.assert_allclose(others["auc_less"], table["auc_mean"][best] - others["auc_mean"])
    assert rows.printed(table)[best]["less"] == "–"


@pytest.mark.parametrize(("by", "p", "text"), [(0.0213, 0.34, ".021 (p .340)"), (0.2, 1e-9, ".200 (p < .001)")])
def test_a_difference_is_printed_with_its_p(by, p, text):
    assert printing.less(by, p) == text


def test_no_rows_are_a_table_with_a_head_only():
    table = rows.make_table([], 1 / 2, seed=1)
    assert table.empty
    assert rows.printed(table) == []
    assert len(printing.markdown(rows.as_table([])).splitlines()) == 2


@pytest.mark.parametrize(
    ("mean", "sd", "text"),
    [(0.8641, 0.0419, ".864±.042"), (1.0, 0.0, "1.000±.000"), (0.5, math.nan, ".500±–"), (math.nan, 0.1, "–")],
)
def test_numbers_look_like_the_papers(mean, sd, text):
    assert printing.mean_sd(mean, sd) == text


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ([0.8, 0.9004, 0.9001, 0.7, math.nan], ["second", "best", "best", "", ""]),
        ([0.8125, 0.8124999], ["best", "best"]),  # .812 both: halves round to even
        ([math.nan, math.nan], ["", ""]),
        ([0.5], ["best"]),
        ([], []),
    ],
)
def test_what_prints_alike_ranks_alike(means, expected):
    assert printing.ranks(means) == expected


def test_markdown_and_latex_print_the_numbers_of_the_csv(table):
    lines = rows.printed(table)
    cells = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in printing.markdown(rows.as_table(lines)).splitlines()[2:]
    ]
    body = re.search(r"\\midrule\n(.*)\\bottomrule", printing.latex(rows.as_table(lines)), re.DOTALL)[1].splitlines()
    tex = [[cell.strip() for cell in line.removesuffix(r" \\").split("&")] for line in body]
    assert len(cells) == len(tex) == len(table)
    for i, line in enumerate(table.to_dict("records")):
        assert cells[i][:3] == [line["features"], line["pretraining"], line["classifier"]]
        assert tex[i][:3] == [cell.replace("_", r"\_").replace("–", "--") for cell in cells[i][:3]]
        for j, score in ((3, "accuracy"), (4, "auc")):
            text = f"{line[f'{score}_mean']:.3f}±{line[f'{score}_sd']:.3f}".replace("0.", ".")
            assert re.sub(r"</?u>", "", cells[i][j].strip("*")) == text
            assert re.sub(r"\\textbf\{(.*)\}|\\underline\{(.*)\}", r"\1\2", tex[i][j]) == text.replace("±", r"$\pm$")


def test_the_greatest_mean_is_bold_and_the_second_underlined(table):
    lines = rows.printed(table)
    order = table["auc_mean"].sort_values(ascending=False).index
    markdown, latex = (
        printing.markdown(rows.as_table(lines)).splitlines()[2:],
        printing.latex(rows.as_table(lines)).splitlines()[4:-2],
    )
    assert [i for i, line in enumerate(markdown) if line.rstrip(" |").endswith("**")] == [order[0]]
    assert [i for i, line in enumerate(latex) if r"\textbf" in line.split("&")[4]] == [order[0]]
    assert [i for i, line in enumerate(latex) if r"\underline" in line.split("&")[4]] == [order[1]]
