"""The precision that a frozen encoder runs in, and threads that each compute alone."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from slpd_core.encoders.frozen_layers import PACKED_ROWS, FrozenLinear
from slpd_core.runtime import log

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MIN_BF16_SPEEDUP = 1.4  # `auto` takes bf16 where its matmuls are this much faster than those of fp32


def single_threaded_pool(n_threads: int) -> ThreadPoolExecutor:
    """Create a pool whose threads do not share the work of a layer; the caller keeps its own thread count.

    Args:
        n_threads: Threads of the pool.

    Returns:
        The pool.
    """
    torch.get_num_threads()  # a thread's first call adopts the count that any thread set last
    return ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,))


def least_seconds(functions: Mapping[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """Time functions in turn, after one call of each that does not count.

    Args:
        functions: By name, called without arguments.
        rounds: Timed calls of each.

    Returns:
        The least seconds of each, by name.
    """
    for function in functions.values():
        function()
    least = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            least[name] = min(least[name], time.perf_counter() - start)
    return least


def choose_precision(precision: str, device: str, width: int) -> str:
    """Resolve precision "auto": bf16 where it is fast, else fp16 on a GPU and fp32 on a CPU.

    A CPU is timed on the encoder's widest layer: bf16 is eight times as fast with AMX, and may be slower without.

    Args:
        precision: "auto", "fp32", "bf16" or "fp16".
        device: "cpu" or "cuda".
        width: Of the encoder's tokens.

    Returns:
        "fp32", "bf16" or "fp16".
    """
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    rows = max(64, min(PACKED_ROWS, PACKED_ROWS * 384**2 // width**2))
    weight, bias, x = torch.randn(4 * width, width), torch.randn(4 * width), torch.randn(rows, width)
    layers = {name: (FrozenLinear(weight, bias, DTYPES[name]), x.to(DTYPES[name])) for name in ("fp32", "bf16")}
    functions = {name: partial(layer, x) for name, (layer, x) in layers.items()}
    with single_threaded_pool(1) as pool:
        seconds = pool.submit(least_seconds, functions).result()
    speedup = seconds["fp32"] / seconds["bf16"]
    chosen = "bf16" if speedup >= MIN_BF16_SPEEDUP else "fp32"
    log.info("precision auto: %s (bf16 multiplies %.1f times as fast as fp32 here)", chosen, speedup)
    return chosen
