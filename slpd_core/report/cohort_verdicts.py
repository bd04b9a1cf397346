"""Verdicts on encoders and slides: collapsed trainings, prototypes, tissue in no region, slides unlike the others."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import artifacts
from slpd_core.report import verdicts
from slpd_core.report.verdicts import Verdict, VerdictLevel
from slpd_core.runtime import name_some


def judge_patch_encoder(source: str) -> Verdict:
    """Judge whether the patch encoder is trained.

    Args:
        source: Of its weights, as patch_encoder.source.

    Returns:
        fail if they are random.
    """
    check = "Patch encoder"
    if source == "features":
        return Verdict("pass", check, "The tokens are another tool's features: how its encoder was trained, it says.")
    if source != "random":
        return Verdict("pass", check, "The patch encoder has trained weights.")
    return Verdict(
        "fail",
        check,
        "The patch encoder has random weights: it was never trained, and all results rest on it.",
        "Use these results as an untrained baseline only. Name a published encoder (patch_encoder.name), or train one "
        "on your slides (patch_encoder.source: dino).",
    )


def judge_training(name: str, last: Mapping[str, float]) -> Verdict:
    """Judge whether a training has learnt something, by the last epoch of its history.

    Args:
        name: Of what was trained.
        last: Columns of that epoch. loss_self, teacher_entropy and log_out_dim, in nats, and effective_rank count if
            they are there and not nan.

    Returns:
        fail if it is idle or has collapsed; warn if it is nearly idle, or its embeddings have few directions.
    """
    most, rank = last.get("log_out_dim", math.nan), last.get("effective_rank", math.nan)
    loss, entropy = last.get("loss_self", math.nan) / most, last.get("teacher_entropy", math.nan) / most
    check = f"Training of {name}"
    failures: list[str] = []
    warnings: list[str] = []
    if loss >= verdicts.NEARLY_IDLE_SHARE:
        idle = failures if loss >= verdicts.IDLE_SHARE else warnings
        idle.append(f"its loss ended at {_percent(loss)} of ln(out_dim), the loss of an output that says nothing")
    if entropy >= verdicts.IDLE_SHARE:
        failures.append("its teacher gives all outputs the same weight (entropy near ln(out_dim))")
    if entropy <= verdicts.COLLAPSED_SHARE:
        failures.append("its teacher gives the same output for every crop (entropy near 0)")
    if rank < verdicts.LOW_RANK:
        low = failures if rank < verdicts.FAILED_RANK else warnings
        low.append(f"its embeddings use few directions (effective rank {rank:.1f}; 1 is the least)")
    remedy = (
        "Look at its curves. Train longer or on more slides; koleo_weight: 0.1 keeps embeddings of different tissue "
        "apart."
    )
    if failures:
        sentence = f"It has learnt nothing or has collapsed: {'; '.join(failures + warnings)}."
        return Verdict("fail", check, sentence, f"Do not use its embeddings. {remedy}")
    if warnings:
        return Verdict("warn", check, f"It may have learnt little: {'; '.join(warnings)}.", remedy)
    return Verdict("pass", check, "Its curves show no sign of an idle or a collapsed training.")


def judge_prototypes(run: str, fraction: float) -> Verdict:
    """Judge whether a run of SLPD had prototypes.

    Args:
        run: Its name.
        fraction: Of the slides, those without prototypes.

    Returns:
        fail from MANY_WITHOUT_PROTOTYPES on, warn above FEW_WITHOUT_PROTOTYPES.
    """
    check = f"Prototypes of {run}"
    if fraction <= verdicts.FEW_WITHOUT_PROTOTYPES:
        return Verdict("pass", check, f"In {run}, {_percent(1 - fraction)} of the slides have prototypes.")
    sentence = f"In {run}, {_percent(fraction)} of the slides have too few regions for prototypes"
    level: VerdictLevel = "warn"
    if fraction >= verdicts.MANY_WITHOUT_PROTOTYPES:
        level, sentence = "fail", f"{sentence}: its results are those of DINO rather than of SLPD"
    remedy = "Lower pretrain.n_prototypes or pretrain.min_regions, or take smaller regions (regions.size_px)."
    return Verdict(level, check, f"{sentence}.", remedy)


def judge_unseen_tissue(unseen: Mapping[str, float], share: float) -> Verdict:
    """Judge how much tissue no region holds.

    Args:
        unseen: Slide to the fraction of its tissue that no region holds.
        share: The same of all slides together.

    Returns:
        fail if the share is above LARGE_UNSEEN; warn if it is above COMMON_UNSEEN, or that of a slide above
        LARGE_UNSEEN.
    """
    check, sentence = (
        "Tissue in no region",
        f"{_percent(share)} of the tissue lies in no region: nothing looks at it.",
    )
    large = sorted((slide for slide in unseen if unseen[slide] > verdicts.LARGE_UNSEEN), key=lambda of: -unseen[of])
    if large:
        count = "1 slide" if len(large) == 1 else f"{len(large)} slides"
        listed = name_some([f"{slide} ({_percent(unseen[slide])})" for slide in large])
        sentence += f" Of {count} it is more than a third: {listed}."
    if not large and share <= verdicts.COMMON_UNSEEN:
        return Verdict("pass", check, sentence)
    level: VerdictLevel = "fail" if share > verdicts.LARGE_UNSEEN else "warn"
    remedy = (
        "Lower regions.min_tissue_fraction, set regions.anchor: tissue, or take smaller regions (regions.size_px). The "
        "pictures of the slides show in orange what was dropped."
    )
    return Verdict(level, check, sentence, remedy)


def judge_odd_slides(run: str, distances: Mapping[str, float]) -> Verdict:
    """Judge whether slides are unlike all others.

    Args:
        run: The pretraining run by whose embeddings they are compared.
        distances: As `measure_distances` returns them.

    Returns:
        warn if a slide is further away than FAR.
    """
    check = "Unusual slides"
    odd = sorted((slide for slide in distances if distances[slide] > verdicts.FAR), key=lambda of: -distances[of])
    if not odd:
        return Verdict("pass", check, f"By the embeddings of {run}, no slide is far from all others.")
    listed = name_some([f"{slide} ({distances[slide]:.1f} times as far as usual)" for slide in odd])
    many = "1 slide is" if len(odd) == 1 else f"{len(odd)} slides are"
    remedy = "Look at them: another stain or scanner, a wrong um/px, another organ? Correct the sheet, or remove them."
    return Verdict("warn", check, f"By the embeddings of {run}, {many} unlike the others: {listed}.", remedy)


def measure_unseen_tissue(ledger: pd.DataFrame, regions_dir: Path) -> tuple[dict[str, float], float]:
    """Measure the tissue that no region holds.

    Args:
        ledger: Of the cohort.
        regions_dir: Of {slide}.h5; slides without a file are left out.

    Returns:
        Fraction of the tissue by slide, of slides that are used and have tissue; and of all these together, nan if
        there are none.
    """
    held, tissue = {}, {}
    for slide in ledger[(ledger["status"] == artifacts.OK) & (ledger["tissue_mm2"] > 0)].to_dict("records"):
        path = regions_dir / f"{slide['slide_id']}.h5"
        if path.exists():
            regions, _ = artifacts.read_regions(path)
            tissue[slide["slide_id"]] = slide["tissue_mm2"]
            held[slide["slide_id"]] = min(regions.tissue_mm2, slide["tissue_mm2"])
    unseen = {slide: 1 - held[slide] / tissue[slide] for slide in tissue}
    return unseen, 1 - sum(held.values()) / sum(tissue.values()) if tissue else math.nan


def average_embeddings(embed: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Average the embeddings of each slide's regions.

    Args:
        embed: The `embed` table.

    Returns:
        Ids of the slides, str (N,), and their mean embeddings, float64 (N, D).
    """
    slides, index = np.unique(embed["slide_id"].to_numpy(str), return_inverse=True)
    embeddings = np.stack(embed["embedding"].to_list()) if len(embed) else np.empty((0, 0))
    sums = np.zeros((len(slides), embeddings.shape[1]))
    np.add.at(sums, index, embeddings)
    return slides, sums / np.bincount(index)[:, None]


def measure_distances(embed: pd.DataFrame) -> dict[str, float]:
    """Measure how far each slide is from the others: its mean embedding from the NTH_NEAREST one, in medians of all.

    Args:
        embed: The `embed` table.

    Returns:
        Distance by slide; none of fewer than MIN_SLIDES slides, or if half of the slides are alike.
    """
    from sklearn.neighbors import NearestNeighbors

    slides, means = average_embeddings(embed)
    if len(slides) < verdicts.MIN_SLIDES:
        return {}
    nearest = NearestNeighbors(n_neighbors=verdicts.NTH_NEAREST).fit(means).kneighbors()[0][:, -1]
    median = float(np.median(nearest))
    return dict(zip(slides.tolist(), (nearest / median).tolist(), strict=True)) if median > 1e-9 else {}


def _percent(fraction: float) -> str:
    """A fraction in percent, such as 13 %; 0 and 100 only where it is."""
    shown = min(max(round(100 * fraction), 0 if fraction <= 0 else 1), 100 if fraction >= 1 else 99)
    return f"{shown} %"
