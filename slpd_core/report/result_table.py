"""The rows of the result table, in numbers."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from slpd_core import artifacts, config
from slpd_core.report import metrics, significance, table_format, uncertainty
from slpd_core.report.table_format import NONE, SHOWN_SCORES

CLASSIFIER_NAMES = {
    "knn": "KNN (mean)",
    "logreg": "LR (mean)",
    "mil": "MIL",
    "abmil": "ABMIL",
    "dsmil": "DS-MIL",
    "vit_wsi": "ViT_WSI",
}
NAME_COLUMNS = {"features": "Features", "pretraining": "Pretraining", "classifier": "Classifier"}
INTERVAL, DIFFERENCE, DETECTABLE = "95 % interval", "AUC difference", "Detectable"
# What a row is compared by -> the end of its columns.
COMPARED = {"difference": "difference", "low": "difference_low", "high": "difference_high", "detectable": "detectable"}
LEVELS = ("color", "patch", "region")  # what features are of, in the order of the table
# Where the weights of a patch encoder come from -> what the table says, and what it says of another encoder. A timm
# model, which is not among them, is called by its name.
SOURCES = {
    "random": ("none (random)", "random"),
    "hipt": ("HIPT", "HIPT"),
    "dino": ("DINO (stage one)", "DINO"),
}


@dataclass(frozen=True)
class ResultRow:
    """A row of the table: one classifier on one kind of features.

    features: as evaluate.classifiers names them; level: one of LEVELS. encoder: source and name of the patch encoder
    they come from. predictions: the `evaluate` tables of all folds; per_fold: their scores, a row a fold.
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
        pretrained = {"color": NONE, "patch": self.patch_encoder, "region": self.features}
        return {
            "features": self.level,
            "pretraining": pretrained[self.level],
            "classifier": CLASSIFIER_NAMES[self.classifier],
        }

    @property
    def training(self) -> float:
        """What training adds to the variance of the row's scores."""
        return uncertainty.KNN_TRAINING if self.classifier == "knn" else uncertainty.TRAINING

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
            "color": "the mean colours of patches",
            "patch": "patches" if self.features == config.PATCH_FEATURES else f"patches of {self.features}",
            "region": f"regions of {self.features}",
        }
        return f"{CLASSIFIER_NAMES[self.classifier]} on {on[self.level]}"


def join_folds(folds: Iterable[tuple[pd.DataFrame, artifacts.Meta]], runs: Sequence[str]) -> list[ResultRow]:
    """The rows of the table from the `evaluate` tables of all folds.

    Colours stand first, then patches (other encoders after the cohort's own, as they come), then the runs in the order
    given; classifiers in the order of CLASSIFIER_NAMES.
    """
    found: dict[tuple[str, str], list[tuple[pd.DataFrame, artifacts.Meta]]] = {}
    for frame, meta in folds:
        found.setdefault((meta["features"], meta["classifier"]), []).append((frame, meta))
    others = [features for features, _ in found if features != config.PATCH_FEATURES and features not in runs]
    features, classifiers = [config.PATCH_FEATURES, *others, *runs], [*CLASSIFIER_NAMES]
    rows = []
    for (name, classifier), parts in found.items():
        meta = parts[0][1]
        encoder, classes = (meta["encoder_source"], meta["encoder_name"]), json.loads(meta["classes"])
        predictions = pd.concat([frame for frame, _ in parts], ignore_index=True)
        scores = metrics.score_folds(predictions, classes)
        rows.append(ResultRow(name, meta["level"], classifier, encoder, classes, predictions, scores))
    return sorted(
        rows,
        key=lambda row: (LEVELS.index(row.level), features.index(row.features), classifiers.index(row.classifier)),
    )


def reference_row(rows: Sequence[ResultRow], key: str | None) -> ResultRow | None:
    """Return the row that all others are compared with: the one named, or the last of the table; None without rows.

    Raises:
        ValueError: no row is of that name.
    """
    named = [row for row in rows if key in (None, row.key)]
    if rows and not named:
        raise ValueError(f"report.reference: {key!r} was not evaluated; name one of {', '.join(r.key for r in rows)}")
    return named[-1] if named else None


def make_table(
    rows: Sequence[ResultRow], reference: ResultRow | None, partial_folds: Collection[int] = ()
) -> pd.DataFrame:
    """Return the result table in numbers, a line per row.

    Args:
        rows: in the order of the table.
        reference: the row that all others are compared with.
        partial_folds: those that lack a label among the slides that train or test.

    Returns:
        row and names; folds, auc_folds, those in which the AUC is defined, and partial_folds, how many of them lack a
        label; of each score {score}_mean and _sd over
        folds, _low and _high, the 95 % interval of that mean; the same by patient as patient_{score}_...; reference,
        and of the scores in SHOWN_SCORES {score}_difference, _difference_low, _difference_high and _detectable, as
        `compare.compare_with_reference` returns them (nan in the reference row).
    """
    influences = {row.key: uncertainty.compute_influences(row.predictions, row.classes, row.training) for row in rows}
    lines = []
    for row in rows:
        auc_folds = int(row.per_fold["auc"].notna().sum())
        line = {"row": row.key, **row.names, **metrics.summarize_folds(row.per_fold), "auc_folds": auc_folds}
        line["partial_folds"] = int(row.per_fold["fold"].isin(partial_folds).sum())
        line |= _intervals(influences[row.key])
        patients = metrics.average_by_patient(row.predictions, row.classes)
        by_patient = metrics.summarize_folds(metrics.score_folds(patients, row.classes))
        by_patient |= _intervals(uncertainty.compute_influences(patients, row.classes, row.training))
        line |= {f"patient_{name}": value for name, value in by_patient.items()}
        if reference is not None and row is not reference:
            for score in SHOWN_SCORES:
                against = significance.compare_with_reference(
                    influences[row.key][score], influences[reference.key][score]
                )
                line |= {f"{score}_{COMPARED[what]}": value for what, value in against.items()}
        lines.append(line | {"reference": reference.key if reference else ""})
    scores = [f"{score}_{what}" for score in metrics.SCORES for what in ("mean", "sd", "low", "high")]
    compared = [f"{score}_{what}" for score in SHOWN_SCORES for what in COMPARED.values()]
    columns = [
        "row",
        *NAME_COLUMNS,
        "folds",
        "auc_folds",
        "partial_folds",
        *scores,
        *[f"patient_{name}" for name in scores],
    ]
    return pd.DataFrame(lines, columns=[*columns, "reference", *compared])


def _intervals(influences: Mapping[str, uncertainty.Influence]) -> dict[str, float]:
    """The interval of each score as columns of the table."""
    columns = {}
    for score, influence in influences.items():
        columns[f"{score}_low"], columns[f"{score}_high"] = influence.interval()
    return columns


def as_tables(table: pd.DataFrame) -> list[table_format.Table]:
    """Return the tables as people read them: scores by slide with the difference to the reference row in AUC, and
    scores by patient where they are other numbers.
    """
    lines = table.to_dict("records")
    marked = [line for line in lines if line["partial_folds"]]
    notes = [table_format.explain_mark(marked[0]["partial_folds"], marked[0]["folds"])] if marked else []
    by_slide = table_format.Table(
        [*NAME_COLUMNS.values()],
        [*_score_heads(""), DIFFERENCE, INTERVAL, DETECTABLE],
        [(_names(line), [*_scores(line, ""), *_differences(line)]) for line in lines],
        notes=notes,
    )
    by_patient = table_format.Table(
        [*NAME_COLUMNS.values()],
        _score_heads(" by patient"),
        [(_names(line), _scores(line, "patient_")) for line in lines],
        notes=notes,
    )
    return (
        [by_slide] if all(_scores(line, "") == _scores(line, "patient_") for line in lines) else [by_slide, by_patient]
    )


def _score_heads(by: str) -> list[str]:
    return [head for title in SHOWN_SCORES.values() for head in (title + by, INTERVAL)]


def _names(line: Mapping[str, Any]) -> list[str]:
    return [line[name] for name in NAME_COLUMNS]


def _scores(line: Mapping[str, Any], prefix: str) -> list[str]:
    """Mean and deviation of each score, and its interval, as texts."""
    cells = []
    for score in [prefix + score for score in SHOWN_SCORES]:
        mean = table_format.format_mean_sd(line[f"{score}_mean"], line[f"{score}_sd"])
        cells.append(table_format.mark_partial(mean, line["partial_folds"]))
        cells.append(table_format.format_interval(line[f"{score}_low"], line[f"{score}_high"]))
    return cells


def _differences(line: Mapping[str, Any]) -> list[str]:
    """The difference to the reference row, its interval, and what could have been detected, as texts."""
    difference, low, high, detectable = (line[f"auc_{what}"] for what in COMPARED.values())
    text = "reference" if line["row"] == line["reference"] else table_format.format_difference(difference)
    return [text, table_format.format_difference_interval(low, high), table_format.format_score(detectable)]


def find_partial_folds(found: pd.DataFrame) -> set[int]:
    """Return the folds in which a label is missing from the slides that train or from those that test.

    Args:
        found: the table of remarks, texts.
    """
    return {int(fold) for fold in found.loc[found["remark"].isin(artifacts.REMARKS_OF_LABELS.values()), "fold"]}
