"""An epoch of SLPD at the paper's size on a GPU: 62,852 regions of 16 x 16 tokens in 384 dimensions, batch 256.

The tokens are random and lie on the GPU, or in the machine's memory as where a GPU has no room for them. The floor is
multiplying alone at the best rate of the run, in bfloat16.
"""

import time
from dataclasses import replace

import numpy as np
import torch

from benchmarks import prototypes, step
from slpd_core.dino.networks import Networks
from slpd_core.pretraining import pretrain
from slpd_core.pretraining.cohort import Cohort
from slpd_core.pretraining.networks import start_networks

GRID, BATCH, AT_A_TIME = 16, 256, 1024
MOST_GB = 12  # beside the tokens


def cohort() -> Cohort:
    """Random tokens, on the GPU, of slides as large as those of the benchmark of prototypes."""
    R, (_, slide_of) = prototypes.REGIONS, prototypes.cohort()
    tokens = torch.empty(R, GRID, GRID, step.TOKEN_DIM, dtype=torch.float16, device="cuda")
    for part in tokens.split(AT_A_TIME):
        part.normal_()
    ids = [f"slide-{number}" for number in range(prototypes.SLIDES)]
    return Cohort(tokens, slide_of, np.zeros((R, 2), np.int64), ids, ids, "f", [""] * len(ids))


def first_slides(cohort: Cohort, count: int) -> Cohort:
    """A part of the cohort."""
    R, ids = int((cohort.slide_of < count).sum()), cohort.slide_ids[:count]
    tokens, slide_of, coords = (rows[:R] for rows in (cohort.tokens, cohort.slide_of, cohort.coords))
    return replace(cohort, tokens=tokens, slide_of=slide_of, coords=coords, slide_ids=ids, patient_ids=ids)


def timed(networks: Networks, cohort: Cohort, epoch: int) -> dict[str, float]:
    """Seconds of what an epoch consists of, and the GB of the GPU's memory that it takes beside the tokens."""
    section = step.section_of(BATCH, drop_path=0.1).model_copy(update={"self_only_epochs": 0})
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    begun = pretrain.begin_epoch(networks, cohort, section, 1, epoch, None, "cuda")
    torch.cuda.synchronize()
    clustered = time.perf_counter()
    pretrain.train_epoch(networks, cohort, section, begun, 1, epoch, lambda: False)
    torch.cuda.synchronize()
    ended = time.perf_counter()
    beside = (torch.cuda.max_memory_allocated() - before) / 1e9
    return {"prototypes, s": clustered - started, "steps, s": ended - clustered, "GB beside the tokens": beside}


def main() -> None:
    """Print the table; without a GPU say that there is none."""
    if not torch.cuda.is_available():
        print("No GPU on this machine.")
        return
    rate = step.multiplying("cuda")["bf16"]
    networks = start_networks(step.section_of(BATCH, drop_path=0.1), step.TOKEN_DIM, 1, "cuda")
    made = cohort()
    timed(networks, first_slides(made, 40), 0)  # kernels are chosen, memory is taken
    whole = prototypes.REGIONS // BATCH * BATCH * step.operations(step.section_of(BATCH, 0.0))
    print(f"{prototypes.REGIONS:,} regions, {torch.cuda.get_device_name()}, multiplying {rate / 1e12:.0f} TFLOP/s\n")
    print("| tokens | prototypes, s | steps, s | regions/s | of the multiplying peak | GB beside the tokens |")
    print("|---|---:|---:|---:|---:|---:|")
    for place in ("on the GPU", "in memory"):
        if place == "in memory":
            made = replace(made, tokens=made.tokens.cpu())
        found = timed(networks, made, 1)
        spent, beside = found["steps, s"], found["GB beside the tokens"]
        print(
            f"| {place} | {found['prototypes, s']:.1f} | {spent:.1f} | {prototypes.REGIONS / spent:.0f} | "
            f"{whole / spent / rate:.0%} | {beside:.1f}{f' (more than {MOST_GB})' if beside > MOST_GB else ''} |",
            flush=True,
        )
