"""Features of a task's folds: one reader for all, or one per fold where each fold has a region encoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.kinds import read_endpoint
from slpd_core.evaluation.evaluate import Fold, select_fold
from slpd_core.evaluation.features import ReadSlide, patch_encoder_meta, read_features, validated
from slpd_core.evaluation.whitening import fit_whitening


@dataclass(frozen=True)
class FoldFeatures:
    """The folds of a task, and the features of their slides.

    Attributes:
        folds: In their order.
        readers: Of each fold; returns the features of a slide.
        endpoint: Of the task.
        level: Of the features: region, patch or color.
        inputs: Fingerprints of the folds and of the features.
        meta: Metadata of a table that is made from them.
    """

    folds: list[Fold]
    readers: list[ReadSlide]
    endpoint: Endpoint
    level: str
    inputs: list[str]
    meta: artifacts.Meta


def read_fold_features(
    folds_path: Path, features: str, embed_paths: Sequence[Path], tokens_dir: Path, ledger_path: Path
) -> FoldFeatures:
    """Read the folds of a task, and open features of their slides.

    Args:
        folds_path: The folds of the task.
        features: As evaluate.classifiers names them; whitened ones are whitened by each fold's training slides.
        embed_paths: Embeddings of the run that the features name, of each fold; none for features of patches.
        tokens_dir, ledger_path: Of the patch encoder that the features name, else of the cohort's.

    Returns:
        Folds and readers.

    Raises:
        ValueError: They were made from another ledger, or no classifier can be trained on a fold.
    """
    table, folds_meta = artifacts.read_table(folds_path, "folds")
    endpoint, slide_ids = read_endpoint(folds_meta), sorted(table["slide_id"].unique())
    folds = [select_fold(table, int(fold), endpoint) for fold in sorted(table["fold"].unique())]

    @cache
    def open_features(path: Path | None) -> tuple[str, ReadSlide, str]:
        level, read, fingerprint = read_features(features, path, tokens_dir, slide_ids, ledger_path)
        return level, validated(read), fingerprint

    opened = [open_features(embed_paths[fold.index] if embed_paths else None) for fold in folds]
    readers = [read for _, read, _ in opened]
    if features == config.WHITENED_FEATURES:
        readers = [_whiten(read, fold.train) for read, fold in zip(readers, folds, strict=True)]
    meta = {key: folds_meta.get(key, "") for key in ("ledger", "task")} | {"features": features}
    meta |= patch_encoder_meta(tokens_dir / f"{slide_ids[0]}.h5") | endpoint.meta
    level, inputs = opened[0][0], [folds_meta["fingerprint"], features, *(fingerprint for *_, fingerprint in opened)]
    return FoldFeatures(folds, readers, endpoint, level, inputs, meta | {"level": level})


def _whiten(read: ReadSlide, train: pd.DataFrame) -> ReadSlide:
    """A reader of features that are whitened by training slides."""
    whitening = fit_whitening(np.stack([read(slide).mean(0) for slide in train["slide_id"]]))
    return lambda slide: whitening(read(slide))


def mean_reader(read: ReadSlide) -> Callable[[Sequence[str]], np.ndarray]:
    """Make a reader of slides' mean features, which reads each slide once.

    Args:
        read: Returns the features of a slide.

    Returns:
        Returns the mean features of slides, float64 (slides, D).
    """
    mean = cache(lambda slide: read(slide).mean(0, dtype=np.float64))
    return lambda slides: np.stack([mean(slide) for slide in slides])
