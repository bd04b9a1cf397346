"""GPUs of one machine, divided among jobs by file locks."""

import fcntl
import os
import random
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import IO

from slpd_core.runtime.logs import log

SECONDS_BETWEEN_TRIES = 1.0
CUDA_DEVICE = re.compile(r"\d+|(GPU|MIG)-.+")


@contextmanager
def gpu_slot(gpus: int) -> Iterator[int]:
    """Reserve GPUs of this machine and set CUDA_VISIBLE_DEVICES to them, waiting while other jobs hold too many.

    One file lock per device keeps jobs apart; the system frees it when a job dies. If Slurm gave the job exactly the
    devices it asked for, there is nothing to reserve.

    Args:
        gpus: GPUs that the job asked for.

    Yields:
        GPUs that the job holds: `gpus`, or 0 with a warning on a machine without any.

    Raises:
        RuntimeError: The machine has some GPUs, but fewer.
    """
    devices = _visible_devices()
    if not gpus or ("SLURM_JOB_ID" in os.environ and len(devices) == gpus):
        yield gpus
        return
    if not devices:
        log.warning("%d GPU(s) asked for, none found on this machine: working on the CPU", gpus)
        yield 0
        return
    if len(devices) < gpus:
        raise RuntimeError(
            f"{gpus} GPUs asked for, {len(devices)} on this machine ({', '.join(devices)}): run with "
            "--resources gpu=N, N no more than the machine has, or gpu=0 for the CPU"
        )
    with ExitStack() as locks:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(_wait_for(gpus, devices, locks))
        yield gpus


def pytorch_can_use(gpus: int) -> bool:
    """Test whether PyTorch can use the GPUs that this job holds, and warn if it cannot.

    Args:
        gpus: GPUs that the job holds, for the warning.

    Returns:
        Whether it can.
    """
    import torch

    usable = torch.cuda.is_available()
    if not usable:
        log.warning(
            "PyTorch %s cannot use the %d GPU(s) this job was given on %s: working on the CPU; nvidia-smi there says "
            "whether the driver runs and how old it is",
            torch.__version__,
            gpus,
            os.uname().nodename,
        )
    return usable


def _visible_devices() -> list[str]:
    """The devices that CUDA shows: those before the first invalid name, and none if one is listed twice."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        # Counted, not read from the file names: a container that has /dev/nvidia3 alone calls it device 0.
        return [str(i) for i, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]
    names = list(takewhile(CUDA_DEVICE.fullmatch, map(str.strip, listed.split(","))))
    return names if len(set(names)) == len(names) else []


def _wait_for(gpus: int, devices: list[str], locks: ExitStack) -> list[str]:
    """Lock `gpus` of the devices; none is held between two tries, so jobs that need several cannot block each other."""
    waiting = False
    while len(names := _lock_free_ones(gpus, devices, locks)) < gpus:
        locks.close()
        if not waiting:
            log.warning("waiting for %d GPU(s): other jobs hold too many of %s", gpus, ", ".join(devices))
        waiting = True
        time.sleep(SECONDS_BETWEEN_TRIES * random.uniform(0.5, 1.5))
    return names


def _lock_free_ones(gpus: int, devices: list[str], locks: ExitStack) -> list[str]:
    """Lock at most `gpus` devices that no other job holds; returns their names."""
    names: list[str] = []
    for device in devices:
        if len(names) < gpus:
            with suppress(BlockingIOError):
                fcntl.flock(locks.enter_context(_lock_file(device)), fcntl.LOCK_EX | fcntl.LOCK_NB)
                names.append(device)
    return names


def _lock_file(device: str) -> IO[str]:
    """The lock file of a device; under Slurm one per Slurm job, since each may call its first device 0."""
    owner = f"slurm{os.environ['SLURM_JOB_ID']}-" if "SLURM_JOB_ID" in os.environ else ""
    path = Path(tempfile.gettempdir()) / f"slpd-gpu-{owner}{device.replace('/', '-')}.lock"
    # All users write to this folder: links that another user put there are not followed.
    plain = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.fdopen(os.open(path, plain | os.O_CREAT, 0o644))
    except PermissionError:
        return os.fdopen(os.open(path, plain))  # another user's; flock needs no more than reading
    except OSError as error:
        raise RuntimeError(f"{path}: not a lock file ({error}); remove it, or ask its owner to") from error
