"""Slide search: the slides of the cohort that are most similar to each query, as tables and a page."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from slpd_core import artifacts, config
from slpd_core.drawing.region_pictures import ReadRegions
from slpd_core.endpoints.kinds import read_endpoint
from slpd_core.runtime import log
from slpd_core.search.page import write_search_page
from slpd_core.search.search_index import PrototypeIndex, build_index, read_index
from slpd_core.search.similar_slides import rank_slides, tabulate_regions, tabulate_slides

VERSION = 1


def find_cohort_copies(slides: pd.DataFrame, cohort: pd.DataFrame) -> dict[str, str]:
    """Find slides whose files equal those of a slide of the cohort, byte for byte.

    Args:
        slides: Rows of the ledgers of other slides.
        cohort: The cohort's ledger.

    Returns:
        Slide -> the cohort's slide.
    """
    known = dict(zip(cohort["slide_fingerprint"], cohort["slide_id"], strict=True))
    pairs = zip(slides["slide_id"], slides["slide_fingerprint"], strict=True)
    return {slide: known[fingerprint] for slide, fingerprint in pairs if fingerprint and fingerprint in known}


def read_labels_of(paths: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Read the truth of each slide in each task, in a few words.

    Args:
        paths: Task -> its labels.

    Returns:
        Task -> slide -> truth.
    """
    labels = {}
    for task, path in paths.items():
        table, meta = artifacts.read_table(path, "labels")
        labels[task] = dict(zip(table["slide_id"], read_endpoint(meta).describe_truths(table), strict=True))
    return labels


def describe_labels(slide_id: str, labels: Mapping[str, Mapping[str, str]]) -> str:
    """Describe the labels of a slide in all tasks.

    Args:
        slide_id: Of the slide.
        labels: As `read_labels_of` returns them.

    Returns:
        One text, such as "LUAD" or "subtype: LUAD, os: event at 24"; "" without labels.
    """
    truths = {task: of[slide_id] for task, of in labels.items() if slide_id in of}
    return ", ".join(truth if task == "label" else f"{task}: {truth}" for task, truth in truths.items())


def describe_query(slide: Mapping[str, Any], M: int, copy: str) -> dict[str, Any]:
    """Describe a query for the page.

    Args:
        slide: Its row of a ledger.
        M: Prototypes of a slide.
        copy: The slide of the cohort whose file equals its file; "" if there is none.

    Returns:
        slide_id; regions; notes, sentences: why it has no prototypes, that it is a copy.
    """
    notes = []
    if slide["status"] == artifacts.QUARANTINED:
        notes.append(f"It could not be used: {slide['reason'].removeprefix(slide['slide_id'] + ': ')}")
    elif slide["regions"] < M:
        notes.append(f"It has {slide['regions']} regions, too few for {M} prototypes: no slide is compared with it.")
    if copy:
        notes.append(f"Its file equals that of {copy} of the cohort, byte for byte.")
    return {"slide_id": slide["slide_id"], "regions": slide["regions"], "notes": notes}


def index_queries(
    queries: Sequence[str], index: PrototypeIndex, embed_paths: Iterable[Path], meta: Mapping[str, str]
) -> PrototypeIndex:
    """Collect the prototypes of queries: those of the index, and of other slides by the same clustering.

    Args:
        queries: Ids of slides.
        index: Of the cohort.
        embed_paths: Embeddings of other slides.
        meta: Metadata of the index.

    Returns:
        The queries that have prototypes, in their order.
    """
    options = {"dim": int(meta["embed_dim"]), **json.loads(meta["section"]), "seed": int(meta["seed"])}
    selected = index.select(queries)
    for path in embed_paths:
        embed = artifacts.read_table(path, "embed")[0]
        selected = selected.join(build_index(embed[embed["slide_id"].isin(queries)], **options))
    return selected.select(queries)


def run(
    *,
    queries: Sequence[str],
    index_path: Path,
    ledger_path: Path,
    query_ledger_paths: Sequence[Path],
    query_embed_paths: Sequence[Path],
    label_paths: Mapping[str, Path],
    slide_paths: Mapping[str, Path],
    tissue_dir: Path,
    regions_dir: Path,
    similar_path: Path,
    matched_path: Path,
    page_path: Path,
    section: config.RankingConfig,
    read_regions: ReadRegions,
) -> None:
    """Search for each query, and write the slides found and the matched regions as tables and as a page.

    Args:
        queries: Ids of slides, of the cohort or of the further ledgers.
        index_path: Of the cohort.
        ledger_path: Of the cohort.
        query_ledger_paths, query_embed_paths: Ledgers and embeddings of queries that are not the cohort's.
        label_paths: Task -> labels of the cohort.
        slide_paths: Slide -> its file; one that cannot be read any more is shown without pictures of regions.
        tissue_dir, regions_dir: Of the slides' thumbnails and regions.
        similar_path, matched_path, page_path: Two CSVs and the page.
        section: Settings of the stage.
        read_regions: Reads the pixels of a slide's regions.

    Raises:
        ValueError: The index is of another ledger.
    """
    index, meta = read_index(index_path)
    ledger, ledger_meta = artifacts.read_table(ledger_path, "ledger")
    artifacts.check_ledger(index_path, meta, ledger_meta["fingerprint"])
    ledgers = [ledger, *(artifacts.read_table(path, "ledger")[0] for path in query_ledger_paths)]
    slides, labels = pd.concat(ledgers).set_index("slide_id", drop=False), read_labels_of(label_paths)
    copies = find_cohort_copies(slides[len(ledger) :], ledger)
    patients = slides["patient_id"].to_dict()
    patients |= {slide: patients[copy] for slide, copy in copies.items()}
    M = json.loads(meta["section"])["n_prototypes"]
    of_queries = index_queries(queries, index, query_embed_paths, meta)
    similar = rank_slides(of_queries, index, patients, **section.model_dump())
    table = tabulate_slides(of_queries, index, similar, patients, labels)
    matched = tabulate_regions(of_queries, index, similar)
    artifacts.write_csv(similar_path, table, "%.6g")
    artifacts.write_csv(matched_path, matched, "%.6g")
    described = [describe_query(slides.loc[query].to_dict(), M, copies.get(query, "")) for query in queries]
    for query in described:
        for note in query["notes"]:
            log.warning("%s: %s", query["slide_id"], note)
    write_search_page(
        page_path,
        described,
        table,
        matched,
        slide_paths=slide_paths,
        tissue_dir=tissue_dir,
        regions_dir=regions_dir,
        read_regions=read_regions,
        run=index_path.parent.name,
        labels={slide: describe_labels(slide, labels) for slide in slides.index},
        n_slides=len(index),
        M=M,
        **section.model_dump(),
    )
    log.info(
        "%d queries, %d of them with prototypes; %d slides in the index", len(queries), len(of_queries), len(index)
    )
