"""What to watch while training: the numbers of history.csv beside the losses."""

import math

import numpy as np

from slpd_core.pretraining.cohort import Cohort
from slpd_core.pretraining.prototypes import Prototypes, share_moved


def watch_prototypes(cohort: Cohort, before: Prototypes | None, now: Prototypes) -> dict[str, float]:
    """Shares of slides, neighbours and regions, and the size of the smallest cluster; nan where there is none.

    smallest_cluster: over the slides that have prototypes; 0 when a prototype has no region.
    """
    N, M, _ = now.centres.shape
    has = now.assignment >= 0
    patients = np.array(cohort.patient_ids)
    slides, ranks = np.nonzero(now.neighbours >= 0)
    same = patients[slides] == patients[now.neighbours[slides, ranks]]
    clusters = np.bincount(cohort.slide_of[has] * M + now.assignment[has], minlength=N * M).reshape(N, M)
    return {
        "share_without_prototypes": float((cohort.sizes() < M).mean()),
        "smallest_cluster": float(clusters[clusters.any(1)].min()) if has.any() else math.nan,
        "same_patient_neighbours": float(same.mean()) if len(same) else math.nan,
        "moved": share_moved(before, now, cohort.slide_of) if before else math.nan,
    }
