"""Predict: new slides by the classifiers of all folds, and where those with attention looked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slpd_core import artifacts
from slpd_core.drawing import heatmap
from slpd_core.evaluation import classifiers
from slpd_core.evaluation.features import ReadSlide, read_features, validated
from slpd_core.evaluation.heatmaps import draw_slide
from slpd_core.runtime import log, progress

VERSION = 2


@dataclass(frozen=True)
class PredictionModel:
    """A row of the table that predicts: one classifier on one kind of features. All but these are paths.

    models: of each fold. embeds: of each fold, those of the run the features name; none for features of patches.
    tokens, ledger: folder and table, of the patch encoder the features name, else of the cohort's own.
    """

    features: str
    classifier: str
    models: list[str]
    embeds: list[str]
    tokens: str
    ledger: str


@dataclass(frozen=True)
class Prediction:
    """What the classifiers of the folds make of a slide.

    folds: probabilities (folds, C). attention: the mean over the folds, (L,), None without.
    """

    folds: np.ndarray
    attention: np.ndarray | None

    def columns(self, classes: Sequence[str]) -> dict[str, Any]:
        """The prediction as the table says it: the label of the highest mean probability, the share of the folds that
        agree with it, the mean and the standard deviation (n − 1) over folds of each probability.
        """
        mean, best = self.folds.mean(0), int(self.folds.mean(0).argmax())
        sd = self.folds.std(0, ddof=1) if len(self.folds) > 1 else np.full(len(classes), np.nan)
        agree = float((self.folds.argmax(1) == best).mean())
        named = {f"p_{label}": float(mean[c]) for c, label in enumerate(classes)}
        spread = {f"sd_{label}": float(sd[c]) for c, label in enumerate(classes)}
        return {"predicted": classes[best], "agree": agree} | named | spread


def ensemble(predictors: Sequence[classifiers.Predict], readers: Sequence[ReadSlide], slide_id: str) -> Prediction:
    """What each fold's classifier makes of a slide, by features of that fold's encoder."""
    found = [predict(read(slide_id)) for predict, read in zip(predictors, readers, strict=True)]
    attentions = [attention for _, attention in found if attention is not None]
    return Prediction(np.array([p for p, _ in found]), np.mean(attentions, 0) if attentions else None)


def readers_of(row: PredictionModel, slide_ids: list[str]) -> list[ReadSlide]:
    """How to read a slide's features for the classifier of each fold; one reader where all folds share an encoder."""
    paths: list[str | None] = [*row.embeds] or [None] * len(row.models)
    where = Path(row.tokens), slide_ids, Path(row.ledger)
    known = {
        path: validated(read_features(row.features, Path(path) if path else None, *where)[1])
        for path in dict.fromkeys(paths)
    }
    return [known[path] for path in paths]


def predict_row(
    row: PredictionModel, slide_ids: list[str], heatmaps_dir: Path, tissue_dir: Path, regions_dir: Path
) -> list[dict[str, Any]]:
    """The predictions of a row, one a slide; draws heatmaps_dir/{features}/{classifier}/{slide}.jpg where there is
    attention.
    """
    trained = [classifiers.read(Path(path))[0] for path in row.models]
    predictors, readers = [classifiers.predictor(model) for model in trained], readers_of(row, slide_ids)
    rows = []
    for slide_id in progress(slide_ids, len(slide_ids), f"{row.features}/{row.classifier}", "slides"):
        found = ensemble(predictors, readers, slide_id)
        columns = found.columns(trained[0].classes)
        rows.append({"slide_id": slide_id, "features": row.features, "classifier": row.classifier} | columns)
        if found.attention is not None and row.embeds:
            picture = draw_slide(tissue_dir, regions_dir, slide_id, found.attention)
            says = f"{row.classifier} on {row.features}: {columns['predicted']}, p {found.folds.mean(0).max():.2f}"
            sheet = heatmap.draw_contact_sheet([(slide_id, says, picture)], max(picture.size))
            heatmap.save_jpeg(sheet, heatmaps_dir / row.features / row.classifier / f"{slide_id}.jpg")
    return rows


def run(
    *,
    ledger_path: Path,
    rows: Sequence[Mapping[str, Any]],
    tissue_dir: Path,
    regions_dir: Path,
    heatmaps_dir: Path,
    out_path: Path,
) -> None:
    """Write a line a slide and row: the ensemble's label and probabilities; of a slide left out its status and reason,
    and what to know of each.

    ledger_path: of the new slides. rows: the fields of a Row each.
    """
    ledger, _ = artifacts.read_table(ledger_path, "ledger")
    admitted = ledger.loc[ledger["status"] == artifacts.OK, "slide_id"].to_list()
    heatmaps_dir.mkdir(parents=True, exist_ok=True)
    found = [
        line
        for row in rows
        for line in predict_row(PredictionModel(**row), admitted, heatmaps_dir, tissue_dir, regions_dir)
    ]
    slides = ledger[["slide_id", "status", "reason", "remarks", "regions"]]
    table = slides.merge(pd.DataFrame(found, columns=None if found else ["slide_id"]), "left", "slide_id")
    artifacts.write_csv(out_path, table, "%.6f")
    log.info("%d of %d slides predicted by %d rows", len(admitted), len(ledger), len(rows))
