"""Evaluation: train one classifier on one fold's training slides, predict its test slides.

The protocol is HIPT's: validation slides are set aside but steer nothing, the last epoch is evaluated.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import config, store
from slpd_core.runtime import generator, log, progress

VERSION = 4
CACHE_BYTES = 1 << 30
ON_MEANS = ("knn", "logreg")  # classifiers of a slide's mean embedding
ReadSlide = Callable[[str], np.ndarray]


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


def region_features(embed_path: Path) -> tuple[ReadSlide, str]:
    """How to read a slide's region embeddings, float32 (L, D), and the fingerprint of them all."""
    frame, meta = store.read_table(embed_path, "embed")
    slides = {slide_id: np.stack(rows["embedding"].to_list()) for slide_id, rows in frame.groupby("slide_id")}
    none = np.empty((0, int(meta["embed_dim"])), np.float32)
    return lambda slide_id: slides.get(slide_id, none), meta["fingerprint"]


def patch_features(tokens_dir: Path, slide_ids: list[str], kind: str = "tokens") -> tuple[ReadSlide, str]:
    """How to read all patches of a slide, float32 (L, D), and the fingerprint of them all.

    kind: "tokens", or "colour" for the mean RGB of each, here 0..1. Slides are read when asked for; what fits into
    CACHE_BYTES stays in memory as float16. Raises ValueError naming a slide the patch encoder left out.
    """
    cache: dict[str, np.ndarray] = {}
    scale = np.float32(1 / 255 if kind == "colour" else 1)

    def read(slide_id: str) -> np.ndarray:
        patches = cache.get(slide_id)
        if patches is None:
            with store.open_tokens(tokens_dir / f"{slide_id}.h5") as (opened, _):
                regions = getattr(opened, kind)[()]
            patches = regions.reshape(-1, regions.shape[-1])
            if sum(array.nbytes for array in cache.values()) + patches.nbytes <= CACHE_BYTES:
                cache[slide_id] = patches
        return np.multiply(patches, scale, dtype=np.float32)

    prints = []
    for slide_id in sorted(slide_ids):
        path = tokens_dir / f"{slide_id}.h5"
        with store.open_tokens(path) as (opened, meta):
            if opened.slide.status == store.QUARANTINED:
                raise ValueError(
                    f"{path}: slide {slide_id} was quarantined with this patch encoder only ({opened.slide.reason}); "
                    "delete the file and run snakemake again, or leave the slide out of the sheet"
                )
            prints.append(meta["fingerprint"])
    return read, store.fingerprint(*prints)


def read_features(
    features: str, embed_path: Path | None, tokens_dir: Path, slide_ids: list[str]
) -> tuple[str, ReadSlide, str]:
    """What a row's features are of (region, patch or colour), how to read a slide's, the fingerprint of them all."""
    if embed_path:
        return "region", *region_features(embed_path)
    if features == config.COLOUR_FEATURES:
        return "colour", *patch_features(tokens_dir, slide_ids, "colour")
    return "patch", *patch_features(tokens_dir, slide_ids)


def encoder_of(tokens_path: Path) -> store.Meta:
    """What a tokens file says of the patch encoder that made it: source and name."""
    with store.open_tokens(tokens_path) as (_, meta):
        return {key: meta[key] for key in store.ENCODER_META}


def checked(read: ReadSlide) -> ReadSlide:
    """The same reader; raises ValueError naming the slide that has no features or some that are not finite."""

    def read_checked(slide_id: str) -> np.ndarray:
        slide = read(slide_id)
        if not len(slide):
            raise ValueError(
                f"slide {slide_id}: no features; delete its tokens or the run's embeddings and run snakemake again"
            )
        if not np.isfinite(slide).all():
            raise ValueError(
                f"slide {slide_id}: features that are not finite; make its tokens or the run's encoder anew"
            )
        return slide

    return read_checked


def sample_slides(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One epoch: as many draws as slides, with replacement, each class equally likely; int64 (slides,)."""
    weight = 1 / np.bincount(labels)[labels]
    return rng.choice(len(labels), len(labels), p=weight / weight.sum())


def on_means(read: ReadSlide, fold: Fold, classifier: str, section: config.Evaluation) -> np.ndarray:
    """A classifier of a slide's mean embedding: probabilities (test slides, C).

    knn: k nearest neighbours, unscaled, as HIPT. logreg: logistic regression with L2 on standardised embeddings, all
    classes of the same weight.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    means = [np.stack([read(slide).mean(0) for slide in part["slide_id"]]) for part in (fold.train, fold.test)]
    if classifier == "knn":
        model = KNeighborsClassifier(n_neighbors=min(section.knn_neighbours, len(fold.train)))
    else:
        logistic = LogisticRegression(C=section.logreg_c, class_weight="balanced", max_iter=1000)
        model = make_pipeline(StandardScaler(), logistic)
    model.fit(means[0], fold.labels)
    probabilities = np.zeros((len(fold.test), len(fold.classes)))
    probabilities[:, model.classes_] = model.predict_proba(means[1])
    return probabilities


def train_and_predict(
    read: ReadSlide, fold: Fold, classifier: str, section: config.Evaluation, seed: int
) -> np.ndarray:
    """Train MIL, ABMIL, DS-MIL or ViT_WSI, one slide a step: probabilities (test slides, C)."""
    import torch
    import torch.nn.functional as F

    from slpd_core.evaluation import classifiers

    slide_ids = fold.train["slide_id"].to_list()
    dim = read(slide_ids[0]).shape[1]
    model = classifiers.build(classifier, dim, len(fold.classes), section.dropout, seed).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=section.lr, weight_decay=section.weight_decay, fused=True)
    targets = torch.from_numpy(fold.labels)

    def draws() -> Iterator[int]:
        for epoch in range(section.epochs):
            yield from sample_slides(fold.labels, generator(seed, "evaluate", epoch)).tolist()

    for slide in progress(draws(), section.epochs * len(slide_ids), classifier, "slides"):
        logits = model(torch.from_numpy(read(slide_ids[slide])))
        loss = F.cross_entropy(logits[None], targets[slide : slide + 1])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.inference_mode():
        predicted = [model(torch.from_numpy(read(slide))).softmax(0).double() for slide in fold.test["slide_id"]]
    return torch.stack(predicted).numpy()


def predict_fold(
    folds: pd.DataFrame, number: int, read: ReadSlide, classifier: str, section: config.Evaluation, seed: int
) -> tuple[pd.DataFrame, list[str]]:
    """Train on a fold's training slides and predict its test slides; gives the predictions and the classes.

    Raises ValueError when the training part holds one class only, a
    slide's features are missing or not finite, or the training diverged.
    """
    fold, read = select_fold(folds, number), checked(read)
    if classifier in ON_MEANS:
        probabilities = on_means(read, fold, classifier, section)
    else:
        probabilities = train_and_predict(read, fold, classifier, section, seed)
    if not np.isfinite(probabilities).all():
        raise ValueError(f"fold {number}: {classifier} diverged while training; lower evaluate.lr ({section.lr:g})")
    predictions = fold.test[["fold", "slide_id", "patient_id", "label"]].reset_index(drop=True)
    columns = {f"p_{label}": probabilities[:, c] for c, label in enumerate(fold.classes)}
    return predictions.assign(**columns), fold.classes


def run(
    *,
    folds_path: Path,
    fold: int,
    features: str,
    classifier: str,
    embed_path: Path | None,
    tokens_dir: Path,
    out_path: Path,
    section: config.Evaluation,
    seed: int,
) -> None:
    """Write the predictions of one fold of one row of the table.

    embed_path: of the run the features name; None for features of patches, which come from the tokens.
    tokens_dir: of the patch encoder the features name, else of the cohort's own.
    """
    folds, folds_meta = store.read_table(folds_path, "folds")
    slide_ids = folds.loc[folds["fold"] == fold, "slide_id"].to_list()
    level, read, fingerprint = read_features(features, embed_path, tokens_dir, slide_ids)
    predictions, classes = predict_fold(folds, fold, read, classifier, section, seed)
    inputs = (folds_meta["fingerprint"], fingerprint, features, classifier, str(fold), str(seed))
    meta = store.provenance("evaluate", VERSION, section.model_dump(), *inputs)
    meta |= {"features": features, "level": level, "classifier": classifier, "classes": json.dumps(classes)}
    meta |= encoder_of(tokens_dir / f"{slide_ids[0]}.h5")
    store.write_table(out_path, "evaluate", predictions, meta)
    log.info("%d test slides predicted", len(predictions))
