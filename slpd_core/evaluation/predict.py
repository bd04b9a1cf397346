"""Predict slides of an external cohort by the classifiers of all folds, and draw where those with attention looked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slpd_core import artifacts
from slpd_core.drawing import heatmap
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.evaluation import classifiers
from slpd_core.evaluation.classifiers import FittedClassifier, PredictSlide
from slpd_core.evaluation.features import ReadSlide, read_features, validated
from slpd_core.evaluation.heatmaps import draw_slide_heatmap
from slpd_core.runtime import log, progress

VERSION = 4


@dataclass(frozen=True)
class PredictionModel:
    """A model that predicts: the classifiers of all folds on one kind of features.

    Attributes:
        features: As evaluate.classifiers names them.
        classifier: knn, logreg, mil, abmil, dsmil or vit_wsi.
        models: Path of each fold's classifier.
        embeds: Path of each fold's embeddings, of the run that the features name; none for features of patches.
        tokens, ledger: Folder and table of the patch encoder that the features name, else of the cohort.
    """

    features: str
    classifier: str
    models: list[str]
    embeds: list[str]
    tokens: str
    ledger: str


@dataclass(frozen=True)
class Prediction:
    """A slide as the classifiers of the folds predict it.

    Attributes:
        folds: Probabilities, (folds, C).
        attention: The mean over the folds, (L,); None without attention.
    """

    folds: np.ndarray
    attention: np.ndarray | None

    def columns(self, endpoint: Endpoint) -> dict[str, Any]:
        """Summarize the prediction over the folds.

        Args:
            endpoint: What is predicted.

        Returns:
            Of classes and of survival: predicted, the class of the highest mean probability, or high or low risk;
            agree, the fraction of folds that predict it. The mean and the standard deviation (n - 1) of each number,
            such as p_{label} and sd_{label}.
        """
        mean, names = self.folds.mean(0), endpoint.prediction_columns
        sd = self.folds.std(0, ddof=1) if len(self.folds) > 1 else np.full(len(names), np.nan)
        best, *of_folds = [endpoint.categorize(prediction) for prediction in (mean, *self.folds)]
        predicted = {"predicted": best, "agree": of_folds.count(best) / len(of_folds)} if best else {}
        means = {name: float(value) for name, value in zip(names, mean, strict=True)}
        deviations = {f"sd_{name.removeprefix('p_')}": float(value) for name, value in zip(names, sd, strict=True)}
        return predicted | means | deviations


def predict_ensemble(
    predictors: Sequence[PredictSlide], readers: Sequence[ReadSlide], slide_ids: Sequence[str]
) -> list[Prediction]:
    """Predict a bag by each fold's classifier.

    Args:
        predictors: Of each fold.
        readers: Of the features by each fold's encoder.
        slide_ids: Its slides.

    Returns:
        The predictions of all folds, the same for each slide; the attention within each slide.
    """
    parts = [[read(slide_id) for slide_id in slide_ids] for read in readers]
    predictions = [predict(np.concatenate(of_fold)) for predict, of_fold in zip(predictors, parts, strict=True)]
    folds = np.array([prediction for prediction, _ in predictions])
    attentions = [attention for _, attention in predictions if attention is not None]
    if not attentions:
        return [Prediction(folds, None)] * len(slide_ids)
    ends = np.cumsum([len(part) for part in parts[0]])[:-1]
    within = np.split(np.mean(attentions, 0), ends)
    return [Prediction(folds, attention / attention.sum() if len(ends) else attention) for attention in within]


def fold_readers(model: PredictionModel, slide_ids: list[str]) -> list[ReadSlide]:
    """Read the features of slides for each fold's classifier, once for folds that share an encoder.

    Args:
        model: The model that predicts.
        slide_ids: Slides to read.

    Returns:
        A reader per fold.
    """
    paths: list[str | None] = [*model.embeds] or [None] * len(model.models)
    tokens = Path(model.tokens), slide_ids, Path(model.ledger)
    readers = {
        path: validated(read_features(model.features, Path(path) if path else None, *tokens)[1])
        for path in dict.fromkeys(paths)
    }
    return [readers[path] for path in paths]


def predict_slides(
    model: PredictionModel,
    fitted: Sequence[FittedClassifier],
    bags: Sequence[Sequence[str]],
    heatmaps_dir: Path,
    tissue_dir: Path,
    regions_dir: Path,
) -> tuple[list[dict[str, Any]], list[pd.DataFrame]]:
    """Predict slides, and draw {features}/{classifier}/{slide}.jpg of attention to regions.

    Args:
        model: The model that predicts.
        fitted: Its classifier of each fold.
        bags: Slides to predict, one list per bag.
        heatmaps_dir: Where heat maps are written.
        tissue_dir, regions_dir: As in `heatmaps.draw_slide_heatmap`.

    Returns:
        Of each slide, its row of the table, and the predictions of the folds, a row per fold.
    """
    slide_ids = [slide_id for bag in bags for slide_id in bag]
    predictors, readers = [classifiers.build_predictor(one) for one in fitted], fold_readers(model, slide_ids)
    endpoint, rows, folds = fitted[0].endpoint, [], []
    predictions = (pair for bag in bags for pair in zip(bag, predict_ensemble(predictors, readers, bag), strict=True))
    for slide_id, prediction in progress(predictions, len(slide_ids), f"{model.features}/{model.classifier}", "slides"):
        columns = prediction.columns(endpoint)
        names = {"slide_id": slide_id, "features": model.features, "classifier": model.classifier}
        rows.append(names | columns)
        of_folds = pd.DataFrame(prediction.folds, columns=endpoint.prediction_columns)
        folds.append(of_folds.rename_axis("fold").reset_index().assign(**names))
        if prediction.attention is not None and model.embeds:
            picture = draw_slide_heatmap(tissue_dir, regions_dir, slide_id, prediction.attention)
            words = endpoint.describe_prediction(prediction.folds.mean(0))
            evenness = heatmap.describe_evenness(prediction.attention)
            caption = f"{model.classifier} on {model.features}: {words.removeprefix('predicted ')}"
            caption += f"; {evenness}" if evenness else ""
            sheet = heatmap.draw_contact_sheet([(slide_id, caption, picture)], max(picture.size))
            heatmap.save_jpeg(sheet, heatmaps_dir / model.features / model.classifier / f"{slide_id}.jpg")
    return rows, folds


def run(
    *,
    ledger_path: Path,
    models: Sequence[Mapping[str, Any]],
    tissue_dir: Path,
    regions_dir: Path,
    heatmaps_dir: Path,
    out_path: Path,
    folds_path: Path,
) -> None:
    """Write the predictions of a task, a row per slide and model; of a slide not usable, status and reason.

    Args:
        ledger_path: Of the slides.
        models: The fields of a `PredictionModel` each.
        tissue_dir, regions_dir: As in `heatmaps.draw_slide_heatmap`.
        heatmaps_dir: Where heat maps are written.
        out_path: The CSV.
        folds_path: The `external` table: the predictions of each fold, from which external cohorts are scored.
    """
    ledger, ledger_meta = artifacts.read_table(ledger_path, "ledger")
    usable = ledger.loc[ledger["status"] == artifacts.OK, ["slide_id", "patient_id"]]
    heatmaps_dir.mkdir(parents=True, exist_ok=True)
    rows, folds, metas, columns = [], [], [], [*artifacts.TABLES["external"]]
    for model in (PredictionModel(**fields) for fields in models):
        fitted = [classifiers.read_classifier(Path(path)) for path in model.models]
        by = "patient_id" if fitted[0][1]["bags"] == "patient" else "slide_id"
        bags = [of_bag.to_list() for _, of_bag in usable.groupby(by, sort=False)["slide_id"]]
        of_model = predict_slides(model, [one for one, _ in fitted], bags, heatmaps_dir, tissue_dir, regions_dir)
        rows += of_model[0]
        folds += of_model[1]
        metas += [meta for _, meta in fitted]
        columns = [*artifacts.TABLES["external"], *fitted[0][0].endpoint.prediction_columns]
    slides = ledger[["slide_id", "status", "reason", "remarks", "regions"]]
    table = slides.merge(pd.DataFrame(rows, columns=None if rows else ["slide_id"]), "left", "slide_id")
    artifacts.write_csv(out_path, table, "%.6g")
    meta = artifacts.provenance("predict", VERSION, {}, *(meta["fingerprint"] for meta in (ledger_meta, *metas)))
    meta |= {"ledger": ledger_meta["fingerprint"], "cohort_ledger": metas[0]["ledger"] if metas else ""}
    of_folds = pd.concat(folds, ignore_index=True) if folds else pd.DataFrame(columns=columns)
    artifacts.write_table(folds_path, "external", of_folds, meta)
    log.info("%d of %d slides predicted by %d models", len(usable), len(ledger), len(models))
