"""Continuous integration runs every test: one that is skipped there for want of a tool is a failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


TESTS = """
import pytest
def test_browser(): pytest.skip("no Chromium here")
def test_device(): pytest.skip("needs a GPU")
"""


@pytest.mark.parametrize(("ci", "outcome"), [("true", "1 failed, 1 skipped"), ("", "2 skipped")])
def test_a_test_that_misses_a_tool_fails_where_ci_is_set(tmp_path, ci, outcome):
    """One that lacks what no package brings, as a GPU, is skipped all the same."""
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", f"--rootdir={tmp_path}", tmp_path]
    environment = os.environ | {"CI": ci, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert f"{outcome} in" in done.stdout.splitlines()[-1], done.stdout + done.stderr
    assert ("test_it.py::test_browser - " in done.stdout) == (ci == "true")
