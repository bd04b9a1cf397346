"""Evaluation: fit a classifier on a fold's training slides and predict its test slides.

The protocol is HIPT's: the last epoch is evaluated, and validation slides, if there are any, steer nothing. With
evaluate.select: val they choose the epoch and the learning rate, and nothing else does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.kinds import Classification, read_endpoint
from slpd_core.evaluation import classifiers
from slpd_core.evaluation.classifiers import FittedClassifier, TrainingOptions
from slpd_core.evaluation.features import ReadSlide, patch_encoder_meta, read_features, validated
from slpd_core.evaluation.labels import describe_divided
from slpd_core.evaluation.training import LR, Bags, Validation
from slpd_core.evaluation.whitening import fit_whitening
from slpd_core.runtime import log, progress

VERSION = 9


@dataclass(frozen=True)
class Fold:
    """The slides of a fold.

    Attributes:
        index: Of the fold.
        train, val, test: Rows of the `folds` table, by slide_id; `bag` names the bag that a slide belongs to.
        endpoint: What to predict.
    """

    index: int
    train: pd.DataFrame
    val: pd.DataFrame
    test: pd.DataFrame
    endpoint: Endpoint

    def bags(self, part: pd.DataFrame) -> Bags:
        """Return the bags of a part.

        Args:
            part: train, val or test.

        Returns:
            Its bags.
        """
        rows = part.drop_duplicates("bag")
        return Bags(rows["bag"].to_list(), self.endpoint.encode(rows))

    def read_bags(self, read: ReadSlide) -> ReadSlide:
        """Read the features of bags: those of its slides, one after the other.

        Args:
            read: Returns the features of a slide.

        Returns:
            Returns the features of a bag.
        """
        slides = pd.concat([self.train, self.val, self.test])
        of_bag = {bag: rows.to_list() for bag, rows in slides.groupby("bag")["slide_id"]}
        return lambda bag: read(bag) if of_bag[bag] == [bag] else np.concatenate([*map(read, of_bag[bag])])


def name_bags(slides: pd.DataFrame, bags: str = "slide") -> pd.Series:
    """Name the bag of each slide.

    Args:
        slides: Columns slide_id and patient_id.
        bags: "slide", or "patient": a patient's slides are one bag.

    Returns:
        The first slide of each slide's bag, in the order of the slides.
    """
    if bags == "slide":
        return slides["slide_id"]
    return slides.groupby("patient_id")["slide_id"].transform("min")


def select_fold(folds: pd.DataFrame, fold: int, endpoint: Endpoint | None = None, bags: str = "slide") -> Fold:
    """Select a fold.

    Args:
        folds: The `folds` table.
        fold: Its index.
        endpoint: What to predict; by default the class of the label.
        bags: As in `name_bags`.

    Returns:
        Its slides.

    Raises:
        ValueError: No classifier can be trained on its training part, or slides that are one bag differ in the truth.
    """
    endpoint = endpoint or Classification(tuple(sorted(folds["label"].unique())))
    rows = folds[folds["fold"] == fold].sort_values("slide_id")
    parts = {part: rows[rows["part"] == part] for part in ("train", "val", "test")}
    selected = {part: slides.assign(bag=name_bags(slides, bags)) for part, slides in parts.items()}
    if problem := endpoint.find_training_problem(selected["train"]):
        raise ValueError(f"fold {fold}: {problem}; lower folds.n_folds or add slides")
    if bags == "patient" and (divided := endpoint.find_divided_patients(rows)):
        raise ValueError(f"fold {fold}: {describe_divided(divided)}")
    return Fold(fold, **selected, endpoint=endpoint)


def select_validation(fold: Fold, select: Literal["last", "val"], lr_grid: Sequence[float] = ()) -> Validation | None:
    """Select the bags that choose a network's epoch and learning rate.

    Args:
        fold: Its slides.
        select: "last" for none: the last epoch is taken.
        lr_grid: Learning rates to choose from.

    Returns:
        The validation bags of the fold; None for "last".

    Raises:
        ValueError: The fold has none that tell how good a network is.
    """
    if select == "last":
        return None
    if fold.val.empty:
        raise ValueError(
            f"fold {fold.index}: no validation slides, which evaluate.select: val needs; raise folds.val_fraction, add "
            "them to the imported splits, or set evaluate.select to last"
        )
    if fold.endpoint.kind == "survival" and (problem := fold.endpoint.find_training_problem(fold.val)):
        raise ValueError(
            f"fold {fold.index}: {problem.replace('training', 'validation')}, so that they choose no epoch; raise "
            "folds.val_fraction, or set evaluate.select to last"
        )
    return Validation(fold.bags(fold.val), lr_grid)


def fit_and_predict(
    read: ReadSlide, fold: Fold, classifier: str, seed: int, *, whiten: bool = False, **options: Unpack[TrainingOptions]
) -> tuple[FittedClassifier, np.ndarray]:
    """Fit a classifier on a fold's training slides and predict its test slides.

    Args:
        read: Returns the features of a slide.
        fold: Its slides.
        classifier: knn, logreg, mil, abmil, dsmil or vit_wsi.
        seed: Of the training.
        whiten: Whether features are whitened, by the training slides.
        options: Of `fit_classifier`.

    Returns:
        The classifier, and the predictions of the test slides, float64 (test slides, P): each that of its bag.
    """
    read_bag, bags = fold.read_bags(read), fold.bags(fold.train)
    if whiten:
        whitening = fit_whitening(np.stack([read(slide).mean(0) for slide in fold.train["slide_id"]]))
        model = classifiers.fit_classifier(
            lambda bag: whitening(read_bag(bag)), bags, fold.endpoint, classifier, seed, **options
        )
        model = replace(model, arrays=model.arrays | whitening.arrays)
    else:
        model = classifiers.fit_classifier(read_bag, bags, fold.endpoint, classifier, seed, **options)
    predict = classifiers.build_predictor(model)
    predictions = {bag: predict(read_bag(bag))[0] for bag in fold.test["bag"].unique()}
    columns = len(fold.endpoint.prediction_columns)
    return model, np.array([predictions[bag] for bag in fold.test["bag"]]).reshape(-1, columns)


def predict_fold(
    fold: Fold, read: ReadSlide, classifier: str, seed: int, *, whiten: bool = False, **options: Unpack[TrainingOptions]
) -> tuple[FittedClassifier, pd.DataFrame]:
    """Fit a classifier on a fold and predict its test slides.

    Args:
        fold: Its slides.
        read, classifier, seed, whiten, options: As in `fit_and_predict`.

    Returns:
        The classifier, and the `evaluate` table of the test slides.

    Raises:
        ValueError: A slide has no features, or the training diverged.
    """
    model, predictions = fit_and_predict(validated(read), fold, classifier, seed, whiten=whiten, **options)
    if not np.isfinite(predictions).all():
        lr = options.get("lr", LR)
        raise ValueError(f"fold {fold.index}: {classifier} diverged while training; lower evaluate.lr ({lr:g})")
    columns = ["fold", "slide_id", "patient_id", *fold.endpoint.columns]
    table = fold.test[columns].reset_index(drop=True)
    return model, table.assign(**dict(zip(fold.endpoint.prediction_columns, predictions.T, strict=True)))


def run(
    *,
    folds_path: Path,
    folds: Sequence[int],
    features: str,
    classifier: str,
    embed_path: Path | None,
    tokens_dir: Path,
    ledger_path: Path,
    out_paths: Sequence[Path],
    model_paths: Sequence[Path],
    section: config.ClassifierTrainingConfig,
    seed: int,
) -> None:
    """Fit a classifier on folds of one kind of features; write the predictions and the classifier of each.

    Args:
        folds_path: The folds of a task.
        folds: Indices of the folds, evaluated one after the other.
        features: As evaluate.classifiers names them.
        classifier: knn, logreg, mil, abmil, dsmil or vit_wsi.
        embed_path: Embeddings of the run that the features name; None for features of patches, read from the tokens.
        tokens_dir, ledger_path: Of the patch encoder that the features name, else of the cohort's.
        out_paths: The `evaluate` table of each fold.
        model_paths: The fitted classifier of each fold.
        section: Of the config.
        seed: Of the training.
    """
    table, folds_meta = artifacts.read_table(folds_path, "folds")
    chosen = section.select if classifier in config.NETWORK_CLASSIFIERS else "last"
    endpoint = read_endpoint(folds_meta)
    bags = section.bags or endpoint.default_bags
    meta_of_all = {"features": features, "classifier": classifier, "bags": bags} | endpoint.meta
    meta_of_all |= {key: folds_meta.get(key, "") for key in ("ledger", "task")}

    @lru_cache(maxsize=1)
    def read_slides(slide_ids: tuple[str, ...]) -> tuple[str, ReadSlide, str]:
        return read_features(features, embed_path, tokens_dir, list(slide_ids), ledger_path)

    files = zip(folds, out_paths, model_paths, strict=True)
    for fold, out_path, model_path in progress(files, len(folds), f"{features}/{classifier}", "folds"):
        slide_ids = table.loc[table["fold"] == fold, "slide_id"].to_list()
        level, read, fingerprint = read_slides(tuple(sorted(slide_ids)))
        slides = select_fold(table, fold, endpoint, bags)
        validation = select_validation(slides, chosen, section.lr_grid or ())
        whiten = features == config.WHITENED_FEATURES
        model, predictions = predict_fold(
            slides, read, classifier, seed, whiten=whiten, validation=validation, **section.options
        )
        inputs = (folds_meta["fingerprint"], fingerprint, features, classifier, str(fold), str(seed))
        meta = artifacts.provenance("evaluate", VERSION, section.model_dump(), *inputs) | {"level": level} | meta_of_all
        meta |= patch_encoder_meta(tokens_dir / f"{slide_ids[0]}.h5")
        classifiers.write_classifier(model_path, model, meta)
        artifacts.write_table(out_path, "evaluate", predictions, meta)
        log.info("fold %d: %d test slides predicted", fold, len(predictions))
