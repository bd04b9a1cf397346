"""Schedules at their ends, halfway, and beyond."""

import numpy as np
import pytest

from slpd_core.ssl.schedules import cosine, warmup_cosine


def test_cosine():
    assert [cosine(step, 100, 0.04, 0.4) for step in (0, 50, 100)] == pytest.approx([0.04, 0.22, 0.4])
    assert cosine(25, 100, 1, 0) == pytest.approx(0.5 * (1 + 2**-0.5))
    assert cosine(200, 100, 1, 0) == cosine(100, 100, 1, 0) == 0
    assert cosine(0, 0, 1, 0) == 1


def test_warmup():
    found = [warmup_cosine(step, 110, 10, 1.0, 0.1) for step in (0, 5, 10, 60, 110)]
    assert found == pytest.approx([0, 0.5, 1, 0.55, 0.1])
    assert warmup_cosine(0, 10, 0, 1.0, 0.1) == 1


@pytest.mark.parametrize("warmup", [0, 1, 2, 10])
def test_warmup_that_includes_its_endpoint(warmup):
    """As numpy draws a line with both ends: the last step of the warm-up has the peak, and so has the step after."""
    found = [warmup_cosine(step, 110, warmup, 2.0, 0.1, endpoint=True) for step in range(warmup + 2)]
    assert found[:warmup] == pytest.approx(np.linspace(0, 2, warmup))
    assert found[warmup] == 2
    assert found[warmup + 1] == warmup_cosine(warmup + 1, 110, warmup, 2.0, 0.1) < 2
