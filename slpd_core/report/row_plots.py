"""Small plots of single rows, as SVG inside the page: calibration, ROC, predicted and true values, Kaplan–Meier."""

from dataclasses import dataclass

import numpy as np

from slpd_core.endpoints.survival import kaplan_meier
from slpd_core.report import curves, metrics, wording
from slpd_core.report.result_rows import ResultRow

WIDTH_PX, HEIGHT_PX = 216, 200  # of a plot
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 40, 204, 10, 158  # of the area between its axes
MIN_BEND = 1e-6  # of a curve, from point to point


@dataclass(frozen=True)
class RowPlot:
    """A plot of a row.

    Attributes:
        title: Above it.
        x_title, y_title: Of the axes.
        x_ticks, y_ticks: Position in px and text.
        lines: Points of each line as SVG has them; the first is drawn whole, the second dashed.
        diagonal: Points of the line of perfect or of random predictions; "" without one.
        dots: An SVG path of dots; "" without any.
        bars: An SVG path of error bars; "" without any.
    """

    title: str
    x_title: str
    y_title: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[str]
    diagonal: str = ""
    dots: str = ""
    bars: str = ""


@dataclass(frozen=True)
class PlottedRow:
    """A row with its plots.

    Attributes:
        sentence: Its name.
        confusion: By label and predicted label, the count and its share of the label; None without classes.
        plots: Its plots.
    """

    sentence: str
    confusion: list[list[tuple[int, float]]] | None
    plots: list[RowPlot]


@dataclass(frozen=True)
class PixelScale:
    """A linear scale of a plot.

    Attributes:
        low, high: Values at its ends; equal ones are in its middle.
        start_px, end_px: Of the axis.
    """

    low: float
    high: float
    start_px: float
    end_px: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        span = self.high - self.low
        share = np.clip((values - self.low) / span, 0, 1) if span > 0 else np.full(np.shape(values), 0.5)
        px: np.ndarray = self.start_px + share * (self.end_px - self.start_px)
        return px

    def ticks(self) -> list[tuple[float, str]]:
        """Return the px and the text of its ends and its middle."""
        values = np.linspace(self.low, self.high, 3 if self.high > self.low else 1)
        return [(round(float(px), 1), f"{value:.3g}") for px, value in zip(self(values), values, strict=True)]


def plot_row(row: ResultRow) -> PlottedRow:
    """Plot a row, all its test cases together.

    Args:
        row: Of the result table.

    Returns:
        Of classes the confusion matrix and the calibration, without an order also the ROC curve (mean over folds); of
        numbers predicted beside true ones; of survival the Kaplan–Meier curves of low and high risk.
    """
    endpoint = row.endpoint
    if endpoint.kind == "survival":
        return PlottedRow(row.sentence, None, [_plot_survival(*wording.risk_groups(row))])
    pooled = metrics.pool_predictions(row.cases, endpoint, by="patient_id" if row.is_by_patient else "slide_id")
    truth, predictions = endpoint.encode(pooled), endpoint.predictions(pooled)
    if not endpoint.has_classes:
        return PlottedRow(row.sentence, None, [_plot_values(truth, predictions[:, 0])])
    plots = [_plot_calibration(predictions, truth)]
    if endpoint.kind == "classification":
        folds = [(endpoint.predictions(part), endpoint.encode(part)) for _, part in row.cases.groupby("fold")]
        plots.append(_plot_roc(curves.fold_roc_curves(folds)))
    return PlottedRow(row.sentence, count_confusion(truth, predictions), plots)


def count_confusion(labels: np.ndarray, probabilities: np.ndarray) -> list[list[tuple[int, float]]]:
    """Count how often each class is predicted as which.

    Args:
        labels: Class indices, (n,).
        probabilities: (n, C).

    Returns:
        C lists, one per label, of the count and the share of the label that is predicted as each class.
    """
    C = probabilities.shape[1]
    counts = np.zeros((C, C), int)
    np.add.at(counts, (labels, probabilities.argmax(1)), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return [[*zip(*pair, strict=True)] for pair in zip(counts.tolist(), shares.tolist(), strict=True)]


def _plot_calibration(probabilities: np.ndarray, labels: np.ndarray) -> RowPlot:
    """How often predictions are right by their probability, with standard errors."""
    chance = 1 / probabilities.shape[1]
    x, y, error = curves.calibration_curve(probabilities, labels)
    across, up = PixelScale(chance, 1, LEFT_PX, RIGHT_PX), PixelScale(0, 1, BOTTOM_PX, TOP_PX)
    ends = zip(across(x), up((y - error).clip(0, 1)), up((y + error).clip(0, 1)), strict=True)
    bars = "".join(f"M{x:.0f} {low:.0f}V{high:.0f}" for x, low, high in ends)
    return RowPlot(
        "Calibration",
        "probability of the predicted label",
        "share of right ones",
        across.ticks(),
        up.ticks(),
        [_points(across(x), up(y))],
        _points(across(np.array([chance, 1])), up(np.array([chance, 1]))),
        _dots(across(x), up(y)),
        bars,
    )


def _plot_roc(fold_curves: np.ndarray) -> RowPlot:
    """ROC curve, the mean over folds where it is defined; no line if it is nowhere."""
    across, up = PixelScale(0, 1, LEFT_PX, RIGHT_PX), PixelScale(0, 1, BOTTOM_PX, TOP_PX)
    defined = fold_curves[~np.isnan(fold_curves).any(1)] if len(fold_curves) else fold_curves
    lines = []
    if len(defined):
        curve = defined.mean(0)
        bends = np.concatenate([[True], abs(np.diff(curve, 2)) > MIN_BEND, [True]])  # the others are on straight lines
        lines = [_points(across(curves.FALSE_POSITIVE_RATES[bends]), up(curve[bends]))]
    corners = np.array([0.0, 1.0])
    return RowPlot(
        "ROC, mean over folds",
        "false positive rate",
        "true positive rate",
        across.ticks(),
        up.ticks(),
        lines,
        _points(across(corners), up(corners)),
    )


def _plot_values(truth: np.ndarray, predictions: np.ndarray) -> RowPlot:
    """Predicted beside true values, on one scale."""
    both = np.concatenate([truth, predictions])
    low, high = (float(both.min()), float(both.max())) if len(both) else (0.0, 1.0)
    across, up = PixelScale(low, high, LEFT_PX, RIGHT_PX), PixelScale(low, high, BOTTOM_PX, TOP_PX)
    corners = np.array([low, high])
    return RowPlot(
        "Predicted and true values",
        "true",
        "predicted",
        across.ticks(),
        up.ticks(),
        [],
        _points(across(corners), up(corners)),
        _dots(across(truth), up(predictions)),
    )


def _plot_survival(time: np.ndarray, event: np.ndarray, high: np.ndarray) -> RowPlot:
    """Kaplan–Meier curves of low risk and, dashed, of high risk."""
    longest = float(time.max()) if len(time) else 1.0
    across, up = PixelScale(0, longest, LEFT_PX, RIGHT_PX), PixelScale(0, 1, BOTTOM_PX, TOP_PX)
    lines = [_steps(time[group], event[group], across, up) for group in (~high, high)]
    return RowPlot("Kaplan–Meier", "time", "without an event", across.ticks(), up.ticks(), lines)


def _points(x: np.ndarray, y: np.ndarray) -> str:
    """Points of a line in SVG."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(x, y, strict=True))


def _dots(x: np.ndarray, y: np.ndarray) -> str:
    """A path of dots in SVG, each once: lines of no length, which round caps make visible."""
    places = dict.fromkeys(zip(x.round().astype(int).tolist(), y.round().astype(int).tolist(), strict=True))
    return "".join(f"M{x} {y}h0" for x, y in places)


def _steps(time: np.ndarray, event: np.ndarray, across: PixelScale, up: PixelScale) -> str:
    """Points of a Kaplan–Meier curve from time 0 on; "" without cases."""
    if not len(time):
        return ""
    curve = kaplan_meier(time, event)
    x, y = across(np.append(0, curve.time)), up(np.append(1, curve.survival))
    return _points(np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1])
