"""The paper's question: what is compared with what, and the words for the interval."""

import numpy as np
import pytest

from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.report import paper_question, result_rows, significance, uncertainty
from slpd_core.report.paper_question import DINO, FROZEN, SLPD
from tests.report.planted_endpoints import plant_predictions

CLASSES = make_endpoint("ordinal", ["low", "mid", "top"])
KINDS = {"dino": DINO, "hipt": FROZEN, "intra": SLPD, "slpd": SLPD}


def rows_of(strengths, n=60):
    """Rows by (features, classifier): strength of the signal in their predictions."""
    parts = []
    for (features, classifier), strength in strengths.items():
        level = "region" if features in {*KINDS, "mean_token"} else "patch"
        meta = {"features": features, "classifier": classifier, "level": level, "bags": "slide"} | CLASSES.meta
        meta |= {"encoder_source": "random" if features == "plain" else "timm", "encoder_name": "vit"}
        parts += [(plant_predictions(CLASSES, fold, strength, n=n), meta) for fold in range(2)]
    return result_rows.join_folds(parts, [*KINDS])


def answers_of(strengths, reference=None, **options):
    rows = rows_of(strengths, **options)
    return paper_question.answer_question(rows, result_rows.select_reference(rows, reference), KINDS)


def test_slpd_is_compared_with_each_simpler_row_by_a_classifier_that_both_have():
    strengths = dict.fromkeys(
        [("patch_tokens", "mil"), ("patch_tokens", "knn"), ("plain", "knn"), ("other", "knn")], 1.0
    )
    strengths |= dict.fromkeys([("mean_token", "knn"), ("hipt", "vit_wsi"), ("hipt", "mil"), ("dino", "knn")], 1.0)
    strengths |= dict.fromkeys([("dino", "vit_wsi"), ("slpd", "knn"), ("slpd", "mil"), ("slpd", "vit_wsi")], 2.0)
    answers = answers_of(strengths)
    assert [(answer.question, answer.sentence.split(" (")[0]) for answer in answers] == [
        ("SLPD against DINO (dino)", "With ViT_WSI"),
        ("SLPD against the published encoder hipt", "With ViT_WSI"),
        ("SLPD against patches", "With MIL"),
        ("SLPD against patches of an untrained encoder (plain)", "With KNN"),
        ("SLPD against the mean token", "With KNN"),
    ]
    assert answers_of(strengths, reference="slpd/knn")[0].sentence.startswith("With KNN")


def test_numbers_are_those_of_the_comparison():
    strengths = {("dino", "mil"): 0.5, ("slpd", "mil"): 3.0}
    dino, slpd = rows_of(strengths)
    (answer,) = answers_of(strengths)
    parts = [uncertainty.compute_influences(row.cases, CLASSES, row.training)["kappa"] for row in (slpd, dino)]
    expected = significance.compare_with_reference(*parts)
    assert {name: getattr(answer, name) for name in expected} == pytest.approx(expected)
    assert expected["difference"] > 0


def test_the_run_is_that_of_the_reference_row_else_the_last_of_its_kind():
    strengths = dict.fromkeys([("dino", "mil"), ("intra", "mil"), ("slpd", "mil")], 1.0)
    assert "SLPD (slpd)" in answers_of(strengths | {("slpd", "mil"): 2.0})[0].sentence
    assert "SLPD (intra)" in answers_of(strengths | {("intra", "mil"): 2.0}, reference="intra/mil")[0].sentence
    assert "SLPD (slpd)" in answers_of(strengths | {("slpd", "mil"): 2.0}, reference="dino/mil")[0].sentence


def test_what_cannot_be_compared_is_said():
    (open_question,) = answers_of({("slpd", "mil"): 1.0})
    assert "There is no row of DINO, so the paper's question stays open; add the run" in open_question.sentence
    (apart,) = answers_of({("slpd", "vit_wsi"): 1.0, ("dino", "knn"): 1.0})
    assert apart.sentence == "slpd and dino have no classifier in common; name one for both in evaluate.classifiers."
    assert np.isnan(apart.difference)
    assert answers_of({("dino", "mil"): 1.0}) == []
    assert paper_question.answer_question([], None, KINDS) == []
    (same,) = answers_of({("slpd", "mil"): 1.0, ("dino", "mil"): 1.0})
    assert "SLPD (slpd) and DINO (dino) cannot be compared" in same.sentence


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.001, 0.2, "A predicts better than B:"),
        (0.0, 0.2, "A and B cannot be told apart:"),
        (-0.2, 0.0, "A and B cannot be told apart:"),
        (-0.2, -0.001, "A predicts worse than B:"),
    ],
)
def test_an_interval_that_holds_0_tells_nothing_apart(low, high, words):
    text = paper_question.describe_outcome("A", "B", difference=(low + high) / 2, low=low, high=high, detectable=0.12)
    assert text.startswith(words)
    assert "a true difference of .120 or more in four of five cases" in text
    nothing = paper_question.describe_outcome("A", "B", difference=0, low=low, high=high, detectable=np.nan)
    assert "No possible difference would have been detected" in nothing


def test_a_run_is_slpd_if_a_loss_with_prototypes_counts():
    plain = {"epochs": 9, "alpha_intra": 0.0, "alpha_inter": 0.0}
    assert paper_question.classify_run(plain) == DINO
    assert {paper_question.classify_run(plain | {key: 0.1}) for key in ("alpha_intra", "alpha_inter")} == {SLPD}
    assert paper_question.classify_run(plain | {"epochs": 0, "alpha_intra": 1.0}) == FROZEN
