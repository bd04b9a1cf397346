"""All test slides of a task: how each row predicts them, the most confidently wrong first."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slpd_core import artifacts
from slpd_core.drawing.html import inline_scripts, render, shrink_picture
from slpd_core.endpoints.concordance import case_discordance
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.report import metrics
from slpd_core.report.result_rows import ResultRow
from slpd_core.report.task import TaskResults

THUMBNAIL_PX, MAX_THUMBNAIL_BYTES = 112, 16_000_000  # side of a slide's picture; of all data URIs of a page


@dataclass(frozen=True)
class SlideTableWords:
    """The words of a kind of endpoint on this page.

    Attributes:
        truth: Title of the column of the truth.
        error: Title of the column that the page is sorted by.
        number: What the columns of the rows hold.
        order: A sentence on the order of the page.
    """

    truth: str
    error: str
    number: str
    order: str


OF_CLASSES = SlideTableWords(
    "Label",
    "Wrong by",
    "the probability of the slide's own label",
    "“Wrong by” is the probability of the most probable other label less that of the slide's own, by the reference "
    "row: above 0 the prediction is wrong, and the nearer to 1, the more confidently.",
)
WORDS: Mapping[str, SlideTableWords] = {
    "classification": OF_CLASSES,
    "ordinal": OF_CLASSES,
    "regression": SlideTableWords(
        "Value",
        "Off by",
        "the predicted value",
        "“Off by” is the distance of the reference row's prediction from the value.",
    ),
    "survival": SlideTableWords(
        "Follow-up",
        "Ordered wrongly",
        "the risk: above 0 it is above the training median",
        "“Ordered wrongly” compares a slide with each test slide of its fold of which it is known who had the event "
        "first. It is the share of them where the reference row gives the higher risk to the other one of the two.",
    ),
}


def measure_errors(row: ResultRow) -> pd.Series:
    """Measure how wrong a row is about each test slide.

    Args:
        row: Of the result table.

    Returns:
        By slide, the higher the worse: of classes the probability of the most probable other label less that of the
        slide's own; of numbers the absolute error; of survival the share of comparable test slides of the fold that are
        ordered wrongly, mean over folds, nan without any.
    """
    endpoint = row.endpoint
    if endpoint.kind == "survival":
        wrong = []
        for _, part in row.predictions.groupby("fold"):
            time, event = endpoint.encode(part).T
            discordance = case_discordance(time, event, endpoint.predictions(part)[:, 0])
            wrong.append(pd.Series(discordance, part["slide_id"]))
        return pd.concat(wrong).groupby(level=0).mean()
    pooled = metrics.pool_predictions(row.predictions, endpoint)
    truth, predictions = endpoint.encode(pooled), endpoint.predictions(pooled)
    if not endpoint.has_classes:
        return pd.Series(abs(predictions[:, 0] - truth), pooled.index)
    own = np.arange(len(truth)), truth
    others = predictions.copy()
    others[own] = -np.inf
    return pd.Series(others.max(1) - predictions[own], pooled.index)


def list_test_slides(results: TaskResults) -> pd.DataFrame:
    """List the test slides of a task, those first that the reference row is most wrong about.

    Args:
        results: Of a task with rows.

    Returns:
        By slide: patient_id, truth and predicted in words, error as in `measure_errors`, folds that test it; and of
        each row, by its key, the probability of the slide's label, or the prediction where there are no classes.
    """
    reference, endpoint = results.reference, results.endpoint
    assert reference is not None
    pooled = metrics.pool_predictions(reference.predictions, endpoint)
    folds = reference.predictions.groupby("slide_id")["fold"].agg(lambda of: ", ".join(map(str, sorted({*of}))))
    table = pd.DataFrame(
        {
            "patient_id": pooled["patient_id"],
            "truth": endpoint.describe_truths(pooled),
            "predicted": [endpoint.categorize(prediction) for prediction in endpoint.predictions(pooled)],
            "error": measure_errors(reference),
            "folds": folds,
        }
    )
    rows = sorted(results.rows, key=lambda row: row is not reference)  # the reference first
    numbers = {row.key: _predict_slides(row, endpoint) for row in rows}
    return table.join(pd.DataFrame(numbers)).sort_values("error", ascending=False, kind="stable")


def _predict_slides(row: ResultRow, endpoint: Endpoint) -> pd.Series:
    """The probability of each slide's own label, or the prediction where there are no classes."""
    pooled = metrics.pool_predictions(row.predictions, endpoint)
    predictions = endpoint.predictions(pooled)
    column = endpoint.encode(pooled) if endpoint.has_classes else np.zeros(len(pooled), int)
    return pd.Series(predictions[np.arange(len(pooled)), column], pooled.index)


def shrink_thumbnails(thumbnails: Mapping[str, str], slides: pd.Index) -> dict[str, str]:
    """Shrink pictures for a page of all slides, until they fill it.

    Args:
        thumbnails: Data URIs by slide; "" without a picture.
        slides: In the order of the page.

    Returns:
        Smaller ones; slides from the first that does not fit are missing.
    """
    uris: dict[str, str] = {}
    left = MAX_THUMBNAIL_BYTES
    for slide in slides:
        uri = shrink_picture(thumbnails[slide], THUMBNAIL_PX) if thumbnails.get(slide) else ""
        left -= len(uri)
        if left < 0:
            break
        uris[slide] = uri
    return uris


def link_files(folders: Mapping[str, tuple[Path, str]], slide: str, page: Path) -> dict[str, str]:
    """Find the files of a slide that a page can link.

    Args:
        folders: Title of a link to the folder of the files, and their suffix.
        slide: Its id.
        page: The page.

    Returns:
        Relative path by title, of files that are there.
    """
    paths = {title: folder / f"{slide}{suffix}" for title, (folder, suffix) in folders.items()}
    return {title: os.path.relpath(path, page.parent) for title, path in paths.items() if path.exists()}


def write_slide_table(
    path: Path,
    results: TaskResults,
    thumbnails: Mapping[str, str],
    folders: Mapping[str, tuple[Path, str]],
    heatmaps: Sequence[Path] = (),
) -> None:
    """Write the page of all test slides of a task.

    Args:
        path: An HTML file.
        results: Of a task.
        thumbnails: Data URIs by slide.
        folders: As in `link_files`; overlay is where a picture leads.
        heatmaps: {run}/{classifier}.jpg.
    """
    table = list_test_slides(results) if results.rows else pd.DataFrame(columns=["patient_id", "error"])
    reference, endpoint = results.reference, results.endpoint
    slides: list[dict[str, Any]] = [
        {"slide_id": slide, "links": link_files(folders, slide, path)} | of_slide
        for slide, of_slide in zip(table.index, table.to_dict("records"), strict=True)
    ]
    small = shrink_thumbnails(thumbnails, table.index)
    page = render(
        "report/slide_table.html.j2",
        title=f"Test slides: {results.task}",
        slides=slides,
        keys=[key for key in table if "/" in key],
        reference=reference,
        words=WORDS[endpoint.kind],
        kind=endpoint.kind,
        has_classes=endpoint.has_classes,
        format="{:.4g}" if endpoint.kind == "regression" else "{:.2f}",
        thumbnails=small,
        heatmaps={"/".join(of.with_suffix("").parts[-2:]): os.path.relpath(of, path.parent) for of in heatmaps},
        without_picture=len(slides) - len(small),
        has_patients=bool((table["patient_id"] != table.index).any()),
        **inline_scripts("table.js"),
    )
    artifacts.write_text(path, page)
