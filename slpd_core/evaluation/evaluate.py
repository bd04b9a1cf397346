"""Evaluation: fit a classifier on a fold's training slides and predict its test slides.

The protocol is HIPT's: the last epoch is evaluated, and validation slides, if there are any, steer nothing. With
evaluate.select: val they choose the epoch and the learning rate, and nothing else does.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.evaluation import classifiers
from slpd_core.evaluation.classifiers import FittedClassifier, TrainingOptions
from slpd_core.evaluation.features import ReadSlide, patch_encoder_meta, read_features, validated
from slpd_core.evaluation.training import LR, Validation
from slpd_core.runtime import log

VERSION = 8


@dataclass(frozen=True)
class Fold:
    """The slides of a fold.

    Attributes:
        train, val, test: Rows of the `folds` table, by slide_id.
        labels: Class indices of the training slides, int64 (train slides,).
        classes: Sorted labels of all folds.
    """

    train: pd.DataFrame
    val: pd.DataFrame
    test: pd.DataFrame
    labels: np.ndarray
    classes: list[str]


def select_fold(folds: pd.DataFrame, fold: int) -> Fold:
    """Select a fold.

    Args:
        folds: The `folds` table.
        fold: Its index.

    Returns:
        Its slides.

    Raises:
        ValueError: Its training part has one label only.
    """
    classes = sorted(folds["label"].unique())
    rows = folds[folds["fold"] == fold]
    train, val, test = (rows[rows["part"] == part].sort_values("slide_id") for part in ("train", "val", "test"))
    labels = _class_indices(train, classes)
    if len(np.unique(labels)) < 2:
        names = ", ".join(train["label"].unique()) or "none"
        raise ValueError(
            f"fold {fold}: its training slides have one label only ({names}); lower folds.n_folds or add slides"
        )
    return Fold(train, val, test, labels, classes)


def _class_indices(slides: pd.DataFrame, classes: list[str]) -> np.ndarray:
    return np.array([classes.index(label) for label in slides["label"]], np.int64)


def select_validation(
    folds: pd.DataFrame, fold: int, select: Literal["last", "val"], lr_grid: Sequence[float] = ()
) -> Validation | None:
    """Select the slides that choose a network's epoch and learning rate.

    Args:
        folds: The `folds` table.
        fold: Its index.
        select: "last" for none: the last epoch is taken.
        lr_grid: Learning rates to choose from.

    Returns:
        The validation slides of the fold; None for "last".

    Raises:
        ValueError: The fold has none.
    """
    if select == "last":
        return None
    slides = select_fold(folds, fold)
    if slides.val.empty:
        raise ValueError(
            f"fold {fold}: no validation slides, which evaluate.select: val needs; raise folds.val_fraction, add them "
            "to the imported splits, or set evaluate.select to last"
        )
    return Validation(slides.val["slide_id"].to_list(), _class_indices(slides.val, slides.classes), lr_grid)


def fit_and_predict(
    read: ReadSlide, fold: Fold, classifier: str, seed: int, **training: Unpack[TrainingOptions]
) -> tuple[FittedClassifier, np.ndarray]:
    """Fit a classifier on a fold's training slides and predict its test slides.

    Args:
        read: Returns the features of a slide.
        fold: Its slides.
        classifier: knn, logreg, mil, abmil, dsmil or vit_wsi.
        seed: Of the training.
        training: Options of `fit_classifier`.

    Returns:
        The classifier, and the probabilities of the test slides, float64 (test slides, C).
    """
    slide_ids = fold.train["slide_id"].to_list()
    model = classifiers.fit_classifier(read, slide_ids, fold.labels, fold.classes, classifier, seed, **training)
    predict = classifiers.build_predictor(model)
    probabilities = [predict(read(slide_id))[0] for slide_id in fold.test["slide_id"]]
    return model, np.array(probabilities).reshape(-1, len(fold.classes))


def predict_fold(
    folds: pd.DataFrame, fold: int, read: ReadSlide, classifier: str, seed: int, **training: Unpack[TrainingOptions]
) -> tuple[FittedClassifier, pd.DataFrame]:
    """Fit a classifier on a fold of a table and predict its test slides.

    Args:
        folds: The `folds` table.
        fold: Its index.
        read, classifier, seed, training: As in `fit_and_predict`.

    Returns:
        The classifier, and the `evaluate` table of the test slides.

    Raises:
        ValueError: The training part has one label only, a slide has no features, or the training diverged.
    """
    slides = select_fold(folds, fold)
    model, probabilities = fit_and_predict(validated(read), slides, classifier, seed, **training)
    if not np.isfinite(probabilities).all():
        lr = training.get("lr", LR)
        raise ValueError(f"fold {fold}: {classifier} diverged while training; lower evaluate.lr ({lr:g})")
    predictions = slides.test[["fold", "slide_id", "patient_id", "label"]].reset_index(drop=True)
    columns = {f"p_{label}": probabilities[:, c] for c, label in enumerate(slides.classes)}
    return model, predictions.assign(**columns)


def run(
    *,
    folds_path: Path,
    fold: int,
    features: str,
    classifier: str,
    embed_path: Path | None,
    tokens_dir: Path,
    ledger_path: Path,
    out_path: Path,
    model_path: Path,
    section: config.ClassifierTrainingConfig,
    seed: int,
) -> None:
    """Fit a classifier on one fold of one kind of features; write its predictions and the classifier.

    Args:
        folds_path: The folds of a task.
        fold: Index of the fold.
        features: As evaluate.classifiers names them.
        classifier: knn, logreg, mil, abmil, dsmil or vit_wsi.
        embed_path: Embeddings of the run that the features name; None for features of patches, read from the tokens.
        tokens_dir, ledger_path: Of the patch encoder that the features name, else of the cohort's.
        out_path: The `evaluate` table.
        model_path: The fitted classifier.
        section: Of the config.
        seed: Of the training.
    """
    folds, folds_meta = artifacts.read_table(folds_path, "folds")
    slide_ids = folds.loc[folds["fold"] == fold, "slide_id"].to_list()
    level, read, fingerprint = read_features(features, embed_path, tokens_dir, slide_ids, ledger_path)
    chosen = section.select if classifier in config.NETWORK_CLASSIFIERS else "last"
    validation = select_validation(folds, fold, chosen, section.lr_grid or ())
    model, predictions = predict_fold(folds, fold, read, classifier, seed, validation=validation, **section.options)
    inputs = (folds_meta["fingerprint"], fingerprint, features, classifier, str(fold), str(seed))
    meta = artifacts.provenance("evaluate", VERSION, section.model_dump(), *inputs)
    meta |= {"features": features, "level": level, "classifier": classifier, "classes": json.dumps(model.classes)}
    meta |= {"ledger": folds_meta.get("ledger", ""), "task": folds_meta.get("task", "")}
    meta |= patch_encoder_meta(tokens_dir / f"{slide_ids[0]}.h5")
    classifiers.write_classifier(model_path, model, meta)
    artifacts.write_table(out_path, "evaluate", predictions, meta)
    log.info("%d test slides predicted", len(predictions))
