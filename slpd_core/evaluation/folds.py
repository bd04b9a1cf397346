"""Folds: which slides train, validate and test; no patient is ever on both sides. Or imported splits."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.endpoints.kinds import CLASSIFICATION, Classification, Endpoint, read_endpoint
from slpd_core.evaluation import imported_splits, split_audit
from slpd_core.runtime import generator, log

VERSION = 11
FOLD_PARTS = ("train", "val", "test", "unlabeled")
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


def group_slides(
    slides: pd.DataFrame, endpoint: Endpoint = CLASSIFICATION, *, n_folds: int = 10, group_by: str = "patient"
) -> pd.DataFrame:
    """Group slides for leak-free folds, and check that they can be divided.

    Args:
        slides: Columns slide_id, patient_id, label, and site where it groups.
        endpoint: What the task predicts; labels are checked only where they are classes.
        n_folds: Folds of a partition.
        group_by: As in `group_ids`.

    Returns:
        Columns slide_id, label and, as patient_id, the group.

    Raises:
        ValueError: There is no slide, one label only, a label of one group only, or fewer groups than folds.
    """
    if slides.empty:
        raise ValueError("no slide is left: all are quarantined or without tissue; the ledger names the reasons")
    groups = slides[["slide_id", "label"]].assign(patient_id=group_ids(slides, group_by))
    n_groups, labels = groups["patient_id"].nunique(), sorted(slides["label"].unique())
    if endpoint.has_classes and len(labels) < 2:
        raise ValueError(f"only one label is left ({labels[0]}); add slides of another")
    counts = groups.groupby("label")["patient_id"].nunique()
    if endpoint.has_classes and (counts < 2).any():
        raise ValueError(
            f"label {counts.idxmin()!r} has one {group_by} only: no fold can train and test it; add {group_by}s"
        )
    if n_groups < n_folds:
        raise ValueError(
            f"folds.n_folds: {n_folds} folds, but only {n_groups} {group_by}s; lower it to {n_groups} or "
            f"add {group_by}s"
        )
    return groups


def require_folds(
    slides: pd.DataFrame,
    split_paths: Sequence[Path] = (),
    endpoint: Endpoint = CLASSIFICATION,
    *,
    n_folds: int = 10,
    group_by: str = "patient",
) -> None:
    """Check before any work that a sheet's slides can be divided, or that the imported splits name them.

    Args:
        slides: Columns slide_id, patient_id, label ("" where a slide has none), the truth, site.
        split_paths: Imported splits, fold after fold; without any, folds are drawn.
        endpoint: What the task predicts.
        n_folds, group_by: As in `make_folds`.

    Raises:
        ValueError: They cannot be divided.
    """
    if split_paths:
        imported, _ = imported_splits.import_folds(split_paths, slides.assign(status=artifacts.OK))
        require_training(add_truth(imported, slides, endpoint), endpoint)
    else:
        group_slides(slides[slides["label"] != ""], endpoint, n_folds=n_folds, group_by=group_by)


def add_truth(folds: pd.DataFrame, slides: pd.DataFrame, endpoint: Endpoint) -> pd.DataFrame:
    """Add the columns of the truth to folds.

    Args:
        folds: Columns of the `folds` table.
        slides: Columns slide_id and the truth.
        endpoint: What the task predicts.

    Returns:
        The folds, in their order.
    """
    truth = slides.set_index("slide_id")[[*endpoint.targets]].loc[folds["slide_id"]].infer_objects()
    return folds.assign(**{name: truth[name].to_numpy() for name in endpoint.targets})


def require_training(folds: pd.DataFrame, endpoint: Endpoint = CLASSIFICATION) -> None:
    """Require that a classifier can be trained on each fold.

    Args:
        folds: A `folds` table, with the truth.
        endpoint: What the task predicts.

    Raises:
        ValueError: A training part has one label only, or no event.
    """
    for fold, rows in folds[folds["part"] == "train"].groupby("fold"):
        if problem := endpoint.find_training_problem(rows):
            raise ValueError(f"fold {fold}: {problem}; add slides of another, or lower folds.n_folds")


def make_folds(
    slides: pd.DataFrame,
    seed: int,
    endpoint: Endpoint = CLASSIFICATION,
    *,
    n_folds: int = 10,
    n_repeats: int = 1,
    group_by: str = "patient",
    val_fraction: float = 0.0,
    train_fraction: float = 1.0,
) -> pd.DataFrame:
    """Draw folds grouped by patient or site and stratified by label; each repeat tests every slide once.

    Args:
        slides: Columns slide_id, patient_id, label, and site where it groups; in any order.
        seed: Of all draws.
        endpoint: What the task predicts.
        n_folds: Folds of a partition.
        n_repeats: Partitions.
        group_by: "patient" or "site", as in `group_ids`.
        val_fraction: Of the training patients, for validation.
        train_fraction: Of the other training patients, those that train; the rest is `unlabeled`.

    Returns:
        Columns fold, slide_id, patient_id, label, part; a row per fold and slide.

    Raises:
        ValueError: As `group_slides`.
    """
    slides = slides.sort_values("slide_id", ignore_index=True)
    groups = group_slides(slides, endpoint, n_folds=n_folds, group_by=group_by)
    counts = groups.groupby("label")["patient_id"].nunique()
    if endpoint.has_classes and (counts < n_folds).any():
        rare = ", ".join(f"{label} ({counts[label]})" for label in counts.index[counts < n_folds])
        log.warning(
            "fewer %ss than folds for %s: some test parts lack the label, and are scored without it", group_by, rare
        )
    tables = []
    for repeat in range(n_repeats):
        test_fold = partition(groups, n_folds, seed, repeat)
        for i in range(n_folds):
            fold = repeat * n_folds + i
            part = np.where(test_fold == i, "test", "train").astype(object)
            for name, fraction, keys in (
                ("val", val_fraction, (fold,)),
                ("unlabeled", 1 - train_fraction, ("spare", fold)),  # the seed keeps the part's first name
            ):
                chosen = hold_out(groups[part == "train"], fraction, generator(seed, "folds", *keys))
                part[(part == "train") & groups["patient_id"].isin(chosen).to_numpy()] = name
            tables.append(slides.assign(fold=fold, part=part))
    return pd.concat(tables, ignore_index=True)[[*artifacts.TABLES["folds"]]]


def require_equal_labels(slides: pd.DataFrame, endpoint: Endpoint = CLASSIFICATION) -> None:
    """Check that slides of equal content have the same label.

    Args:
        slides: Columns slide_id, slide_fingerprint, and the truth.
        endpoint: What the task predicts.

    Raises:
        ValueError: Some differ; names them.
    """
    problems = []
    for _, rows in slides.groupby("slide_fingerprint", sort=False):
        truth = rows[[*endpoint.targets]].drop_duplicates()
        if len(truth) > 1:
            values = ", ".join(" and ".join(map(repr, one)) for one in truth.itertuples(index=False, name=None))
            problems.append(
                f"{', '.join(rows['slide_id'])} are the same slide, byte for byte, of labels {values}; correct the "
                "labels or remove all but one"
            )
    if problems:
        raise ValueError("\n  ".join(problems))


def run(
    *,
    ledger_path: Path,
    sheet_path: Path,
    labels_path: Path,
    out_path: Path,
    remarks_path: Path,
    section: config.FoldsConfig,
    seed: int,
) -> None:
    """Write the folds of a task's usable slides, and the table of remarks on them.

    Args:
        ledger_path: The cohort's ledger.
        sheet_path: The checked sheet, for the sites.
        labels_path: The labels of the task.
        out_path: The `folds` table.
        remarks_path: The `remarks` table.
        section: Of the config.
        seed: Of all draws.
    """
    ledger, meta = artifacts.read_table(ledger_path, "ledger")
    sheet, _ = artifacts.read_table(sheet_path, "sheet")
    labels, labels_meta = artifacts.read_table(labels_path, "labels")
    slides = ledger.merge(sheet[["slide_id", "site"]], on="slide_id", how="left")
    slides = slides.merge(labels.drop(columns="patient_id"), on="slide_id", how="left").fillna({"label": ""})
    usable = slides[(slides["status"] == artifacts.OK) & (slides["label"] != "")]
    endpoint = read_endpoint(labels_meta)
    require_equal_labels(usable, endpoint)
    issues = split_audit.audit_slides(slides)
    if section.splits_dir:
        folds, import_issues = imported_splits.import_folds(section.files, slides)
        issues += import_issues
    else:
        folds = make_folds(
            usable,
            seed,
            endpoint,
            n_folds=section.n_folds,
            n_repeats=section.n_repeats,
            group_by=section.group_by,
            val_fraction=section.val_fraction,
            train_fraction=section.train_fraction,
        )
    folds = add_truth(folds, labels, endpoint)
    require_training(folds, endpoint)
    remarks = split_audit.tabulate_issues(issues + split_audit.audit_folds(folds, endpoint))
    for fold, rows in folds.groupby("fold"):
        counts = rows["part"].value_counts().to_dict()
        log.info("fold %d: %s", fold, ", ".join(f"{counts[part]} {part}" for part in FOLD_PARTS if part in counts))
    files = map(artifacts.file_fingerprint, section.files)
    inputs = [meta["fingerprint"], labels_meta["fingerprint"], str(seed), *files]
    provenance = artifacts.provenance("folds", VERSION, section.model_dump(), *inputs)
    if endpoint.kind == "classification":
        endpoint = Classification(tuple(sorted(folds["label"].unique())))
    provenance |= {"ledger": meta["fingerprint"], "task": labels_meta["task"]} | endpoint.meta
    provenance |= imported_splits.recognize_splits(section.files)
    artifacts.write_table(out_path, "folds", folds, provenance)
    artifacts.write_both(remarks_path, "remarks", remarks, provenance)
