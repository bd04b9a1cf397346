"""What the jobs of single slides import: there are thousands of them, and each pays for it."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "torchvision", "timm", "pandas", "pyarrow", "scipy", "sklearn", "matplotlib", "snakemake"}


@pytest.mark.parametrize(
    ("stage", "needed"), [("tissue", set()), ("regions", set()), ("patches", set()), ("tokens", {"torch"})]
)
def test_a_stage_of_slides_imports_what_it_needs_and_no_more(stage, needed):
    code = (
        f"import sys; from slpd_core.slides import {stage}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    )
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert HEAVY & {*imported} == needed
