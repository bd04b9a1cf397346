"""Evaluation: train one classifier on one fold's training slides, predict its test slides.

The protocol is HIPT's: the last epoch is evaluated; validation slides, where there are any, steer nothing.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.evaluation import classifiers
from slpd_core.evaluation.features import ReadSlide, patch_encoder_meta, read_features, validated
from slpd_core.runtime import log

VERSION = 6


@dataclass(frozen=True)
class Fold:
    """The slides of one fold that train and test, by slide_id, rows of the `folds` table.

    labels: class indices of the training slides, int64 (train slides,). classes: the sorted labels of all folds.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    labels: np.ndarray
    classes: list[str]


def select_fold(folds: pd.DataFrame, number: int) -> Fold:
    """One fold of the `folds` table; raises ValueError when its training part holds one class only."""
    classes = sorted(folds["label"].unique())
    own = folds[folds["fold"] == number]
    train, test = (own[own["part"] == part].sort_values("slide_id") for part in ("train", "test"))
    labels = np.array([classes.index(label) for label in train["label"]], np.int64)
    if len(np.unique(labels)) < 2:
        found = ", ".join(train["label"].unique()) or "none"
        raise ValueError(
            f"fold {number}: its training slides show one label only ({found}); lower folds.n_folds or add slides"
        )
    return Fold(train, test, labels, classes)


def fit_and_predict(
    read: ReadSlide, fold: Fold, classifier: str, section: config.ClassifierTrainingConfig, seed: int
) -> tuple[classifiers.FittedClassifier, np.ndarray]:
    """A classifier trained on a fold's training slides, and its probabilities of the test slides (test slides, C)."""
    model = classifiers.train(read, [*fold.train["slide_id"]], fold.labels, fold.classes, classifier, section, seed)
    predict = classifiers.predictor(model)
    return model, np.array([predict(read(slide))[0] for slide in fold.test["slide_id"]]).reshape(-1, len(fold.classes))


def predict_fold(
    folds: pd.DataFrame,
    number: int,
    read: ReadSlide,
    classifier: str,
    section: config.ClassifierTrainingConfig,
    seed: int,
) -> tuple[classifiers.FittedClassifier, pd.DataFrame]:
    """Train on a fold's training slides and predict its test slides; gives the model and the predictions.

    Raises ValueError when the training part holds one class only, a slide's features are missing, or the training
    diverged.
    """
    fold = select_fold(folds, number)
    model, probabilities = fit_and_predict(validated(read), fold, classifier, section, seed)
    if not np.isfinite(probabilities).all():
        raise ValueError(f"fold {number}: {classifier} diverged while training; lower evaluate.lr ({section.lr:g})")
    predictions = fold.test[["fold", "slide_id", "patient_id", "label"]].reset_index(drop=True)
    columns = {f"p_{label}": probabilities[:, c] for c, label in enumerate(fold.classes)}
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
    """Write the predictions of one fold of one row of the table, and the classifier that made them.

    embed_path: of the run the features name; None for features of patches, which come from the tokens.
    tokens_dir, ledger_path: of the patch encoder the features name, else of the cohort's own.
    """
    folds, folds_meta = artifacts.read_table(folds_path, "folds")
    slide_ids = folds.loc[folds["fold"] == fold, "slide_id"].to_list()
    level, read, fingerprint = read_features(features, embed_path, tokens_dir, slide_ids, ledger_path)
    model, predictions = predict_fold(folds, fold, read, classifier, section, seed)
    inputs = (folds_meta["fingerprint"], fingerprint, features, classifier, str(fold), str(seed))
    meta = artifacts.provenance("evaluate", VERSION, section.model_dump(), *inputs)
    meta |= {"features": features, "level": level, "classifier": classifier, "classes": json.dumps(model.classes)}
    meta["ledger"] = folds_meta.get("ledger", "")
    meta |= patch_encoder_meta(tokens_dir / f"{slide_ids[0]}.h5")
    classifiers.write(model_path, model, meta)
    artifacts.write_table(out_path, "evaluate", predictions, meta)
    log.info("%d test slides predicted", len(predictions))
