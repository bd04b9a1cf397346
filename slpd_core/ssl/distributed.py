"""Several processes, one a GPU, that train as one; alone, every function here leaves things as they are."""

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from slpd_core.runtime import SECONDS_TO_STOP, TERMINATED, file_handler, log, sigterm_exits
from slpd_core.ssl.slurm import Place

ALONE = Place()
TO_MEET = timedelta(hours=1)  # a node may be much longer than another at reading the tokens


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process is the one that writes files and the log."""
    return rank() == 0


def wait() -> None:
    """Go on when all processes have come here."""
    if dist.is_initialized():
        dist.barrier()


def own_share(rows: Any) -> Any:
    """This process's part of a batch; all parts are equally long if the batch divides by `count`."""
    return rows[rank() :: count()]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device without waiting for it: a GPU fetches it from pinned memory when it comes to it.

    Args:
        tensor: Anywhere.
        device: Where to.

    Returns:
        The tensor on the device.
    """
    if device.type == "cpu" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def require_even_shares(rows: int, key: str, what: str) -> None:
    """Raise ValueError where the rows of a batch cannot be shared evenly; key: of the config that says how many."""
    if rows % count():
        raise ValueError(
            f"{key}: {rows} {what} a step do not divide among {count()} GPUs; make it a multiple of their number, or "
            "ask for fewer"
        )


def add_up(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over the processes."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)


def average(tensor: Tensor) -> None:
    """Replace a tensor by its mean over the processes."""
    add_up(tensor)
    tensor /= count()


def anyone(says: bool, device: torch.device) -> bool:
    """Whether any of the processes says so; all of them have to ask."""
    told = torch.tensor(float(says), device=device)
    add_up(told)
    return bool(told)


def gathered(rows: Tensor) -> tuple[Tensor, int]:
    """The rows of all processes, equally many each, and where one's own begin; gradients flow back to their owners."""
    if not dist.is_initialized():
        return rows, 0
    return _Gather.apply(rows), rank() * len(rows)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(count())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(count())[rank()]


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace the gradients by their means over the processes, all in one message."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if dist.is_initialized() and gradients:
        vector = parameters_to_vector(gradients)
        dist.all_reduce(vector)
        vector_to_parameters(vector / count(), gradients)


def train_as_one(
    work: Callable[..., object], processes: int, device: str, *arguments: Any, place: Place = ALONE
) -> None:
    """Call work(*arguments) in so many processes, each with a GPU of its own on cuda; directly if one is enough.

    place: of this node among those that train as one; all start equally many processes. Raises RuntimeError with the
    last line of the traceback of the process that failed; the others are stopped.
    """
    path = next((handler.baseFilename for handler in log.handlers if isinstance(handler, logging.FileHandler)), None)
    if processes == 1:
        with joined(place, 0, 1, device):
            work(*arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        place = place if place.meet else replace(place, meet=f"file://{folder}/meet")
        started = mp.start_processes(
            _one_of_them,
            (place, processes, device, path, torch.get_num_threads(), work, arguments),
            nprocs=processes,
            join=False,
            daemon=True,
            start_method="spawn",
        )
        try:
            while not started.join():
                pass
        except mp.ProcessExitedException as error:
            if error.exit_code != TERMINATED:
                raise
            sys.exit(TERMINATED)
        except mp.ProcessRaisedException as error:
            raise RuntimeError(f"process {error.error_index}: {str(error).strip().splitlines()[-1]}") from error
        finally:
            for process in started.processes:
                process.terminate()
            deadline = time.monotonic() + SECONDS_TO_STOP
            for process in started.processes:  # which may have a checkpoint to write
                process.join(max(0.0, deadline - time.monotonic()))
                process.kill()


@contextmanager
def joined(place: Place, number: int, of_node: int, device: str) -> Iterator[None]:
    """Be one of the processes that train as one; one alone stays as it is.

    number: among the `of_node` processes of this node, and of its GPU.
    """
    processes = place.nodes * of_node
    if processes == 1:
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(number)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        place.meet,
        timeout=TO_MEET if place.nodes > 1 else None,
        world_size=processes,
        rank=place.node * of_node + number,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def _one_of_them(
    number: int, place: Place, of_node: int, device: str, log_path: str | None, threads: int, work: Any, arguments: Any
) -> None:
    if number == 0 and log_path:
        log.addHandler(file_handler(log_path))
        log.setLevel(logging.INFO)
    torch.set_num_threads(max(1, threads // of_node))
    with joined(place, number, of_node, device), sigterm_exits():
        work(*arguments)
