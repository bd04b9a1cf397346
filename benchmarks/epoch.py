"""An epoch of SLPD at the paper's size on a GPU: 62,852 regions of 16 x 16 tokens in 384 dimensions, batch 256.

The tokens are random and lie on the GPU, or in the machine's memory as where a GPU has no room for them. The floor is
multiplying alone at the best rate of the run, in bfloat16.
"""

import time
from dataclasses import replace

import numpy as np
import torch

from benchmarks import prototypes, step
from slpd_core.pretraining.networks import NetworkParams, build_student_teacher
from slpd_core.pretraining.pretrain import select_arguments
from slpd_core.pretraining.stage_two import StageTwo
from slpd_core.pretraining.token_dataset import TokenDataset
from slpd_core.ssl.student_teacher import StudentTeacher
from slpd_core.ssl.trainer import EpochState, train_epoch

GRID, BATCH, AT_A_TIME = 16, 256, 1024
MOST_GB = 12  # beside the tokens


def cohort(device: str) -> TokenDataset:
    """Draw random tokens on the device, of slides as large as those of the benchmark of prototypes."""
    R, (_, slide_of) = prototypes.REGIONS, prototypes.cohort()
    tokens = torch.empty(R, GRID, GRID, step.TOKEN_DIM, dtype=torch.float16, device=device)
    for part in tokens.split(AT_A_TIME):
        part.normal_()
    ids = [f"slide-{number}" for number in range(prototypes.SLIDES)]
    return TokenDataset(tokens, slide_of, np.zeros((R, 2), np.int64), ids, ids, "f")


def first_slides(cohort: TokenDataset, count: int) -> TokenDataset:
    """Select a part of the cohort."""
    R, ids = int((cohort.slide_of < count).sum()), cohort.slide_ids[:count]
    part = replace(cohort, slide_ids=ids, patient_ids=ids)
    return replace(part, tokens=cohort.tokens[:R], slide_of=cohort.slide_of[:R], coords=cohort.coords[:R])


def wait(device: str) -> None:
    """Wait until the GPU is idle."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(networks: StudentTeacher, cohort: TokenDataset, epoch: int, device: str) -> dict[str, float]:
    """Measure the seconds of an epoch's parts, and the GPU memory beside the tokens, GB."""
    section = step.section_of(BATCH, drop_path=0.1).model_copy(update={"prototype_start_epoch": 0})
    before = torch.cuda.memory_allocated()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    parts = select_arguments(section)
    del parts["network"]
    stage = StageTwo(networks, cohort, **parts, seed=1)
    started = time.perf_counter()
    state = EpochState(epoch, stage.begin_epoch(epoch))
    wait(device)
    clustered = time.perf_counter()
    train_epoch(stage, state)
    wait(device)
    ended = time.perf_counter()
    beside = (torch.cuda.max_memory_allocated() - before) / 1e9
    return {"prototypes, s": clustered - started, "steps, s": ended - clustered, "GB beside the tokens": beside}


def epochs(device: str) -> None:
    """Print the table of a device."""
    rate = step.multiplying(device)["bf16"]
    networks = build_student_teacher(step.TOKEN_DIM, NetworkParams(), seed=1, device=device)
    made = cohort(device)
    timed(networks, first_slides(made, 40), 0, device)  # kernels are chosen, memory is taken
    whole = prototypes.REGIONS // BATCH * BATCH * step.operations(step.section_of(BATCH, 0.0))
    print(f"{prototypes.REGIONS:,} regions on {device}, multiplying {rate / 1e12:.0f} TFLOP/s\n")
    print("| tokens | prototypes, s | steps, s | regions/s | of the multiplying peak | GB beside the tokens |")
    print("|---|---:|---:|---:|---:|---:|")
    for place in ("on the GPU", "in memory"):
        if place == "in memory":
            made = replace(made, tokens=made.tokens.cpu())
        found = timed(networks, made, 1, device)
        spent, beside = found["steps, s"], found["GB beside the tokens"]
        print(
            f"| {place} | {found['prototypes, s']:.1f} | {spent:.1f} | {prototypes.REGIONS / spent:.0f} | "
            f"{whole / spent / rate:.0%} | {beside:.1f}{f' (more than {MOST_GB})' if beside > MOST_GB else ''} |",
            flush=True,
        )


def main() -> None:
    """Print the table, or that there is no GPU."""
    if torch.cuda.is_available():
        epochs("cuda")
    else:
        print("No GPU on this machine.")
