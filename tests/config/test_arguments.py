"""Arguments are checked as the settings of the same names are."""

import inspect

import numpy as np
import pytest

from slpd_core.config import RegionsConfig, TissueSegmentationConfig, check_arguments
from slpd_core.config.base import Positive


@check_arguments(RegionsConfig, TissueSegmentationConfig, skip=("anchor",), count=Positive | None)
def select(name, size_px=4096, *, min_tissue_fraction: float = -1.0, ink="auto", anchor="", count=None, other=-1):
    """Select."""
    return name, size_px, min_tissue_fraction, ink, anchor, count, other


def test_valid_arguments_are_passed_on_and_defaults_are_left_alone():
    assert select("x") == ("x", 4096, -1.0, "auto", "", None, -1)
    assert select("x", 1, ink="keep", anchor="any", other=-2) == ("x", 1, -1.0, "keep", "any", None, -2)
    assert (select.__name__, select.__doc__) == ("select", "Select.")
    assert [*inspect.signature(select).parameters][:2] == ["name", "size_px"]


def test_numbers_become_plain_ones():
    *_, fraction, _, _, count, _ = select("x", min_tissue_fraction=np.float32(0.5), count=np.int64(2))
    assert (type(fraction), type(count)) == (float, int)
    assert (fraction, count) == (0.5, 2)


def test_each_problem_names_the_argument_the_bounds_and_the_value():
    with pytest.raises(ValueError, match="found") as caught:
        select("x", 0, min_tissue_fraction=1.5, ink="drop", count=0)
    assert str(caught.value).splitlines() == [
        "select: size_px: Input should be greater than 0 (found 0)",
        "select: min_tissue_fraction: Input should be less than or equal to 1 (found 1.5)",
        "select: ink: Input should be 'auto', 'exclude' or 'keep' (found 'drop')",
        "select: count: Input should be greater than 0 (found 0)",
    ]


@pytest.mark.parametrize("call", [lambda: select(), lambda: select("x", 1, 0.5), lambda: select("x", size=1)])
def test_a_call_that_does_not_fit_the_function_is_pythons_error(call):
    with pytest.raises(TypeError, match=r"select\(\)"):
        call()


def test_a_constructor_is_named_by_its_class():
    class Grid:
        @check_arguments(RegionsConfig)
        def __init__(self, size_px):
            self.size_px = size_px

    assert Grid(4).size_px == 4
    with pytest.raises(ValueError, match=r"Grid: size_px: .* \(found -4\)"):
        Grid(-4)
