"""Which slides are clustered, and which regions the losses with prototypes reach, by the sizes of the slides alone."""

import numpy as np

from slpd_core.pretraining.objective import SlpdObjective
from slpd_core.pretraining.prototypes import ClusteringParams
from slpd_core.pretraining.token_dataset import TokenDataset

LOSSES = {"intra": "L_intra", "inter": "L_inter"}


def slides_to_cluster(dataset: TokenDataset, params: ClusteringParams) -> tuple[np.ndarray, list[str], int]:
    """Return the slides as they are clustered: each by itself, or where clustering is global, all as one.

    Args:
        dataset: N slides of R regions.
        params: Global clustering has as many prototypes as the slides would have had.

    Returns:
        The slide of each region, int64 (R,); the slides' ids, "" for all as one; the number of prototypes of each.
    """
    if params.clustering == "slide":
        return dataset.slide_of, dataset.slide_ids, params.n_prototypes
    total = min(params.n_prototypes * len(dataset.slide_ids), len(dataset.tokens))
    return np.zeros_like(dataset.slide_of), [""], total


def neighbor_groups(dataset: TokenDataset, *, exclude_same_patient: bool = False) -> np.ndarray:
    """Group slides: those of a group are no neighbors of one another.

    Args:
        dataset: N slides.
        exclude_same_patient: Whether slides of a patient are a group; else every slide is one.

    Returns:
        int64 (N,), equal within a group.
    """
    if exclude_same_patient:
        return np.unique(dataset.patient_ids, return_inverse=True)[1]
    return np.arange(len(dataset.slide_ids))


def min_clustered_regions(M: int, min_regions: int | None = None) -> int:
    """Compute the number of regions from which on a slide has prototypes.

    Args:
        M: Prototypes per slide.
        min_regions: As set; None for M.

    Returns:
        The number.
    """
    return max(M, min_regions or 0)


def reached_regions(dataset: TokenDataset, params: ClusteringParams, objective: SlpdObjective) -> dict[str, np.ndarray]:
    """Find the regions that have a target of each loss with prototypes that counts.

    Args:
        dataset: R regions.
        params: Of clustering and matching.
        objective: Says which losses count.

    Returns:
        Term -> number of targets per region, int64 (R,): prototypes of its slide, or neighbors, K at most.
    """
    slide_of, slide_ids, M = slides_to_cluster(dataset, params)
    clustered = np.bincount(slide_of, minlength=len(slide_ids)) >= min_clustered_regions(M, params.min_regions)
    targets = {"intra": clustered[slide_of].astype(np.int64)} if objective.alpha_intra else {}
    if objective.alpha_inter:
        groups = neighbor_groups(dataset, exclude_same_patient=params.exclude_same_patient)
        if objective.inter_target == "any_region":
            groups, counted = groups[dataset.slide_of], np.ones(len(dataset.tokens), bool)
            left = len(groups) - np.bincount(groups)[groups]
        else:
            counted = clustered[dataset.slide_of]
            left = (clustered.sum() - np.bincount(groups, clustered)[groups].astype(np.int64))[dataset.slide_of]
        targets["inter"] = np.where(counted, np.minimum(left, params.n_neighbors), 0)
    return targets


def describe_gaps(dataset: TokenDataset, params: ClusteringParams, objective: SlpdObjective) -> list[str]:
    """Describe what the losses with prototypes do not reach.

    Args:
        dataset: Slides and their regions.
        params: Of clustering and matching.
        objective: Says which losses count.

    Returns:
        One sentence per gap; none where all regions are reached, or the settings ask for no such loss.
    """
    targets = reached_regions(dataset, params, objective)
    dead = [LOSSES[term] for term, count in targets.items() if not count.any()]
    partial = [LOSSES[term] for term, count in targets.items() if count.any() and not count.all()]
    fewest = min_clustered_regions(slides_to_cluster(dataset, params)[2], params.min_regions)
    too_small = np.bincount(dataset.slide_of).max(initial=0) < fewest
    gaps = []
    if dead:
        reason = f"no slide has {fewest} regions" if too_small else "no slide has another one to be compared with"
        verb, outcome = "train" if len(dead) > 1 else "trains", "this run is plain DINO, L_self alone; "
        gaps.append(
            f"{' and '.join(dead)} {verb} nothing, {_share(dataset, np.zeros(len(dataset.tokens), bool))} are not "
            f"reached, since {reason}: {outcome if len(dead) == len(targets) else ''}lower pretrain.min_regions or "
            "n_prototypes, or add slides."
        )
    if partial:
        reached = next(count for count in targets.values() if count.any() and not count.all()) > 0
        gaps.append(
            f"{' and '.join(partial)} {'do' if len(partial) > 1 else 'does'} not reach {_share(dataset, reached)}: "
            f"these slides have fewer than {fewest} regions and so no prototypes."
        )
    few = targets.get("inter", np.zeros(0, np.int64))
    if few.any() and (few := few[few > 0]).min() < params.n_neighbors:
        gaps.append(f"n_neighbors is {params.n_neighbors}, but some slides have only {few.min()} to be compared with.")
    return gaps


def _share(dataset: TokenDataset, reached: np.ndarray) -> str:
    """Format how many slides and regions are not reached; reached: bool (R,)."""
    N, R = len(dataset.slide_ids), len(reached)
    slides, regions = N - len(np.unique(dataset.slide_of[reached])), R - int(reached.sum())
    shares = f"{100 * slides / N:.1f} %", f"{100 * regions / max(R, 1):.1f} %"
    return f"{slides:,} of {N:,} slides ({shares[0]}) with {regions:,} of {R:,} regions ({shares[1]})"
