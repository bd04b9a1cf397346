"""Folds: which slides train, validate and test, no patient ever on both sides."""

from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import config, store
from slpd_core.runtime import generator, log

VERSION = 2


def partition(slides: pd.DataFrame, n_folds: int, seed: int) -> np.ndarray:
    """The fold that tests each slide: patient-grouped, label-stratified, int64 (slides,).

    slides: columns slide_id, patient_id, label; their order does not matter. Patients are dealt in random order, those
    with most slides first, each to the fold that holds the least of its labels, so no fold stays empty while there are
    patients. As scikit-learn's StratifiedGroupKFold, which refuses labels that all have fewer slides than folds.
    """
    table = pd.crosstab(slides["patient_id"], slides["label"])
    counts = table.to_numpy()
    order = generator(seed, "folds").permutation(len(counts))
    order = order[np.argsort(-counts.sum(1)[order], kind="stable")]
    weight = 1 / counts.sum(0) ** 2
    held = np.zeros((n_folds, counts.shape[1]), np.int64)
    fold = np.empty(len(counts), np.int64)
    for patient in order:
        overlap = (held * (counts[patient] * weight)).sum(1)
        fold[patient] = np.lexsort((held.sum(1), overlap))[0]
        held[fold[patient]] += counts[patient]
    return fold[table.index.get_indexer(slides["patient_id"])]


def validation_patients(slides: pd.DataFrame, fraction: float, rng: np.random.Generator) -> set[str]:
    """About `fraction` of the patients of each label, at least one in all unless it is 0; no label is taken whole.

    slides: of the training part, sorted; a patient with two labels counts for that of the first slide.
    """
    label = slides.drop_duplicates("patient_id").set_index("patient_id")["label"]
    wanted = (label.value_counts(sort=False) * fraction).round().astype(int).to_dict()
    if fraction > 0 and not any(wanted.values()):
        wanted[label.value_counts(sort=False).idxmax()] = 1
    labels = slides.groupby("patient_id")["label"].unique()
    left = slides.groupby("label")["patient_id"].nunique().to_dict()
    chosen: set[str] = set()
    for patient in rng.permutation(label.index.to_numpy()):
        if wanted[label[patient]] and all(left[own] > 1 for own in labels[patient]):
            wanted[label[patient]] -= 1
            left |= {own: left[own] - 1 for own in labels[patient]}
            chosen.add(patient)
    return chosen


def make_folds(slides: pd.DataFrame, section: config.Folds, seed: int) -> pd.DataFrame:
    """Every slide's part (train, val, test) in every fold; each slide is tested exactly once.

    slides: columns slide_id, patient_id, label. Gives columns fold, slide_id, patient_id, label, part.
    Raises ValueError when there is no slide, one label only, a label of one patient only, or fewer patients than folds.
    """
    if slides.empty:
        raise ValueError("no slide is left: all are quarantined or without tissue; the ledger names the reasons")
    patients, labels = slides["patient_id"].nunique(), sorted(slides["label"].unique())
    if len(labels) < 2:
        raise ValueError(f"slides of one label only are left ({labels[0]}); add slides of another")
    counts = slides.groupby("label")["patient_id"].nunique()
    if (counts < 2).any():
        raise ValueError(
            f"label {counts.idxmin()!r} stands on one patient only: no fold can train and test it; add patients"
        )
    if patients < section.n_folds:
        raise ValueError(
            f"folds.n_folds: {section.n_folds} folds of {patients} patients; lower it to {patients} or add patients"
        )
    if (counts < section.n_folds).any():
        rare = ", ".join(f"{label} ({counts[label]})" for label in counts.index[counts < section.n_folds])
        log.warning("fewer patients than folds for %s: some test parts lack the label, their AUC is undefined", rare)
    slides = slides.sort_values("slide_id", ignore_index=True)[["slide_id", "patient_id", "label"]]
    tested_in = partition(slides, section.n_folds, seed)
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
