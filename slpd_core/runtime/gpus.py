"""Share the GPUs of one machine among jobs by file locks."""

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
    """Reserve GPUs for a job by file locks and CUDA_VISIBLE_DEVICES.

    The system releases the locks when the job ends. Devices of other jobs are waited for. Where Slurm shows exactly the
    devices that were asked for, none is locked. Without any GPU the work runs on the CPU, with a warning.

    Args:
        gpus: Number of devices.

    Yields:
        Number of reserved devices.

    Raises:
        RuntimeError: The machine has fewer devices.
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
    """Return whether PyTorch can use the job's GPUs; logs a warning where it cannot.

    Args:
        gpus: Number of devices that the job holds.

    Returns:
        Whether CUDA works.
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
    """The devices CUDA shows: up to the first entry that names none, and none at all if one is named twice."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        # By number and not by file name: a container given /dev/nvidia3 alone calls it device 0.
        return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]
    names = list(takewhile(CUDA_DEVICE.fullmatch, map(str.strip, named.split(","))))
    return names if len(set(names)) == len(names) else []


def _wait_for(gpus: int, devices: list[str], locks: ExitStack) -> list[str]:
    """Lock `gpus` of the devices; between two tries none is held, so jobs that want several cannot block each other."""
    waiting = False
    while len(names := _lock_free_ones(gpus, devices, locks)) < gpus:
        locks.close()
        if not waiting:
            log.warning("waiting for %d GPU(s): other jobs hold too many of %s", gpus, ", ".join(devices))
        waiting = True
        time.sleep(SECONDS_BETWEEN_TRIES * random.uniform(0.5, 1.5))
    return names


def _lock_free_ones(gpus: int, devices: list[str], locks: ExitStack) -> list[str]:
    names: list[str] = []
    for device in devices:
        if len(names) < gpus:
            with suppress(BlockingIOError):
                fcntl.flock(locks.enter_context(_lock_file(device)), fcntl.LOCK_EX | fcntl.LOCK_NB)
                names.append(device)
    return names


def _lock_file(device: str) -> IO[str]:
    """The lock file of a device; under Slurm one a Slurm job, as each may call its first device 0."""
    owner = f"slurm{os.environ['SLURM_JOB_ID']}-" if "SLURM_JOB_ID" in os.environ else ""
    path = Path(tempfile.gettempdir()) / f"slpd-gpu-{owner}{device.replace('/', '-')}.lock"
    plain = (
        os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    )  # the folder is everyone's: what another put there is not followed
    try:
        return os.fdopen(os.open(path, plain | os.O_CREAT, 0o644))
    except PermissionError:
        return os.fdopen(os.open(path, plain))  # another user's, and reading is enough for flock
    except OSError as error:
        raise RuntimeError(f"{path}: no lock file ({error}); remove it, or have its owner do so") from error
