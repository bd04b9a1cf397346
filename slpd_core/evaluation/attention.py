"""Attention: how much each region of every test slide counted, by the classifier of each fold that tests it."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import artifacts
from slpd_core.evaluation import classifiers
from slpd_core.evaluation.classifiers import PredictSlide
from slpd_core.evaluation.evaluate import name_bags
from slpd_core.evaluation.features import ReadSlide, region_features, validated
from slpd_core.runtime import log, progress

VERSION = 1


def attend_bag(predict: PredictSlide, read: ReadSlide, bag: Sequence[str]) -> list[np.ndarray]:
    """Compute how much the regions of each slide of a bag count, within the slide.

    Args:
        predict: Of a classifier of config.ATTENTION.
        read: Returns the features of a slide.
        bag: Slides of the bag.

    Returns:
        Per slide the attention to its regions, float64 (L,), which sums to 1.
    """
    features = [read(slide_id) for slide_id in bag]
    attention = predict(np.concatenate(features))[1]
    assert attention is not None
    within = np.split(attention, np.cumsum([*map(len, features)])[:-1])
    return within if len(bag) == 1 else [part / part.sum() for part in within]


def attend_fold(predict: PredictSlide, read: ReadSlide, tested: pd.DataFrame, bags: str) -> dict[str, np.ndarray]:
    """Compute the attention to the regions of a fold's test slides.

    Args:
        predict: Of the fold's classifier.
        read: Returns the features of a slide.
        tested: Rows of the `folds` table.
        bags: As in `name_bags`.

    Returns:
        By slide, the attention to its regions.
    """
    tested = tested.sort_values("slide_id")
    of_bags = tested.groupby(name_bags(tested, bags))["slide_id"].agg(list)
    return {
        slide_id: attention
        for bag in of_bags
        for slide_id, attention in zip(bag, attend_bag(predict, read, bag), strict=True)
    }


def run(*, folds_path: Path, model_paths: Sequence[Path], embed_paths: Sequence[Path], out_path: Path) -> None:
    """Write the `attention` table of a row: a line per fold, test slide of the fold and region.

    Args:
        folds_path: The folds of a task.
        model_paths, embed_paths: Of each fold, in their order.
        out_path: The table.

    Raises:
        ValueError: Classifiers or embeddings were made from another ledger, or a slide has none.
    """
    folds, folds_meta = artifacts.read_table(folds_path, "folds")
    ledger, inputs, parts = folds_meta.get("ledger", ""), [folds_meta["fingerprint"]], []

    @cache
    def read_corners(path: Path) -> dict[str, pd.DataFrame]:
        table, _ = artifacts.read_table(path, "embed")
        return {str(slide_id): rows[["slide_id", "x", "y"]] for slide_id, rows in table.groupby("slide_id")}

    readers = {path: region_features(path, ledger) for path in dict.fromkeys(embed_paths)}
    tests = folds[folds["part"] == "test"]
    for fold, tested in progress(tests.groupby("fold"), tests["fold"].nunique(), "attention", "folds"):
        model, meta = classifiers.read_classifier(model_paths[fold])
        artifacts.check_ledger(model_paths[fold], meta, ledger)
        read, fingerprint = readers[embed_paths[fold]]
        inputs += [meta["fingerprint"], fingerprint]
        attended = attend_fold(classifiers.build_predictor(model), validated(read), tested, meta["bags"])
        corners = read_corners(embed_paths[fold])
        parts += [corners[name].assign(fold=fold, attention=attended[name]) for name in sorted(attended)]
    columns = [*artifacts.TABLES["attention"]]
    table = pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
    meta = artifacts.provenance("attention", VERSION, {}, *inputs) | {"ledger": ledger}
    artifacts.write_table(out_path, "attention", table, meta)
    log.info("%d slides, %s rows", tests["slide_id"].nunique(), f"{len(table):,}")
