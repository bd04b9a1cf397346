"""Retrieval: scores as by plain loops, own patients never found, planted classes found and labels by chance not."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slpd_core import artifacts, config
from slpd_core.endpoints.kinds import Classification
from slpd_core.evaluation import evaluate, folds, retrieval
from slpd_core.prototypes.matching import match_prototypes

X_OR_Y = Classification(("x", "y"))


def average_precision(found, n_relevant):
    """AP at so many, position by position."""
    total = 0.0
    for position in range(1, len(found) + 1):
        if found[position - 1]:
            hits = 0
            for earlier in range(position):
                hits += found[earlier]
            total += hits / position
    return total / min(len(found), n_relevant) if n_relevant else math.nan


def majority(labels):
    """The most frequent label, the first of equals."""
    best, most = "", 0
    for label in labels:
        count = sum(other == label for other in labels)
        if count > most:
            best, most = label, count
    return best


@given(st.lists(st.booleans(), min_size=5, max_size=5), st.integers(0, 9))
def test_average_precision_is_that_of_a_plain_loop(found, further):
    n_relevant = sum(found) + further * (sum(found) < 5)
    expected = average_precision(found, n_relevant)
    np.testing.assert_allclose(retrieval.average_precision_at(found, n_relevant), expected)
    assert not expected > 1 + 1e-12


def test_average_precision_is_one_where_all_that_can_be_found_comes_first():
    assert retrieval.average_precision_at([True, True, False, False, False], 2) == 1
    assert retrieval.average_precision_at([True] * 5, 40) == 1
    assert retrieval.average_precision_at([False] * 5, 3) == 0
    assert math.isnan(retrieval.average_precision_at([False] * 5, 0))


@given(st.lists(st.sampled_from("abc"), max_size=5))
def test_the_majority_is_that_of_a_plain_loop(labels):
    assert retrieval.majority_vote(labels) == majority(labels)


def plant_fold(make_slides, dim=6, signal=1.0, M=3, seed=0):
    """A fold whose patients have slides on both sides, as imported splits may, and prototypes of its slides."""
    slides, rng = make_slides(9, slides=(2, 3)), np.random.default_rng(seed)
    part = np.where(rng.random(len(slides)) < 0.4, "test", "train")
    fold = evaluate.select_fold(slides.assign(fold=0, part=part), 0, X_OR_Y)
    prototypes = {
        slide.slide_id: rng.normal(size=(M, dim)).astype(np.float32) + signal * (slide.label == "y")
        for slide in slides.itertuples()
    }
    return fold, [np.stack([prototypes[slide] for slide in of["slide_id"]]) for of in (fold.test, fold.train)]


def retrieve_plainly(fold, queries, prototypes):
    """Rows of `retrieve_fold` by loops over all pairs of slides."""
    lines = []
    for i, query in enumerate(fold.test.itertuples()):
        similarity = []
        for j, slide in enumerate(fold.train.itertuples()):
            if slide.patient_id != query.patient_id:
                cosine = match_prototypes(queries[i], prototypes[j])[0]
                similarity.append((-cosine, j, slide.label))
        labels = [label for *_, label in sorted(similarity)]
        found = [label == query.label for label in labels[:5]]
        votes = {f"mv_{k}": float(majority(labels[:k]) == query.label) for k in (1, 3, 5)}
        lines.append({"ap_5": average_precision(found, labels.count(query.label))} | votes)
    return pd.DataFrame(lines)


@pytest.mark.parametrize("M", [1, 3])
def test_a_fold_is_scored_as_by_plain_loops_and_no_slide_finds_its_own_patient(make_slides, M):
    fold, (queries, prototypes) = plant_fold(make_slides, M=M)
    shared = {*fold.train["patient_id"]} & {*fold.test["patient_id"]}
    assert len(shared) > 5
    table = retrieval.retrieve_fold(fold, queries, prototypes)
    pd.testing.assert_frame_equal(table[["ap_5", "mv_1", "mv_3", "mv_5"]], retrieve_plainly(fold, queries, prototypes))
    assert table["slide_id"].tolist() == fold.test["slide_id"].tolist()
    if M == 1:
        unit = [x[:, 0] / np.linalg.norm(x[:, 0], axis=1, keepdims=True) for x in (queries, prototypes)]
        cosine = np.where(fold.test["patient_id"].to_numpy()[:, None] == fold.train["patient_id"].to_numpy(), -2, 0)
        nearest = fold.train["label"].to_numpy()[(unit[0] @ unit[1].T + cosine).argmax(1)]
        np.testing.assert_array_equal(table["mv_1"], nearest == fold.test["label"])


def test_a_query_whose_label_no_other_patient_has_has_no_average_precision():
    rows = [(0, "a", "p", "x", "test"), (0, "b", "p", "x", "train"), (0, "c", "q", "y", "train")]
    fold = evaluate.select_fold(pd.DataFrame(rows, columns=[*artifacts.TABLES["folds"]]), 0, X_OR_Y)
    table = retrieval.retrieve_fold(fold, np.ones((1, 1, 2), "f4"), np.ones((2, 1, 2), "f4"))
    assert math.isnan(table.loc[0, "ap_5"])
    assert table.loc[0, ["mv_1", "mv_3", "mv_5"]].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("signal", "low", "high"), [(4.0, 0.99, 1.0), (0.0, 0.35, 0.65)])
def test_planted_classes_are_found_and_labels_by_chance_not(make_slides, signal, low, high):
    slides, rng = make_slides(100, slides=(1,)), np.random.default_rng(0)
    parts, tables = folds.make_folds(slides, 1, n_folds=4), []
    shift = {"x": -signal, "y": signal}
    planted = {s.slide_id: (rng.normal(size=(2, 5)) + shift[s.label]).astype("f4") for s in slides.itertuples()}
    for i in range(4):
        fold = evaluate.select_fold(parts, i)
        of = [np.stack([planted[slide] for slide in part["slide_id"]]) for part in (fold.test, fold.train)]
        tables.append(retrieval.retrieve_fold(fold, *of))
    votes = pd.concat(tables)[["mv_1", "mv_3", "mv_5"]].mean()
    assert votes.between(low, high).all()  # by chance .5; the standard error over 200 slides is .035


def test_prototypes_are_those_of_the_clustering_and_few_regions_are_repeated(plant, make_slides):
    slides = make_slides(4, slides=(1,))
    regions = plant(slides, 1.0, dim=4)
    ids = [*regions]
    regions[ids[2]] = regions[ids[2]][:2]
    regions[ids[5]] = regions[ids[5]][:1]
    prototypes = retrieval.compute_prototypes(regions.__getitem__, ids, 3, seed=1, epoch=7)
    assert prototypes.shape == (8, 3, 4)
    np.testing.assert_array_equal(prototypes[2], regions[ids[2]][[0, 1, 0]])
    np.testing.assert_array_equal(prototypes[5], regions[ids[5]][[0, 0, 0]])
    one = retrieval.compute_prototypes(regions.__getitem__, ids, 1, seed=1, epoch=7)[:, 0]
    np.testing.assert_allclose(one, [regions[slide].mean(0) for slide in ids], rtol=1e-5, atol=1e-6)
    alone = retrieval.compute_prototypes(regions.__getitem__, ids[3:4], 3, seed=1, epoch=7)
    np.testing.assert_allclose(prototypes[3:4], alone, rtol=1e-6)


@pytest.fixture
def run(stored):
    """Run the stage on one kind of features; gives its table and metadata."""

    def run(features):
        section = config.SearchIndexConfig(n_prototypes=2, kmeans_restarts=2, kmeans_iterations=5, epochs=3)
        retrieval.run(
            folds_path=stored / "folds.parquet",
            features=features,
            embed_paths=[stored / "slpd.parquet"] * 3 if features == "slpd" else [],
            tokens_dir=stored / "tokens",
            ledger_path=stored / "ledger.parquet",
            out_path=stored / "retrieval.parquet",
            section=section,
            seed=1,
        )
        return artifacts.read_table(stored / "retrieval.parquet", "retrieval")

    return run


LEVELS = {"slpd": [1, 2], "mean_token": [1, 2], "whitened_mean_token": [1, 2], "mean_color": [1], "patch_tokens": [1]}


@pytest.mark.parametrize(("features", "numbers"), LEVELS.items())
def test_the_stage_queries_each_test_slide_once_per_number_of_prototypes(run, stored, features, numbers):
    table, meta = run(features)
    parts, _ = artifacts.read_table(stored / "folds.parquet", "folds")
    tested = parts[parts["part"] == "test"]
    assert sorted(table["n_prototypes"].unique()) == numbers
    for M, of in table.groupby("n_prototypes"):
        assert sorted(of["slide_id"]) == sorted(tested["slide_id"])
        # Whitened by the covariance of means, single regions are mostly noise.
        if (features, M) != ("whitened_mean_token", 2):
            assert of[["ap_5", "mv_1", "mv_5"]].to_numpy().mean() > 0.8
    assert meta["features"] == features


def test_the_mean_token_finds_what_equal_embeddings_find(run):
    """The planted tokens of a region are its embedding, but for half precision."""
    pd.testing.assert_frame_equal(run("mean_token")[0], run("slpd")[0])
