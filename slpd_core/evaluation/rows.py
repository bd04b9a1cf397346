"""The rows of the result table, in numbers."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from slpd_core import config, store
from slpd_core.evaluation import bootstrap, compare, metrics, printing
from slpd_core.evaluation.printing import NONE, SHOWN
from slpd_core.runtime import generator

CLASSIFIER_NAMES = {
    "knn": "KNN (mean)",
    "logreg": "LR (mean)",
    "mil": "MIL",
    "abmil": "ABMIL",
    "dsmil": "DS-MIL",
    "vit_wsi": "ViT_WSI",
}
NAMES = {"features": "Features", "pretraining": "Pretraining", "classifier": "Classifier"}
LEVELS = ("colour", "patch", "region")  # what features are of, in the order of the table
# Where the weights of a patch encoder come from -> what the table says, and what it says of another encoder. A timm
# model, which is not among them, is called by its name.
SOURCES = {
    "random": ("none (random)", "random"),
    "hipt": ("HIPT", "HIPT"),
    "dino": ("DINO (stage one)", "DINO"),
}


@dataclass(frozen=True)
class Row:
    """A row of the table: one classifier on one kind of features.

    features: as evaluate.rows names them; level: one of LEVELS. encoder: source and name of the patch encoder they come
    from. predictions: the `evaluate` tables of all folds; per_fold: their scores, a row a fold.
    """

    features: str
    level: str
    classifier: str
    encoder: tuple[str, str]
    classes: list[str]
    predictions: pd.DataFrame
    per_fold: pd.DataFrame

    @property
    def key(self) -> str:
        """The row as report.tables names it: features/classifier."""
        return f"{self.features}/{self.classifier}"

    @property
    def names(self) -> dict[str, str]:
        """What the table calls the row: level of the features, what was pretrained to make them, classifier."""
        pretrained = {"colour": NONE, "patch": self.patch_encoder, "region": self.features}
        return {
            "features": self.level,
            "pretraining": pretrained[self.level],
            "classifier": CLASSIFIER_NAMES[self.classifier],
        }

    @property
    def patch_encoder(self) -> str:
        """What the patch encoder's weights are; another encoder than the cohort's own has its name before that."""
        source, name = self.encoder
        own, other = SOURCES.get(source, (name, name))
        return own if self.features == config.PATCH_FEATURES else f"{self.features} ({other})"

    @property
    def sentence(self) -> str:
        """The row as a sentence of the page names it."""
        on = {
            "colour": "the mean colours of patches",
            "patch": "patches" if self.features == config.PATCH_FEATURES else f"patches of {self.features}",
            "region": f"regions of {self.features}",
        }
        return f"{CLASSIFIER_NAMES[self.classifier]} on {on[self.level]}"


def join_folds(folds: Iterable[tuple[pd.DataFrame, store.Meta]], runs: Sequence[str]) -> list[Row]:
    """The rows of the table from the `evaluate` tables of all folds.

    Colours stand first, then patches (other encoders after the cohort's own, as they come), then the runs in the order
    given; classifiers in the order of CLASSIFIER_NAMES.
    """
    found: dict[tuple[str, str], list[tuple[pd.DataFrame, store.Meta]]] = {}
    for frame, meta in folds:
        found.setdefault((meta["features"], meta["classifier"]), []).append((frame, meta))
    others = [features for features, _ in found if features != config.PATCH_FEATURES and features not in runs]
    features, classifiers = [config.PATCH_FEATURES, *others, *runs], [*CLASSIFIER_NAMES]
    rows = []
    for (name, classifier), parts in found.items():
        meta = parts[0][1]
        encoder, classes = (meta["encoder_source"], meta["encoder_name"]), json.loads(meta["classes"])
        predictions = pd.concat([frame for frame, _ in parts], ignore_index=True)
        scores = metrics.fold_scores(predictions, classes)
        rows.append(Row(name, meta["level"], classifier, encoder, classes, predictions, scores))
    return sorted(
        rows,
        key=lambda row: (LEVELS.index(row.level), features.index(row.features), classifiers.index(row.classifier)),
    )


def make_table(rows: Sequence[Row], test_share: float, seed: int) -> pd.DataFrame:
    """The result table in numbers: key and names, number of folds, mean and sd of each score.

    auc_folds: in how many of the folds the AUC is defined; its mean and sd are over those. {score}_pooled, _low, _high:
    as `bootstrap.patient_bootstrap` gives them. auc_less, p: as `compare.against_best` gives them. test_share: test
    slides a training slide.
    """
    whats = ("mean", "sd", "pooled", "low", "high")
    scores = [f"{score}_{what}" for score in metrics.SCORES for what in whats]
    lines = []
    for row in rows:
        slides = bootstrap.pooled(row.predictions, row.classes)
        interval = bootstrap.patient_bootstrap(slides, row.classes, generator(seed, "bootstrap"))
        auc_folds = int(row.per_fold["auc"].notna().sum())
        lines.append({"row": row.key, **row.names, **metrics.summary(row.per_fold), "auc_folds": auc_folds, **interval})
    columns = ["row", *NAMES, "folds", "auc_folds", *scores]
    against = compare.against_best([row.per_fold.set_index("fold")["auc"] for row in rows], test_share)
    return pd.DataFrame(lines, columns=columns).join(against)


def printed(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The table as people read it: of every row its names, of every score in SHOWN its text, rank and interval, and by
    how much its AUC is less than the best.
    """
    ranked = {score: printing.ranks(table[f"{score}_mean"]) for score in SHOWN}
    return [
        {name: line[name] for name in NAMES}
        | {
            score: {
                "text": printing.mean_sd(line[f"{score}_mean"], line[f"{score}_sd"]),
                "rank": ranked[score][i],
                "interval": printing.interval(line[f"{score}_low"], line[f"{score}_high"]),
            }
            for score in SHOWN
        }
        | {"less": printing.less(line["auc_less"], line["p"])}
        for i, line in enumerate(table.to_dict("records"))
    ]


def as_table(lines: Sequence[dict[str, Any]]) -> printing.Table:
    """The names and scores of `printed` lines, to print."""
    body = [
        ([line[name] for name in NAMES], [printing.Cell(line[score]["text"], line[score]["rank"]) for score in SHOWN])
        for line in lines
    ]
    return printing.Table([*NAMES.values()], [*SHOWN.values()], body)
