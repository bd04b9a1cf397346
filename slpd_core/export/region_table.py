"""What is known of each region of an encoder beside its embedding: prototype, and attention of classifiers."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from slpd_core import artifacts
from slpd_core.artifacts.paths import split_encoder_name
from slpd_core.export.exported_slide import FeatureSet

_KEYS = ["slide_id", "x", "y"]
_TRUTH = ("value", "time", "event")  # columns of `evaluate` tables that are not predicted, beside the label


def row_name(path: Path) -> str:
    """Name a row of the result table by one of its files, .../{task}/{features}/{classifier}.parquet.

    Args:
        path: Of the file.

    Returns:
        {task}_{classifier}.
    """
    return f"{path.parts[-3]}_{path.stem}"


def select_rows(paths: Iterable[Path], encoder: str) -> list[Path]:
    """Select the attention to regions of an encoder.

    Args:
        paths: Of `attention` tables.
        encoder: Name of a region encoder.

    Returns:
        Those of the encoder's run.
    """
    run, _ = split_encoder_name(encoder)
    return [path for path in paths if path.parts[-2] == run]


def read_prototypes(path: Path, ledger: str = "") -> pd.DataFrame:
    """Read the prototype of each region.

    Args:
        path: Of the prototypes of a run.
        ledger: Fingerprint of the ledger that they must come from; "" to skip the check.

    Returns:
        Columns slide_id, x, y and prototype, of its slide or where all slides are clustered as one of the cohort; rows
        of regions that have one.
    """
    arrays, meta = artifacts.read_arrays(path, ("region_slide", "coords", "assignment"))
    artifacts.check_ledger(path, meta, ledger)
    x, y = arrays["coords"].T
    table = pd.DataFrame({"slide_id": arrays["region_slide"], "x": x, "y": y, "prototype": arrays["assignment"]})
    return table[table["prototype"] >= 0]


def read_attention(path: Path, encoder: str, ledger: str = "") -> pd.DataFrame:
    """Read the attention to each region, the mean over the folds that test its slide.

    Args:
        path: Of an `attention` table.
        encoder: Name of a region encoder; of one that saw a fold's training slides, only that fold counts.
        ledger: As in `read_prototypes`.

    Returns:
        Columns slide_id, x, y and attention.

    Raises:
        ValueError: It was made from another ledger.
    """
    table, meta = artifacts.read_table(path, "attention")
    artifacts.check_ledger(path, meta, ledger)
    fold = split_encoder_name(encoder)[1]
    table = table if fold is None else table[table["fold"] == fold]
    return table.groupby(_KEYS, as_index=False, sort=False)["attention"].mean()


def join_regions(
    corners: pd.DataFrame, encoder: str, prototypes_path: Path, attention_paths: Sequence[Path], ledger: str = ""
) -> pd.DataFrame:
    """Join to regions their prototype and the attention of each classifier.

    Args:
        corners: Columns slide_id, x and y, one row per region.
        encoder: Name of the region encoder.
        prototypes_path: Of its prototypes.
        attention_paths: `attention` tables; those of other runs are left out.
        ledger: As in `read_prototypes`.

    Returns:
        The rows in their order, with `prototype`, float with nan for none, and attention_{task}_{classifier}, nan of
        slides that no fold tests.
    """
    table = corners[_KEYS].merge(read_prototypes(prototypes_path, ledger), "left", _KEYS, validate="one_to_one")
    for path in select_rows(attention_paths, encoder):
        attention = read_attention(path, encoder, ledger).rename(columns={"attention": f"attention_{row_name(path)}"})
        table = table.merge(attention, "left", _KEYS, validate="one_to_one")
    return table


def read_predictions(paths: Iterable[Path], encoder: str, slide_id: str) -> dict[str, float]:
    """Read the predictions of a slide by the classifiers on an encoder's regions, the mean over the folds that test it.

    Args:
        paths: Of `evaluate` tables, .../{task}/{features}/{classifier}/fold{fold}.parquet; those of other runs are left
            out.
        encoder: As in `read_attention`.
        slide_id: The slide.

    Returns:
        {prediction}_{task}_{classifier}, such as p_{label}_{task}_{classifier}; none where no fold tests the slide.
    """
    run, fold = split_encoder_name(encoder)
    folds = defaultdict(list)
    for path in paths:
        if path.parts[-3] == run and (fold is None or path.stem == f"fold{fold}"):
            table, _ = artifacts.read_table(path, "evaluate")
            known = table.columns.isin([*artifacts.TABLES["evaluate"], *_TRUTH])
            folds[row_name(path.parent)].append(table.loc[table["slide_id"] == slide_id, ~known])
    means = {name: pd.concat(tables).mean().dropna() for name, tables in folds.items()}
    return {f"{column}_{name}": float(value) for name, mean in means.items() for column, value in mean.items()}


def describe_regions(
    features: FeatureSet, prototypes_path: Path, attention_paths: Sequence[Path], prediction_paths: Sequence[Path]
) -> FeatureSet:
    """Read what is known of the regions of a slide.

    Args:
        features: The regions.
        prototypes_path, attention_paths: As in `join_regions`.
        prediction_paths: As in `read_predictions`.

    Returns:
        The same with `facts`; nan for what is not known.
    """
    slide_id, (x, y) = features.squares.slide.slide_id, features.squares.coords.T
    corners = pd.DataFrame({"slide_id": slide_id, "x": x, "y": y})
    facts = join_regions(corners, features.name, prototypes_path, attention_paths).drop(columns=_KEYS)
    facts = facts.assign(**read_predictions(prediction_paths, features.name, slide_id))
    return replace(features, facts=facts)
