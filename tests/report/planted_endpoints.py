"""Planted predictions of every kind of endpoint."""

import numpy as np
import pandas as pd

from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.kinds import make_endpoint

GRADES = make_endpoint("ordinal", ["low", "mid", "top"])
VALUES = make_endpoint("regression")
FOLLOW_UP = make_endpoint("survival")


def plant_predictions(
    endpoint: Endpoint, fold: int, strength: float, *, n: int = 10, slides_per_patient: int = 1
) -> pd.DataFrame:
    """Plant an `evaluate` table.

    Args:
        endpoint: Of the task.
        fold: Its index; names slides and patients, and draws the truth.
        strength: Of the signal in the predictions, in standard deviations of their noise.
        n: Number of slides.
        slides_per_patient: Each has the truth and the prediction of its patient.

    Returns:
        The table; values are about 20, times 0.1 to 10.
    """
    truth_rng, rng = np.random.default_rng([5, fold]), np.random.default_rng([6, fold, int(10 * strength)])
    n_patients = n // slides_per_patient
    hidden = truth_rng.permutation(np.linspace(-1.5, 1.5, n_patients))
    guess = (strength * hidden + rng.normal(size=n_patients)) / np.hypot(strength, 1)
    if endpoint.kind == "ordinal":
        truth = {"label": np.array(endpoint.classes)[np.digitize(hidden, (-0.5, 0.5))]}
        scores = np.exp(-((guess[:, None] - [-1, 0, 1]) ** 2))
        predictions = scores / scores.sum(1, keepdims=True)
    elif endpoint.kind == "regression":
        truth, predictions = {"value": 20 + 5 * hidden}, 20 + 5 * guess[:, None]
    else:
        time = truth_rng.exponential(np.exp(-1.5 * hidden)).clip(0.1, 10)
        truth, predictions = {"time": time, "event": truth_rng.random(n_patients) < 0.7}, guess[:, None]
    frame = pd.DataFrame(truth).assign(**dict(zip(endpoint.prediction_columns, predictions.T, strict=True)))
    frame = frame.assign(label=endpoint.group(frame))
    frame = frame.loc[np.arange(n) // slides_per_patient].reset_index(drop=True)
    ids = [f"s{fold}-{i}" for i in range(n)]
    patients = [f"p{fold}-{i // slides_per_patient}" for i in range(n)] if slides_per_patient > 1 else ids
    columns = dict.fromkeys(["fold", "slide_id", "patient_id", *endpoint.columns, *endpoint.prediction_columns])
    return frame.assign(fold=fold, slide_id=ids, patient_id=patients)[[*columns]]
