"""A training step as a CUDA graph: one call starts its kernels, which are started one by one otherwise."""

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from slpd_core.runtime import log
from slpd_core.ssl import distributed

Metrics = dict[str, Tensor]
Gradients = list[Tensor | None]


class TensorBatch(Protocol):
    """A batch whose tensors are known."""

    def tensors(self) -> list[Tensor]:
        """List the tensors of the batch, always in the same order."""
        ...


B = TypeVar("B", bound=TensorBatch)


class GraphedStep(Generic[B]):
    """Forward and backward pass of a batch; on a GPU, from the third call on, replayed from a CUDA graph.

    The first call of a kind runs as it is, so that libraries are set up; the second one is captured. A new kind, such
    as when the last layer is trained from then on, drops the graph of the last one. Where capture fails, and where
    several processes train together, every call runs as it is.

    Args:
        step: Computes metrics and sets the gradients of the parameters; all else that it changes, it changes in place.
        parameters: That are trained.
        device: cpu or cuda.
    """

    def __init__(
        self, step: Callable[[B], Metrics], parameters: Sequence[nn.Parameter], device: torch.device | str
    ) -> None:
        self.step, self.parameters = step, parameters
        self.enabled = torch.device(device).type == "cuda"
        self._kind: object = None
        self._replay: Callable[[B], Metrics] | None = None
        if self.enabled and distributed.world_size() > 1:
            self._disable("several processes train together")

    def __call__(self, batch: B) -> Metrics:
        """Take the step.

        Args:
            batch: On the device.

        Returns:
            The metrics, valid until the next call.
        """
        if not self.enabled:
            return self.step(batch)
        kind = [tensor.shape for tensor in batch.tensors()], [p.requires_grad for p in self.parameters]
        if kind != self._kind:
            self._kind, self._replay = kind, None
            return run_aside(lambda: self.step(batch))
        if self._replay is None:
            try:
                self._replay = self._capture(batch)
            except RuntimeError as error:  # as for want of memory
                self._disable(next(iter(str(error).splitlines()), type(error).__name__))
        return self._replay(batch) if self._replay else self.step(batch)

    def _capture(self, batch: B) -> Callable[[B], Metrics]:
        """Capture the step; the batch's tensors are the places from which later batches are read."""

        def step() -> tuple[Metrics, Gradients]:
            return self.step(batch), [parameter.grad for parameter in self.parameters]

        (metrics, gradients), replay_kernels = record(step)

        def replay(next_batch: B) -> Metrics:
            if next_batch is not batch:
                torch._foreach_copy_(batch.tensors(), next_batch.tensors())
            replay_kernels()
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
            return metrics

        return replay

    def _disable(self, reason: str) -> None:
        self.enabled = False
        log.warning("steps run without a CUDA graph: %s", reason)


T = TypeVar("T")


def run_aside(work: Callable[[], T]) -> T:
    """Run a function on a stream of its own, as PyTorch asks for before a capture.

    Args:
        work: Starts kernels.

    Returns:
        Its result, which the current stream may use.
    """
    stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        result = work()
    current.wait_stream(stream)
    return result


def record(work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
    """Record the kernels that a function starts, without running them.

    Args:
        work: Starts kernels, and waits for none.

    Returns:
        Its result, whose tensors a replay fills, and the replay.

    Raises:
        RuntimeError: The function cannot be captured; it can be called as it is.
    """
    graph, generator = torch.cuda.CUDAGraph(), torch.cuda.default_generators[torch.cuda.current_device()]
    state, stream = generator.clone_state(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            result = work()
    except RuntimeError:  # a failed capture leaves its stream behind, and a generator that draws no more
        torch.cuda.set_stream(stream)
        generator.graphsafe_set_state(state)
        raise
    return result, graph.replay
