"""The rows of the result table: a classifier on a kind of features each, with its predictions of all folds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from slpd_core import artifacts, config
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.kinds import read_endpoint
from slpd_core.report import metrics, uncertainty
from slpd_core.report.table_format import NONE

CLASSIFIER_NAMES = {
    "knn": "KNN (mean)",
    "logreg": "LR (mean)",
    "mil": "MIL",
    "abmil": "ABMIL",
    "dsmil": "DS-MIL",
    "vit_wsi": "ViT_WSI",
}
# Linear classifiers of mean features have other names where there are no classes.
LINEAR_NAMES = {"regression": "Ridge (mean)", "survival": "Cox (mean)"}
ROW_NAMES = {"features": "Features", "pretraining": "Pretraining", "classifier": "Classifier"}
LEVELS = ("color", "patch", "region")  # of features, in the order of the table
# Source of the weights of a patch encoder -> its name in the table, as the cohort's and as another encoder. A timm
# model, which is not among them, has its own name.
SOURCES = {
    "random": ("none (random)", "random"),
    "hipt": ("HIPT", "HIPT"),
    "dino": ("DINO (stage one)", "DINO"),
}


def name_classifier(classifier: str, endpoint: Endpoint) -> str:
    """Name a classifier in the table.

    Args:
        classifier: knn, logreg, mil, abmil, dsmil or vit_wsi.
        endpoint: That it predicts.

    Returns:
        Its name.
    """
    names = CLASSIFIER_NAMES | {"logreg": LINEAR_NAMES.get(endpoint.kind, CLASSIFIER_NAMES["logreg"])}
    return names[classifier]


def name_pretraining(features: str, level: str, encoder: tuple[str, str]) -> str:
    """Name what features were pretrained by.

    Args:
        features: As evaluate.classifiers names them.
        level: One of LEVELS.
        encoder: Source and name of the patch encoder.

    Returns:
        Of patches the encoder's weights, before them the name of an encoder other than the cohort's.
    """
    if level == "color":
        return NONE
    if level == "region":
        return config.TOKEN_FEATURES.get(features, features)
    source, name = encoder
    as_cohorts, as_other = SOURCES.get(source, (name, name))
    return as_cohorts if features == config.PATCH_FEATURES else f"{features} ({as_other})"


@dataclass(frozen=True)
class ResultRow:
    """A row of the table: one classifier on one kind of features.

    Attributes:
        features: As evaluate.classifiers names them.
        level: One of LEVELS.
        classifier: knn, logreg, mil, abmil, dsmil or vit_wsi.
        encoder: Source and name of the patch encoder.
        endpoint: That it predicts.
        predictions: The `evaluate` tables of all folds.
        cases: The predictions that are scored: all, or of patients if the slides of each are one bag.
        per_fold: Their scores, a row per fold.
    """

    features: str
    level: str
    classifier: str
    encoder: tuple[str, str]
    endpoint: Endpoint
    predictions: pd.DataFrame
    cases: pd.DataFrame
    per_fold: pd.DataFrame

    @property
    def key(self) -> str:
        """Name of the row in report.tables: features/classifier."""
        return f"{self.features}/{self.classifier}"

    @property
    def names(self) -> dict[str, str]:
        """Names of the row in the table: level of the features, pretraining, classifier."""
        return {
            "features": self.level,
            "pretraining": name_pretraining(self.features, self.level, self.encoder),
            "classifier": name_classifier(self.classifier, self.endpoint),
        }

    @property
    def is_by_patient(self) -> bool:
        """Whether each case is a patient."""
        return "slide_id" not in self.cases

    @property
    def training(self) -> float:
        """Variance that training adds to the row's scores, as in `uncertainty.Influence`."""
        return uncertainty.KNN_TRAINING if self.classifier == "knn" else uncertainty.TRAINING

    @cached_property
    def influences(self) -> dict[str, uncertainty.Influence]:
        """Each score in each fold, with the influence of each patient."""
        return uncertainty.compute_influences(self.cases, self.endpoint, self.training)

    @property
    def sentence(self) -> str:
        """Name of the row in a sentence."""
        on = {
            "color": "the mean colours of patches",
            "patch": "patches" if self.features == config.PATCH_FEATURES else f"patches of {self.features}",
            "region": f"regions of {self.features}",
        }
        return f"{name_classifier(self.classifier, self.endpoint)} on {on[self.level]}"


def join_folds(folds: Iterable[tuple[pd.DataFrame, artifacts.Meta]], runs: Sequence[str]) -> list[ResultRow]:
    """Join the predictions of all folds to the rows of the table.

    Args:
        folds: The `evaluate` tables and their metadata.
        runs: Pretraining runs, in the order of the table.

    Returns:
        Rows: mean colors, then patches (the cohort's encoder, then others as they come), then the runs; within them
        classifiers in the order of CLASSIFIER_NAMES.
    """
    parts_of: dict[tuple[str, str], list[tuple[pd.DataFrame, artifacts.Meta]]] = {}
    for frame, meta in folds:
        parts_of.setdefault((meta["features"], meta["classifier"]), []).append((frame, meta))
    others = [features for features, _ in parts_of if features != config.PATCH_FEATURES and features not in runs]
    features, classifiers = [config.PATCH_FEATURES, *others, *runs], [*CLASSIFIER_NAMES]
    rows = []
    for (name, classifier), parts in parts_of.items():
        meta = parts[0][1]
        encoder, endpoint = (meta["encoder_source"], meta["encoder_name"]), read_endpoint(meta)
        predictions = pd.concat([frame for frame, _ in parts], ignore_index=True)
        cases = metrics.average_by_patient(predictions, endpoint) if meta["bags"] == "patient" else predictions
        scores = metrics.score_folds(cases, endpoint)
        rows.append(ResultRow(name, meta["level"], classifier, encoder, endpoint, predictions, cases, scores))
    return sorted(
        rows,
        key=lambda row: (LEVELS.index(row.level), features.index(row.features), classifiers.index(row.classifier)),
    )


def select_reference(rows: Sequence[ResultRow], key: str | None = None) -> ResultRow | None:
    """Select the row that all others are compared with.

    Args:
        rows: Of the table.
        key: features/classifier; None for the last row.

    Returns:
        The row; None without rows.

    Raises:
        ValueError: No row has that key.
    """
    candidates = [row for row in rows if key in (None, row.key)]
    if rows and not candidates:
        raise ValueError(f"report.reference: {key!r} was not evaluated; name one of {', '.join(r.key for r in rows)}")
    return candidates[-1] if candidates else None
