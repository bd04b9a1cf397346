"""Folds: which slides train, validate and test, no patient ever on both sides."""

from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import config, store
from slpd_core.runtime import generator, log

VERSION = 1


def partition(slides: pd.DataFrame, n_folds: int, seed: int) -> np.ndarray:
    """The fold that tests each slide: patient-grouped, label-stratified, int64 (slides,).

    slides: columns slide_id, patient_id, label, sorted by slide_id, so that the order of a sheet does not matter.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    state = int(generator(seed, "folds").integers(1 << 31))
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=state)
    fold = np.empty(len(slides), np.int64)
    for number, (_, tested) in enumerate(splitter.split(slides, slides["label"], slides["patient_id"])):
        fold[tested] = number
    return fold


def validation_patients(slides: pd.DataFrame, fraction: float, rng: np.random.Generator) -> set[str]:
    """About `fraction` of the patients of each label, never all of a label's."""
    chosen: set[str] = set()
    first = slides.drop_duplicates("patient_id")
    for _, patients in first.groupby("label")["patient_id"]:
        order = rng.permutation(patients.to_numpy())
        chosen |= set(order[: min(round(fraction * len(order)), len(order) - 1)])
    return chosen


def make_folds(slides: pd.DataFrame, section: config.Folds, seed: int) -> pd.DataFrame:
    """Every slide's part (train, val, test) in every fold; each slide is tested exactly once.

    slides: columns slide_id, patient_id, label. Gives columns fold, slide_id, patient_id, label, part.
    Raises ValueError when there are fewer patients than folds or one label only.
    """
    patients, labels = slides["patient_id"].nunique(), sorted(slides["label"].unique())
    if len(labels) < 2:
        raise ValueError(f"slides of one label only are left ({', '.join(labels) or 'none'}); add slides of another")
    if patients < section.n_folds:
        raise ValueError(
            f"folds.n_folds: {section.n_folds} folds of {patients} patients; lower it to {patients} or add patients"
        )
    counts = slides.groupby("label")["patient_id"].nunique()
    if (counts < 2).any():
        raise ValueError(
            f"label {counts.idxmin()!r} stands on one patient only: no fold can train and test it; add patients"
        )
    if (counts < section.n_folds).any():
        rare = ", ".join(f"{label} ({counts[label]})" for label in counts.index[counts < section.n_folds])
        log.warning("fewer patients than folds for %s: some test parts lack the label, their AUC is undefined", rare)
    slides = slides.sort_values("slide_id", ignore_index=True)[["slide_id", "patient_id", "label"]]
    tested_in = partition(slides, min(section.n_folds, patients), seed)
    parts = []
    for fold in range(section.n_folds):
        part = np.where(tested_in == fold, "test", "train").astype(object)
        training = slides[part == "train"]
        chosen = validation_patients(training, section.val_fraction, generator(seed, "folds", fold))
        part[(part == "train") & slides["patient_id"].isin(chosen).to_numpy()] = "val"
        parts.append(slides.assign(fold=fold, part=part))
    return pd.concat(parts, ignore_index=True)[[*store.TABLES["folds"]]]


def run(*, ledger_path: Path, out_path: Path, section: config.Folds, seed: int) -> None:
    """Write the folds of the slides the ledger admits."""
    ledger, meta = store.read_table(ledger_path, "ledger")
    folds = make_folds(ledger[ledger["status"] == store.OK], section, seed)
    for fold, rows in folds.groupby("fold"):
        counts = rows["part"].value_counts().to_dict()
        log.info("fold %d: %s", fold, ", ".join(f"{counts.get(part, 0)} {part}" for part in ("train", "val", "test")))
    provenance = store.provenance("folds", VERSION, section.model_dump(), meta["fingerprint"], str(seed))
    store.write_table(out_path, "folds", folds, provenance)
