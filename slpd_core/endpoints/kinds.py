"""The kinds of endpoints: classification, ordinal, regression and survival."""

import json
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import pandas as pd

from slpd_core.endpoints.classification import CLASS_SCORES, score_classes
from slpd_core.endpoints.concordance import SURVIVAL_SCORES, auc_times, score_survival
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.ordinal import ORDINAL_SCORES, score_ordinal
from slpd_core.endpoints.regression import REGRESSION_SCORES, score_regression
from slpd_core.endpoints.strata import regression_groups, survival_groups

# How tables code an event, after a leading "1:" or "0:" (cBioPortal).
EVENTS = {"1", "true", "yes", "event", "dead", "deceased", "progressed", "recurred"}
CENSORED = {"0", "false", "no", "censored", "alive", "living"}


class Classification(Endpoint):
    """One of several classes without an order."""

    kind = "classification"
    targets = ("label",)
    scores: ClassVar[tuple[str, ...]] = CLASS_SCORES
    shown_scores = ("accuracy", "auc")
    main_score = "auc"

    @property
    def prediction_columns(self) -> list[str]:
        """The probability of each class."""
        return [f"p_{label}" for label in self.classes]

    def parse(self, target: str, text: str) -> str:
        """Take the text as the class."""
        return text

    def group(self, truth: pd.DataFrame) -> np.ndarray:
        """Group by class."""
        return np.asarray(truth["label"], object)

    def encode(self, slides: pd.DataFrame) -> np.ndarray:
        """Return class indices."""
        return np.array([self.classes.index(label) for label in slides["label"]], np.int64)

    def score_arrays(
        self, truth: np.ndarray, predictions: np.ndarray, cohort: np.ndarray | None = None
    ) -> dict[str, float]:
        """Score probabilities."""
        return score_classes(truth, predictions)

    def find_training_problem(self, slides: pd.DataFrame) -> str:
        """Two classes are needed."""
        labels = slides["label"].unique()
        if len(labels) > 1:
            return ""
        return f"its training slides have one label only ({', '.join(labels) or 'none'})"

    def describe_prediction(self, prediction: np.ndarray) -> str:
        """Name the most probable class."""
        return f"predicted {self.categorize(prediction)}, p {prediction.max():.2f}"

    def describe_truths(self, labels: pd.DataFrame) -> list[str]:
        """Return the classes."""
        return [*labels["label"]]

    def categorize(self, prediction: np.ndarray) -> str:
        """Name the most probable class."""
        return self.classes[prediction.argmax()]


class Ordinal(Classification):
    """One of several classes that have an order, such as grades."""

    kind = "ordinal"
    scores = ORDINAL_SCORES
    shown_scores = ("accuracy", "kappa")
    main_score = "kappa"

    def parse(self, target: str, text: str) -> str:
        """Take the text as the class, if it is one."""
        if text not in self.classes:
            raise ValueError(f"is {text!r}, none of {', '.join(self.classes)}; correct it, or add it to `order`")
        return text

    def score_arrays(
        self, truth: np.ndarray, predictions: np.ndarray, cohort: np.ndarray | None = None
    ) -> dict[str, float]:
        """Score the most probable class by its distance."""
        return score_ordinal(truth, predictions)


class Regression(Endpoint):
    """A number."""

    kind = "regression"
    targets = ("value",)
    scores = REGRESSION_SCORES
    shown_scores = ("r2", "mae", "spearman")
    main_score = "r2"

    @property
    def prediction_columns(self) -> list[str]:
        """The number."""
        return ["prediction"]

    def parse(self, target: str, text: str) -> float:
        """Read a finite number."""
        return _read_number(text)

    def group(self, truth: pd.DataFrame) -> np.ndarray:
        """Group by quartile."""
        return regression_groups(np.asarray(truth["value"]))

    def encode(self, slides: pd.DataFrame) -> np.ndarray:
        """Return the values."""
        return np.array(slides["value"], np.float64)

    def score_arrays(
        self, truth: np.ndarray, predictions: np.ndarray, cohort: np.ndarray | None = None
    ) -> dict[str, float]:
        """Score the errors."""
        return score_regression(truth, predictions[:, 0])

    def find_cohort_problems(self, labels: pd.DataFrame) -> list[str]:
        """Two different values are needed."""
        values = labels["value"].unique()
        return [] if len(values) > 1 else [f"one value only ({values[0]:g}); results need slides of two or more"]

    def describe(self, labels: pd.DataFrame) -> str:
        """Return the range and the median."""
        low, median, high = labels["value"].quantile([0, 0.5, 1])
        return f"{low:.4g} to {high:.4g}, median {median:.4g}"

    def find_training_problem(self, slides: pd.DataFrame) -> str:
        """Two different values are needed."""
        values = slides["value"].unique()
        return "" if len(values) > 1 else f"its training slides have one value only ({', '.join(map(str, values))})"

    def describe_prediction(self, prediction: np.ndarray) -> str:
        """Return the number as text."""
        return f"predicted {prediction[0]:.4g}"

    def describe_truths(self, labels: pd.DataFrame) -> list[str]:
        """Return the numbers as texts."""
        return [f"{value:.4g}" for value in labels["value"]]


class Survival(Endpoint):
    """The time to an event, right-censored."""

    kind = "survival"
    targets = ("time", "event")
    scores = SURVIVAL_SCORES
    shown_scores = ("c_index", "mean_auc")
    main_score = "c_index"

    @property
    def prediction_columns(self) -> list[str]:
        """The risk, in standard deviations of the training cases from their median: above 0 is a high risk."""
        return ["risk"]

    def parse(self, target: str, text: str) -> float | bool:
        """Read a time of 0 or more, or whether the event was seen then."""
        if target == "time":
            time = _read_number(text)
            if time < 0:
                raise ValueError(f"is {text!r}; a time of follow-up is not negative, correct it")
            return time
        code, _, words = text.lower().partition(":")
        if not (words and code in ("0", "1")):
            code = text.lower().removesuffix(".0")
        if code not in EVENTS | CENSORED:
            raise ValueError(f"is {text!r}; code an event as 1 and a censored case as 0")
        return code in EVENTS

    def group(self, truth: pd.DataFrame) -> np.ndarray:
        """Group by event, each before and after a time."""
        return survival_groups(np.asarray(truth["time"]), np.asarray(truth["event"]))

    def encode(self, slides: pd.DataFrame) -> np.ndarray:
        """Return times and events."""
        return np.array(slides[["time", "event"]], np.float64)

    def score_arrays(
        self, truth: np.ndarray, predictions: np.ndarray, cohort: np.ndarray | None = None
    ) -> dict[str, float]:
        """Score the order of risks."""
        (time, event), (all_times, all_events) = truth.T, (truth if cohort is None else cohort).T
        at = auc_times(all_times, all_events)
        return score_survival(time, event, predictions[:, 0], at, censoring=(all_times, all_events))

    def find_missing(self, part: pd.DataFrame, labels: pd.DataFrame) -> list[str]:
        """Name the event, if a part has none."""
        return [] if part["event"].any() else ["event"]

    @property
    def default_bags(self) -> str:
        """A patient has one survival."""
        return "patient"

    def find_patient_problems(self, labels: pd.DataFrame) -> list[str]:
        """A patient has one survival."""
        return [
            f"patient {patient!r} has slides of different times or events; survival is a patient's, make them equal"
            for patient in self.find_divided_patients(labels)
        ]

    def find_cohort_problems(self, labels: pd.DataFrame) -> list[str]:
        """A patient has one time, and somebody an event that somebody outlives."""
        problems = self.find_patient_problems(labels)
        if problem := self.find_training_problem(labels):
            problems.append(problem.replace("training slides", "slides") + "; results need events, and follow-up")
        return problems

    def describe(self, labels: pd.DataFrame) -> str:
        """Count patients and events, and state the follow-up."""
        patients = labels.drop_duplicates("patient_id")
        events, follow_up = int(patients["event"].sum()), patients["time"]
        return (
            f"{len(patients):,} patients, {events:,} {'event' if events == 1 else 'events'}, "
            f"follow-up {follow_up.min():.4g} to {follow_up.max():.4g}, median {follow_up.median():.4g}"
        )

    def find_training_problem(self, slides: pd.DataFrame) -> str:
        """An event is needed, with a case that outlives it."""
        time, event = self.encode(slides).T
        if not event.any():
            return "its training slides have no event"
        return "" if (time > time[event > 0].min()).any() else "none of its training slides outlives an event"

    def describe_prediction(self, prediction: np.ndarray) -> str:
        """Name the side of the median."""
        return f"{self.categorize(prediction)} ({prediction[0]:+.2f})"

    def describe_truths(self, labels: pd.DataFrame) -> list[str]:
        """State each case's end: event or censored, and when."""
        pairs = zip(labels["time"], labels["event"], strict=True)
        return [f"{'event' if event else 'censored'} at {time:.4g}" for time, event in pairs]

    def categorize(self, prediction: np.ndarray) -> str:
        """Name the side of the median training case."""
        return "high risk" if prediction[0] > 0 else "low risk"


CLASSIFICATION = Classification()  # whatever the classes are
KINDS: Mapping[str, type[Endpoint]] = {kind.kind: kind for kind in (Classification, Ordinal, Regression, Survival)}


def make_endpoint(kind: str, classes: Sequence[str] = ()) -> Endpoint:
    """Make an endpoint.

    Args:
        kind: classification, ordinal, regression or survival.
        classes: As in `Endpoint`.

    Returns:
        The endpoint.
    """
    return KINDS[kind](tuple(classes))


def read_endpoint(meta: Mapping[str, str]) -> Endpoint:
    """Read the endpoint of a task's artifact.

    Args:
        meta: Its metadata.

    Returns:
        The endpoint.
    """
    return make_endpoint(meta["kind"], json.loads(meta["classes"]))


def _read_number(text: str) -> float:
    """A finite number; raises ValueError."""
    try:
        number = float(text.replace("_", "x"))  # Python alone reads 1_000 as a number
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        hint = "; write a decimal point" if "," in text else "; correct it, or leave it empty"
        raise ValueError(f"is {text!r}, not a number{hint}")
    return number
