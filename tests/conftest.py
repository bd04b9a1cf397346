"""What all tests share."""

import os
import sys

import pytest
from hypothesis import settings

settings.register_profile("no clock", deadline=None)  # a busy machine is no failure
settings.load_profile("no clock")

SRUN = """#!{python}
import os, signal, subprocess, sys, time
options = [word for word in sys.argv[1:] if word.startswith("--")]
count = next(int(option.partition("=")[2]) for option in options if option.startswith("--ntasks="))
command = sys.argv[1 + len(options):]
tasks = [subprocess.Popen(command, env=os.environ | {{"SLURM_NODEID": str(node)}}) for node in range(count)]
signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
while any(task.poll() is None for task in tasks):
    if any(task.poll() for task in tasks):
        [task.terminate() for task in tasks]
    time.sleep(0.05)
sys.exit(max(task.returncode for task in tasks))
"""


@pytest.fixture
def srun(tmp_path, monkeypatch):
    """A Slurm job whose srun starts one task a node, all on this machine; ends the others when one fails."""
    path = tmp_path / "bin" / "srun"
    path.parent.mkdir()
    path.write_text(SRUN.format(python=sys.executable))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
