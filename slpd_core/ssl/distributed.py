"""Distributed helpers, one process per GPU; without a process group every function is a no-op."""

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
from slpd_core.ssl.slurm import NodeInfo

SINGLE_NODE = NodeInfo()
RENDEZVOUS_TIMEOUT = timedelta(hours=1)  # reading the tokens may take one node much longer


def world_size() -> int:
    """Count the processes that train together.

    Returns:
        1 without a process group.
    """
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Tell the processes apart.

    Returns:
        The index of this process, from 0.
    """
    return dist.get_rank() if dist.is_initialized() else 0


def is_main_process() -> bool:
    """Tell the process that writes files and the log.

    Returns:
        Whether this is the one.
    """
    return rank() == 0


def barrier() -> None:
    """Wait until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def local_shard(rows: Any) -> Any:
    """Select this process's part of a batch.

    Args:
        rows: Of the batch, anything that slices.

    Returns:
        Its part; all are equally long if `world_size` divides the batch.
    """
    return rows[rank() :: world_size()]


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


def require_even_shards(batch_size: int, key: str, unit: str) -> None:
    """Check that a batch divides evenly among the processes.

    Args:
        batch_size: Rows per step.
        key: Setting that says how many.
        unit: Regions or patches.

    Raises:
        ValueError: It does not.
    """
    if batch_size % world_size():
        raise ValueError(
            f"{key}: {batch_size} {unit} per step do not divide among {world_size()} GPUs; make it a multiple of their "
            "number, or ask for fewer GPUs"
        )


def all_reduce_sum(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over the processes.

    Args:
        tensors: Changed in place.
    """
    if dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)


def all_reduce_mean(tensor: Tensor) -> None:
    """Replace a tensor by its mean over the processes.

    Args:
        tensor: Changed in place.
    """
    all_reduce_sum(tensor)
    tensor /= world_size()


def any_rank(device: torch.device, *, flag: bool) -> bool:
    """Tell whether a flag is set in any process; all have to call this.

    Args:
        device: On which processes tell one another.
        flag: Of this process.

    Returns:
        Whether any is set.
    """
    total = torch.tensor(float(flag), device=device)
    all_reduce_sum(total)
    return bool(total)


def all_gather(rows: Tensor) -> tuple[Tensor, int]:
    """Gather the rows of all processes; gradients flow back to their owners.

    Args:
        rows: Of this process, (n, ...); equally many in each.

    Returns:
        All rows, (world_size * n, ...), and the index of this process's first one.
    """
    if not dist.is_initialized():
        return rows, 0
    return _Gather.apply(rows), rank() * len(rows)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(world_size())[rank()]


def all_reduce_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace gradients by their means over the processes, all in one message.

    Args:
        parameters: Whose gradients are changed in place.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if dist.is_initialized() and gradients:
        vector = parameters_to_vector(gradients)
        dist.all_reduce(vector)
        vector_to_parameters(vector / world_size(), gradients)


def launch_distributed(
    work: Callable[..., object], processes: int, device: str, *arguments: Any, node: NodeInfo = SINGLE_NODE
) -> None:
    """Call work(*arguments) in several processes, each with its own GPU on cuda; directly if one is enough.

    Args:
        work: A function at the top level of a module: spawned processes import it by its name.
        processes: Of this node; all nodes start equally many.
        device: cpu or cuda.
        arguments: Of work.
        node: This node.

    Raises:
        RuntimeError: A process failed: the last line of its traceback; the others are stopped.
        SystemExit: A process was asked to stop, and did.
    """
    path = next((handler.baseFilename for handler in log.handlers if isinstance(handler, logging.FileHandler)), None)
    if processes == 1:
        with process_group(node, 0, 1, device):
            work(*arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        node = node if node.init_method else replace(node, init_method=f"file://{folder}/meet")
        started = mp.start_processes(
            _worker,
            (node, processes, device, path, torch.get_num_threads(), work, arguments),
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
def process_group(node: NodeInfo, local_rank: int, per_node: int, device: str) -> Iterator[None]:
    """Join the processes that train together; a single one stays alone.

    Args:
        node: This node.
        local_rank: Of this process on the node, and of its GPU.
        per_node: Processes per node.
        device: cpu or cuda.

    Yields:
        Nothing; the group ends with the block.
    """
    processes = node.num_nodes * per_node
    if processes == 1:
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        node.init_method,
        timeout=RENDEZVOUS_TIMEOUT if node.num_nodes > 1 else None,
        world_size=processes,
        rank=node.node_rank * per_node + local_rank,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def _worker(
    local_rank: int,
    node: NodeInfo,
    per_node: int,
    device: str,
    log_path: str | None,
    threads: int,
    work: Callable[..., object],
    arguments: tuple[Any, ...],
) -> None:
    """Run one of the processes; the first adds to the job's log."""
    if local_rank == 0 and log_path:
        log.addHandler(file_handler(log_path))
        log.setLevel(logging.INFO)
    torch.set_num_threads(max(1, threads // per_node))
    with process_group(node, local_rank, per_node, device), sigterm_exits():
        work(*arguments)
