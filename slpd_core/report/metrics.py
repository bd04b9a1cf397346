"""Scores of each fold, their mean and standard deviation over folds."""

import pandas as pd

from slpd_core.endpoints.endpoint import Endpoint


def pool_predictions(predictions: pd.DataFrame, endpoint: Endpoint, *, by: str = "slide_id") -> pd.DataFrame:
    """Pool the test slides of all folds; a slide that several folds test has its mean prediction.

    Args:
        predictions: The `evaluate` tables of all folds.
        endpoint: Of the task.
        by: patient_id to pool patients instead: each has the mean prediction of its slides.

    Returns:
        patient_id, label, the truth and the prediction by slide_id or patient_id.
    """
    kept = dict.fromkeys([name for name in ("patient_id", *endpoint.columns) if name != by], "first")
    return _mean_predictions(predictions, [by], kept, endpoint)


def average_by_patient(predictions: pd.DataFrame, endpoint: Endpoint) -> pd.DataFrame:
    """Average the predictions of the test slides of each patient and fold.

    Args:
        predictions: The `evaluate` tables of all folds.
        endpoint: Of the task.

    Returns:
        Columns fold, patient_id, label, the truth and the prediction; slides of one patient that differ in the truth
        stay apart.
    """
    return _mean_predictions(predictions, ["fold", "patient_id", *endpoint.columns], {}, endpoint).reset_index()


def _mean_predictions(
    predictions: pd.DataFrame, keys: list[str], kept: dict[str, str], endpoint: Endpoint
) -> pd.DataFrame:
    """Mean predictions by keys, and the kept columns."""
    return predictions.groupby(keys).agg(kept | dict.fromkeys(endpoint.prediction_columns, "mean"))


def unique_cases(predictions: pd.DataFrame) -> pd.DataFrame:
    """Select one prediction per slide, or per patient if predictions are of patients.

    Args:
        predictions: The `evaluate` tables of all folds, or as `average_by_patient` returns them.

    Returns:
        Its first row of each.
    """
    return predictions.drop_duplicates("slide_id" if "slide_id" in predictions else "patient_id")


def score_folds(predictions: pd.DataFrame, endpoint: Endpoint) -> pd.DataFrame:
    """Score the test part of each fold.

    Args:
        predictions: The `evaluate` tables of all folds.
        endpoint: Of the task.

    Returns:
        A row per fold: fold, n and the endpoint's scores.
    """
    cohort = unique_cases(predictions)
    rows = [{"fold": fold, "n": len(part)} | endpoint.score(part, cohort) for fold, part in predictions.groupby("fold")]
    return pd.DataFrame(rows, columns=["fold", "n", *endpoint.scores])


def summarize_folds(per_fold: pd.DataFrame, endpoint: Endpoint) -> dict[str, float]:
    """Summarize the scores over the folds where they are defined.

    Args:
        per_fold: As `score_folds` returns it.
        endpoint: Of the task.

    Returns:
        folds, their number; {score}_mean and {score}_sd (n - 1).
    """
    summary: dict[str, float] = {"folds": len(per_fold)}
    for name in endpoint.scores:
        summary |= {f"{name}_mean": float(per_fold[name].mean()), f"{name}_sd": float(per_fold[name].std(ddof=1))}
    return summary
