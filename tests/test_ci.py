"""Continuous integration runs every test: one that is skipped there for want of a tool is a failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("reason", "ci", "outcome"),
    [
        ("no Chromium here", "true", "1 failed"),
        ("needs a GPU", "true", "1 skipped"),
        ("no Chromium here", "", "1 skipped"),
    ],
)
def test_a_test_that_misses_a_tool_fails_where_ci_is_set(tmp_path, reason, ci, outcome):
    (tmp_path / "test_it.py").write_text(f"import pytest\ndef test(): pytest.skip({reason!r})\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", f"--rootdir={tmp_path}", tmp_path]
    environment = os.environ | {"CI": ci, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert f" {outcome} in" in done.stdout.splitlines()[-1], done.stdout + done.stderr
