"""Folds: which slides train, validate and test, no patient ever on both sides; or splits that are imported."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.evaluation import imported_splits, split_audit
from slpd_core.runtime import generator, log

VERSION = 8
PARTS = ("train", "val", "test", "spare")
TCGA_SITE = re.compile(r"TCGA-(\w\w)-")


def partition(slides: pd.DataFrame, n_folds: int, seed: int, repeat: int = 0) -> np.ndarray:
    """The fold that tests each slide: patient-grouped, label-stratified, int64 (slides,).

    slides: columns slide_id, patient_id, label; their order does not matter. repeat: another partition each. Patients
    are dealt in random order, those with most slides first, each to the fold that holds the least of its labels, so no
    fold stays empty while there are patients. As scikit-learn's StratifiedGroupKFold, which refuses labels that all
    have fewer slides than folds.
    """
    table = pd.crosstab(slides["patient_id"], slides["label"])
    counts = table.to_numpy()
    rng = generator(seed, "folds", "repeat", repeat) if repeat else generator(seed, "folds")
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts.sum(1)[order], kind="stable")]
    weight = 1 / counts.sum(0) ** 2
    held = np.zeros((n_folds, counts.shape[1]), np.int64)
    fold = np.empty(len(counts), np.int64)
    for patient in order:
        overlap = (held * (counts[patient] * weight)).sum(1)
        fold[patient] = np.lexsort((held.sum(1), overlap))[0]
        held[fold[patient]] += counts[patient]
    return fold[table.index.get_indexer(slides["patient_id"])]


def hold_out(slides: pd.DataFrame, fraction: float, rng: np.random.Generator) -> set[str]:
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


def group_ids(slides: pd.DataFrame, group_by: str) -> pd.Series:
    """What of a slide must not stand on both sides: its patient; or with `site` all patients of its site, and all sites
    of these.

    slides: columns slide_id, patient_id, site; a site that is not given is that of a TCGA barcode. Raises ValueError
    naming the slide that shows none.
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
    return pd.Series(sites, index=slides.index).groupby(component).transform(lambda own: "+".join(sorted(set(own))))


def group_slides(slides: pd.DataFrame, section: config.FoldsConfig) -> pd.DataFrame:
    """Return slide_id, label and, as patient_id, what must not be on both sides of a fold.

    slides: as of `make_folds`. Raises ValueError when there is no slide, one label only, a label of one patient (or
    site) only, or fewer of them than folds.
    """
    if slides.empty:
        raise ValueError("no slide is left: all are quarantined or without tissue; the ledger names the reasons")
    unit = section.group_by
    whole = slides[["slide_id", "label"]].assign(patient_id=group_ids(slides, unit))
    n_groups, labels = whole["patient_id"].nunique(), sorted(slides["label"].unique())
    if len(labels) < 2:
        raise ValueError(f"slides of one label only are left ({labels[0]}); add slides of another")
    counts = whole.groupby("label")["patient_id"].nunique()
    if (counts < 2).any():
        raise ValueError(
            f"label {counts.idxmin()!r} stands on one {unit} only: no fold can train and test it; add {unit}s"
        )
    if n_groups < section.n_folds:
        raise ValueError(
            f"folds.n_folds: {section.n_folds} folds of {n_groups} {unit}s; lower it to {n_groups} or add {unit}s"
        )
    return whole


def require_folds(slides: pd.DataFrame, section: config.FoldsConfig) -> None:
    """Check before any work that a sheet's slides can be divided, or that the imported splits name them.

    slides: columns slide_id, patient_id, label, site. Raises ValueError when they cannot.
    """
    if section.splits:
        require_labels(imported_splits.import_folds(section.files, slides.assign(status=artifacts.OK))[0])
    else:
        group_slides(slides, section)


def plan_folds(slides: pd.DataFrame, section: config.FoldsConfig, seed: int) -> pd.DataFrame:
    """Return the folds of a sheet's slides before any work, as if all of them were usable.

    Args:
        slides: Columns slide_id, patient_id, label, site.

    Raises:
        ValueError: As `require_folds`.
    """
    if section.splits:
        return imported_splits.import_folds(section.files, slides.assign(status=artifacts.OK))[0]
    return make_folds(slides, section, seed)


def require_labels(folds: pd.DataFrame) -> None:
    """Raise ValueError when the training part of a fold shows one label only."""
    labels = folds[folds["part"] == "train"].groupby("fold")["label"].unique()
    for fold, names in labels[labels.str.len() < 2].items():
        raise ValueError(f"fold {fold}: its training slides show one label only ({names[0]}); add slides of another")


def make_folds(slides: pd.DataFrame, section: config.FoldsConfig, seed: int) -> pd.DataFrame:
    """Every slide's part (train, val, test; spare where a share of the slides trains) in every fold; each slide is
    tested once a repeat.

    slides: columns slide_id, patient_id, label, and site where that is grouped by. Gives columns fold, slide_id,
    patient_id, label, part. Raises ValueError as `group_slides` does.
    """
    slides, unit = slides.sort_values("slide_id", ignore_index=True), section.group_by
    whole = group_slides(slides, section)
    counts = whole.groupby("label")["patient_id"].nunique()
    if (counts < section.n_folds).any():
        rare = ", ".join(f"{label} ({counts[label]})" for label in counts.index[counts < section.n_folds])
        log.warning(
            "fewer %ss than folds for %s: some test parts lack the label, and are scored without it", unit, rare
        )
    parts = []
    for repeat in range(section.n_repeats):
        tested_in = partition(whole, section.n_folds, seed, repeat)
        for tested in range(section.n_folds):
            fold = repeat * section.n_folds + tested
            part = np.where(tested_in == tested, "test", "train").astype(object)
            for name, share, keys in (
                ("val", section.val_fraction, (fold,)),
                ("spare", 1 - section.train_fraction, ("spare", fold)),
            ):
                chosen = hold_out(whole[part == "train"], share, generator(seed, "folds", *keys))
                part[(part == "train") & whole["patient_id"].isin(chosen).to_numpy()] = name
            parts.append(slides.assign(fold=fold, part=part))
    return pd.concat(parts, ignore_index=True)[[*artifacts.TABLES["folds"]]]


def run(
    *, ledger_path: Path, sheet_path: Path, out_path: Path, remarks_path: Path, section: config.FoldsConfig, seed: int
) -> None:
    """Write the folds of the slides the ledger admits, and a table of what is to be known of them."""
    ledger, meta = artifacts.read_table(ledger_path, "ledger")
    sheet, _ = artifacts.read_table(sheet_path, "sheet")
    slides = ledger.merge(sheet[["slide_id", "site"]], on="slide_id", how="left")
    found = split_audit.audit_slides(slides)
    if section.splits:
        folds, of_splits = imported_splits.import_folds(section.files, slides)
        found += of_splits
    else:
        folds = make_folds(slides[slides["status"] == artifacts.OK], section, seed)
    require_labels(folds)
    remarked = split_audit.table(found + split_audit.audit_folds(folds))
    for fold, rows in folds.groupby("fold"):
        counts = rows["part"].value_counts().to_dict()
        log.info("fold %d: %s", fold, ", ".join(f"{counts[part]} {part}" for part in PARTS if part in counts))
    inputs = [meta["fingerprint"], str(seed), *map(artifacts.file_fingerprint, section.files)]
    provenance = artifacts.provenance("folds", VERSION, section.model_dump(), *inputs)
    provenance |= {"ledger": meta["fingerprint"]} | imported_splits.recognize_splits(section.files)
    artifacts.write_table(out_path, "folds", folds, provenance)
    artifacts.write_both(remarks_path, "remarks", remarked, provenance)
