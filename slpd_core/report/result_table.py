"""The result table: a row of scores per classifier and kind of features."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from slpd_core import artifacts, config
from slpd_core.endpoints.classification import CLASS_SCORES
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
ROW_NAMES = {"features": "Features", "pretraining": "Pretraining", "classifier": "Classifier"}
INTERVAL, DIFFERENCE, DETECTABLE = "95 % interval", "AUC difference", "Detectable"
# Result of a comparison -> the end of its columns.
COMPARED = {"difference": "difference", "low": "difference_low", "high": "difference_high", "detectable": "detectable"}
LEVELS = ("color", "patch", "region")  # of features, in the order of the table
# Source of the weights of a patch encoder -> its name in the table, as the cohort's and as another encoder. A timm
# model, which is not among them, has its own name.
SOURCES = {
    "random": ("none (random)", "random"),
    "hipt": ("HIPT", "HIPT"),
    "dino": ("DINO (stage one)", "DINO"),
}


@dataclass(frozen=True)
class ResultRow:
    """A row of the table: one classifier on one kind of features.

    Attributes:
        features: As evaluate.classifiers names them.
        level: One of LEVELS.
        classifier: knn, logreg, mil, abmil, dsmil or vit_wsi.
        encoder: Source and name of the patch encoder.
        classes: Labels in the order of the probabilities.
        predictions: The `evaluate` tables of all folds.
        per_fold: Their scores, a row per fold.
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
        """Name of the row in report.tables: features/classifier."""
        return f"{self.features}/{self.classifier}"

    @property
    def names(self) -> dict[str, str]:
        """Names of the row in the table: level of the features, pretraining, classifier."""
        pretrained = {"color": NONE, "patch": self.patch_encoder, "region": self.features}
        return {
            "features": self.level,
            "pretraining": pretrained[self.level],
            "classifier": CLASSIFIER_NAMES[self.classifier],
        }

    @property
    def training(self) -> float:
        """Variance that training adds to the row's scores, as in `uncertainty.Influence`."""
        return uncertainty.KNN_TRAINING if self.classifier == "knn" else uncertainty.TRAINING

    @property
    def patch_encoder(self) -> str:
        """Weights of the patch encoder; before them the name of an encoder other than the cohort's."""
        source, name = self.encoder
        as_cohorts, as_other = SOURCES.get(source, (name, name))
        return as_cohorts if self.features == config.PATCH_FEATURES else f"{self.features} ({as_other})"

    @property
    def sentence(self) -> str:
        """Name of the row in a sentence."""
        on = {
            "color": "the mean colours of patches",
            "patch": "patches" if self.features == config.PATCH_FEATURES else f"patches of {self.features}",
            "region": f"regions of {self.features}",
        }
        return f"{CLASSIFIER_NAMES[self.classifier]} on {on[self.level]}"


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
        encoder, classes = (meta["encoder_source"], meta["encoder_name"]), json.loads(meta["classes"])
        predictions = pd.concat([frame for frame, _ in parts], ignore_index=True)
        scores = metrics.score_folds(predictions, classes)
        rows.append(ResultRow(name, meta["level"], classifier, encoder, classes, predictions, scores))
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


def make_table(
    rows: Sequence[ResultRow], reference: ResultRow | None, partial_folds: Collection[int] = ()
) -> pd.DataFrame:
    """Make the result table in numbers.

    Args:
        rows: In the order of the table.
        reference: The row that all others are compared with.
        partial_folds: Folds that lack a label among the slides that train or test.

    Returns:
        A line per row. row and its names; folds, auc_folds (in which the AUC is defined), partial_folds (their number);
        of each score {score}_mean and _sd over folds, _low and _high, the 95 % interval of that mean; the same by
        patient as patient_{score}_...; reference, and of SHOWN_SCORES {score}_difference, _difference_low,
        _difference_high and _detectable, as `significance.compare_with_reference` returns them (nan in the reference
        row).
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
                comparison = significance.compare_with_reference(
                    influences[row.key][score], influences[reference.key][score]
                )
                line |= {f"{score}_{COMPARED[name]}": value for name, value in comparison.items()}
        lines.append(line | {"reference": reference.key if reference else ""})
    scores = [f"{score}_{end}" for score in CLASS_SCORES for end in ("mean", "sd", "low", "high")]
    compared = [f"{score}_{end}" for score in SHOWN_SCORES for end in COMPARED.values()]
    columns = [
        "row",
        *ROW_NAMES,
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


def format_tables(table: pd.DataFrame) -> list[table_format.Table]:
    """Format the result table: scores by slide with the difference in AUC, and scores by patient if they differ.

    Args:
        table: As `make_table` returns it.

    Returns:
        One table, or two.
    """
    lines = table.to_dict("records")
    marked = [line for line in lines if line["partial_folds"]]
    notes = [table_format.explain_mark(marked[0]["partial_folds"], marked[0]["folds"])] if marked else []
    by_slide = table_format.Table(
        [*ROW_NAMES.values()],
        [*_score_heads(""), DIFFERENCE, INTERVAL, DETECTABLE],
        [(_names(line), [*_scores(line, ""), *_differences(line)]) for line in lines],
        notes=notes,
    )
    by_patient = table_format.Table(
        [*ROW_NAMES.values()],
        _score_heads(" by patient"),
        [(_names(line), _scores(line, "patient_")) for line in lines],
        notes=notes,
    )
    return (
        [by_slide] if all(_scores(line, "") == _scores(line, "patient_") for line in lines) else [by_slide, by_patient]
    )


def _score_heads(by: str) -> list[str]:
    """Titles of the columns of `_scores`."""
    return [head for title in SHOWN_SCORES.values() for head in (title + by, INTERVAL)]


def _names(line: Mapping[str, Any]) -> list[str]:
    """Names of the row."""
    return [line[name] for name in ROW_NAMES]


def _scores(line: Mapping[str, Any], prefix: str) -> list[str]:
    """Texts of each score: mean and deviation, interval."""
    cells = []
    for score in [prefix + score for score in SHOWN_SCORES]:
        mean = table_format.format_mean_sd(line[f"{score}_mean"], line[f"{score}_sd"])
        cells.append(table_format.mark_partial(mean, line["partial_folds"]))
        cells.append(table_format.format_interval(line[f"{score}_low"], line[f"{score}_high"]))
    return cells


def _differences(line: Mapping[str, Any]) -> list[str]:
    """Texts of the comparison with the reference row: difference, interval, smallest detectable difference."""
    difference, low, high, detectable = (line[f"auc_{end}"] for end in COMPARED.values())
    text = "reference" if line["row"] == line["reference"] else table_format.format_difference(difference)
    return [text, table_format.format_difference_interval(low, high), table_format.format_score(detectable)]


def find_partial_folds(remarks: pd.DataFrame) -> set[int]:
    """Find the folds in which a label is missing from the slides that train or from those that test.

    Args:
        remarks: The `remarks` table.

    Returns:
        Their indices.
    """
    return {int(fold) for fold in remarks.loc[remarks["remark"].isin(artifacts.REMARKS_OF_LABELS.values()), "fold"]}
