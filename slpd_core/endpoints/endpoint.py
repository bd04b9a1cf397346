"""An endpoint: the columns of a task's tables, their texts, and the scores of predictions.

Every table of a task has the column `label`: the class or, where there are no classes, the group that folds are
stratified by and pictures are colored by. The truth is in the columns `targets`. The subclasses, in `kinds`, say in one
line how they do what a method's docstring here states.
"""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Endpoint(ABC):
    """What a task predicts of a slide or patient.

    Attributes:
        classes: Names of the classes, in their order; none of an endpoint without classes.
    """

    classes: tuple[str, ...] = ()

    kind: ClassVar[str]
    targets: ClassVar[tuple[str, ...]]  # columns that hold the truth
    scores: ClassVar[tuple[str, ...]]
    shown_scores: ClassVar[tuple[str, ...]]  # of `scores`, those that tables show
    main_score: ClassVar[str]  # by which rows are compared

    @property
    @abstractmethod
    def prediction_columns(self) -> list[str]:
        """Columns of the predictions, (P,)."""

    @abstractmethod
    def parse(self, target: str, text: str) -> str | float | bool:
        """Read a cell of a table.

        Args:
            target: The column of `targets`.
            text: Its text.

        Returns:
            The value.

        Raises:
            ValueError: It is none; a clause "is ...; remedy".
        """

    @abstractmethod
    def group(self, truth: pd.DataFrame) -> np.ndarray:
        """Name the group of each slide.

        Args:
            truth: The columns of `targets`.

        Returns:
            The classes, or groups that folds share evenly, str (n,).
        """

    @abstractmethod
    def encode(self, slides: pd.DataFrame) -> np.ndarray:
        """Encode the truth as numbers.

        Args:
            slides: The columns of `targets`.

        Returns:
            Class indices, int64 (n,); values, float64 (n,); or times and events, float64 (n, 2).
        """

    @abstractmethod
    def score_arrays(
        self, truth: np.ndarray, predictions: np.ndarray, cohort: np.ndarray | None = None
    ) -> dict[str, float]:
        """Score the predictions of one test part.

        Args:
            truth: As `encode` returns it.
            predictions: (n, P).
            cohort: Truth of all cases, from which times and censoring weights of the time-dependent AUC are taken; by
                default `truth`.

        Returns:
            Each of `scores`; nan where undefined.
        """

    @abstractmethod
    def find_training_problem(self, slides: pd.DataFrame) -> str:
        """Say why no classifier can be trained on slides.

        Args:
            slides: Training slides, with the truth.

        Returns:
            A clause "its training slides ..."; "" if one can.
        """

    @property
    def default_bags(self) -> str:
        """What a bag is unless the settings say: "slide" or "patient"."""
        return "slide"

    def find_divided_patients(self, labels: pd.DataFrame) -> list[str]:
        """List the patients whose slides differ in the truth.

        Args:
            labels: Columns patient_id and `targets`.

        Returns:
            Their ids, sorted.
        """
        truth = labels[["patient_id", *self.targets]].drop_duplicates()
        counts = truth["patient_id"].value_counts(sort=False)
        return sorted(counts.index[counts > 1])

    def find_missing(self, part: pd.DataFrame, labels: pd.DataFrame) -> list[str]:
        """Name what a part of the labeled slides lacks, so that it trains or tests less than all do.

        Args:
            part: Its slides, with the truth.
            labels: All slides, with the truth.

        Returns:
            The classes that no slide of the part has, or "event".
        """
        return sorted({*labels["label"]} - {*part["label"]}) if self.has_classes else []

    def find_patient_problems(self, labels: pd.DataFrame) -> list[str]:
        """Say which patients cannot have such labels.

        Args:
            labels: Columns patient_id and `targets`.

        Returns:
            One line per patient.
        """
        return []

    def find_cohort_problems(self, labels: pd.DataFrame) -> list[str]:
        """Say why a cohort's labels cannot be evaluated, where it has no classes.

        Args:
            labels: Columns patient_id and `targets`.

        Returns:
            One line per problem.
        """
        return []

    def describe(self, labels: pd.DataFrame) -> str:
        """Describe the labels of slides in a few words.

        Args:
            labels: Columns patient_id, label and `targets`.

        Returns:
            How many of each class, the range, or events and follow-up.
        """
        counts = labels["label"].value_counts()
        names = [name for name in self.classes or sorted(counts.index) if name in counts]
        return ", ".join(f"{counts[name]:,} {name}" for name in names)

    def categorize(self, prediction: np.ndarray) -> str:
        """Name the category that a prediction stands for.

        Args:
            prediction: (P,).

        Returns:
            The class, or high or low risk; "" of a number.
        """
        return ""

    @abstractmethod
    def describe_prediction(self, prediction: np.ndarray) -> str:
        """Describe a prediction in a few words.

        Args:
            prediction: (P,).

        Returns:
            The words.
        """

    @abstractmethod
    def describe_truths(self, labels: pd.DataFrame) -> list[str]:
        """Describe the truth of each slide in a few words.

        Args:
            labels: The columns of `targets`.

        Returns:
            The label, or such as "0.54" or "event at 24".
        """

    @property
    def has_classes(self) -> bool:
        """Whether its labels are classes."""
        return "label" in self.targets

    @property
    def columns(self) -> list[str]:
        """Columns of a task's tables: the label, and those of the truth."""
        return [*dict.fromkeys(("label", *self.targets))]

    @property
    def meta(self) -> dict[str, str]:
        """The endpoint as metadata of an artifact."""
        return {"kind": self.kind, "classes": json.dumps(self.classes)}

    def predictions(self, slides: pd.DataFrame) -> np.ndarray:
        """Return the predictions of a table.

        Args:
            slides: Its columns of the predictions.

        Returns:
            float64 (n, P).
        """
        return np.asarray(slides[self.prediction_columns], np.float64)

    def score(self, slides: pd.DataFrame, cohort: pd.DataFrame | None = None) -> dict[str, float]:
        """Score a table of one test part.

        Args:
            slides: Columns of the truth and of the predictions.
            cohort: A table with the truth of all cases, as in `score_arrays`.

        Returns:
            Each of `scores`; nan where undefined.
        """
        everyone = None if cohort is None else self.encode(cohort)
        return self.score_arrays(self.encode(slides), self.predictions(slides), everyone)
