"""Partitions of slides: patients or sites stay whole, and labels are spread evenly."""

import re

import numpy as np
import pandas as pd

from slpd_core.runtime import generator

TCGA_SITE = re.compile(r"TCGA-(\w\w)-")


def partition(slides: pd.DataFrame, n_folds: int, seed: int, repeat: int = 0) -> np.ndarray:
    """Assign each slide to the fold that tests it: grouped by patient, stratified by label.

    Patients are dealt in random order, those with most slides first, each to the fold that holds the least of its
    labels: no fold stays empty while there are patients. As scikit-learn's StratifiedGroupKFold, which refuses labels
    that all have fewer slides than folds.

    Args:
        slides: Columns slide_id, patient_id, label, in any order.
        n_folds: Folds of the partition.
        seed: Of the random order.
        repeat: Each repeat is another partition.

    Returns:
        Fold of each slide, int64 (slides,).
    """
    table = pd.crosstab(slides["patient_id"], slides["label"])
    counts = table.to_numpy()
    rng = generator(seed, "folds", "repeat", repeat) if repeat else generator(seed, "folds")
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts.sum(1)[order], kind="stable")]
    weight = 1 / counts.sum(0) ** 2
    fold_counts = np.zeros((n_folds, counts.shape[1]), np.int64)
    fold = np.empty(len(counts), np.int64)
    for patient in order:
        overlap = (fold_counts * (counts[patient] * weight)).sum(1)
        fold[patient] = np.lexsort((fold_counts.sum(1), overlap))[0]
        fold_counts[fold[patient]] += counts[patient]
    fold_of_slide: np.ndarray = fold[table.index.get_indexer(slides["patient_id"])]
    return fold_of_slide


def hold_out(slides: pd.DataFrame, fraction: float, rng: np.random.Generator) -> set[str]:
    """Draw a fraction of the patients of each label; every label keeps at least one patient.

    Args:
        slides: The training part, sorted: columns slide_id, patient_id, label. A patient with two labels counts for
            that of the first slide.
        fraction: Of the patients of each label; at least one patient in all unless it is 0.
        rng: Draws the patients.

    Returns:
        Their patient ids.
    """
    label = slides.drop_duplicates("patient_id").set_index("patient_id")["label"]
    quota = (label.value_counts(sort=False) * fraction).round().astype(int).to_dict()
    if fraction > 0 and not any(quota.values()):
        quota[label.value_counts(sort=False).idxmax()] = 1
    labels = slides.groupby("patient_id")["label"].unique()
    remaining = slides.groupby("label")["patient_id"].nunique().to_dict()
    chosen: set[str] = set()
    for patient in rng.permutation(label.index.to_numpy()):
        if quota[label[patient]] and all(remaining[name] > 1 for name in labels[patient]):
            quota[label[patient]] -= 1
            remaining |= {name: remaining[name] - 1 for name in labels[patient]}
            chosen.add(patient)
    return chosen


def group_ids(slides: pd.DataFrame, group_by: str = "patient") -> pd.Series:
    """Name the group of each slide that no fold may divide.

    Args:
        slides: Columns slide_id, patient_id and, to group by site, site; where it is empty, the site of a TCGA barcode
            counts.
        group_by: "patient", or "site": the connected component of patients and sites.

    Returns:
        Group of each slide, in the order of the slides.

    Raises:
        ValueError: A slide has neither a site nor a TCGA barcode.
    """
    if group_by == "patient":
        return slides["patient_id"]
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    sites = []
    for slide in slides.itertuples():
        barcode = TCGA_SITE.match(slide.patient_id) or TCGA_SITE.match(slide.slide_id)
        site = slide.site or (barcode and barcode[1])
        if not site:
            raise ValueError(
                f"folds.group_by: slide {slide.slide_id} has no site and its patient, {slide.patient_id}, no TCGA "
                "barcode; fill in a column site of the sheet, or group by patient"
            )
        sites.append(site)
    ends = [pd.factorize(slides["patient_id"])[0], pd.factorize(np.array(sites, object))[0]]
    ends[1] = ends[1] + len(slides)
    edges = coo_array((np.ones(len(slides)), tuple(ends)), shape=(2 * len(slides),) * 2)
    component = connected_components(edges, directed=False)[1][ends[0]]
    return pd.Series(sites, index=slides.index).groupby(component).transform(lambda group: "+".join(sorted(set(group))))
