"""Which slides are clustered, and which regions the losses with prototypes reach, by the sizes of the slides alone."""

import numpy as np

from slpd_core import config
from slpd_core.pretraining.token_dataset import TokenDataset

LOSSES = {"intra": "L_intra", "inter": "L_inter"}


def clustering_groups(
    cohort: TokenDataset, section: config.PretrainRunConfig
) -> tuple[np.ndarray, list[str], list[str], int]:
    """Return what is clustered as one: the group of each region, names and patients of the groups, their prototypes.

    The slides, or where clustering is global, the cohort with as many prototypes as its slides would have had.
    """
    if section.clustering == "slide":
        return cohort.slide_of, cohort.slide_ids, cohort.patient_ids, section.n_prototypes
    total = min(section.n_prototypes * len(cohort.slide_ids), len(cohort.tokens))
    return np.zeros_like(cohort.slide_of), [""], [""], total


def related_slides(cohort: TokenDataset, section: config.PretrainRunConfig) -> np.ndarray:
    """Return int64 (N,), equal for slides that are no neighbors: of one patient, or every slide by itself."""
    if section.exclude_same_patient:
        return np.unique(cohort.patient_ids, return_inverse=True)[1]
    return np.arange(len(cohort.slide_ids))


def min_clustered_regions(section: config.PretrainRunConfig, M: int) -> int:
    """Return the number of regions from which on a slide has prototypes, M of them."""
    return max(M, section.min_regions or 0)


def reached_regions(cohort: TokenDataset, section: config.PretrainRunConfig) -> dict[str, np.ndarray]:
    """Find the regions that have a target of each loss with prototypes that counts.

    Returns:
        Term -> number of targets per region, int64 (R,): prototypes of its slide, or neighbors, K at most.
    """
    group_of, names, _, M = clustering_groups(cohort, section)
    clustered = np.bincount(group_of, minlength=len(names)) >= min_clustered_regions(section, M)
    targets = {"intra": clustered[group_of].astype(np.int64)} if section.alpha_intra else {}
    if section.alpha_inter:
        related = related_slides(cohort, section)
        if section.inter_target == "any_region":
            related, counted = related[cohort.slide_of], np.ones(len(cohort.tokens), bool)
            left = len(related) - np.bincount(related)[related]
        else:
            counted = clustered[cohort.slide_of]
            left = (clustered.sum() - np.bincount(related, clustered)[related].astype(np.int64))[cohort.slide_of]
        targets["inter"] = np.where(counted, np.minimum(left, section.n_neighbors), 0)
    return targets


def describe_gaps(cohort: TokenDataset, section: config.PretrainRunConfig) -> list[str]:
    """Describe what the losses with prototypes do not reach in a cohort.

    Returns:
        One sentence per gap; none where all regions are reached, or the settings ask for no such loss.
    """
    targets = reached_regions(cohort, section)
    dead = [LOSSES[term] for term, count in targets.items() if not count.any()]
    partial = [LOSSES[term] for term, count in targets.items() if count.any() and not count.all()]
    fewest = min_clustered_regions(section, clustering_groups(cohort, section)[3])
    too_small = np.bincount(cohort.slide_of).max(initial=0) < fewest
    gaps = []
    if dead:
        reason = f"no slide has {fewest} regions" if too_small else "no slide has another one to be compared with"
        verb, outcome = "train" if len(dead) > 1 else "trains", "this run is plain DINO, L_self alone; "
        gaps.append(
            f"{' and '.join(dead)} {verb} nothing, {_share(cohort, np.zeros(len(cohort.tokens), bool))} are not "
            f"reached, since {reason}: {outcome if len(dead) == len(targets) else ''}lower pretrain.min_regions or "
            "n_prototypes, or add slides."
        )
    if partial:
        reached = next(count for count in targets.values() if count.any() and not count.all()) > 0
        gaps.append(
            f"{' and '.join(partial)} {'do' if len(partial) > 1 else 'does'} not reach {_share(cohort, reached)}: "
            f"these slides have fewer than {fewest} regions and so no prototypes."
        )
    few = targets.get("inter", np.zeros(0, np.int64))
    if few.any() and (few := few[few > 0]).min() < section.n_neighbors:
        gaps.append(f"n_neighbors is {section.n_neighbors}, but some slides have only {few.min()} to be compared with.")
    return gaps


def _share(cohort: TokenDataset, reached: np.ndarray) -> str:
    """Format how many slides and regions are not reached; reached: bool (R,)."""
    N, R = len(cohort.slide_ids), len(reached)
    slides, regions = N - len(np.unique(cohort.slide_of[reached])), R - int(reached.sum())
    shares = f"{100 * slides / N:.1f} %", f"{100 * regions / max(R, 1):.1f} %"
    return f"{slides:,} of {N:,} slides ({shares[0]}) with {regions:,} of {R:,} regions ({shares[1]})"
