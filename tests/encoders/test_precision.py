"""The precision of a frozen encoder, and threads that each compute alone."""

from concurrent.futures import ThreadPoolExecutor

import torch

from slpd_core.encoders import precision


def test_auto_is_what_multiplies_clearly_faster(monkeypatch):
    for faster, chosen in ((1.2, "fp32"), (1.5, "bf16")):
        monkeypatch.setattr(precision, "least_seconds", lambda _, faster=faster: {"fp32": faster, "bf16": 1.0})
        assert precision.choose_precision("auto", "cpu", 64) == chosen


def test_a_precision_asked_for_is_kept():
    assert precision.choose_precision("fp16", "cpu", 64) == "fp16"


def test_threads_that_compute_alone_leave_the_caller_its_own():
    def caller():
        torch.set_num_threads(3)
        with precision.single_threaded_pool(2) as threads:
            alone = list(threads.map(lambda _: torch.get_num_threads(), range(2)))
        return alone, torch.get_num_threads()

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1) as fresh:
            assert fresh.submit(caller).result() == ([1, 1], 3)
    finally:
        torch.set_num_threads(before)
