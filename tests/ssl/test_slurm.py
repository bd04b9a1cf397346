"""Several nodes: each is told its place, one that fails ends all, SIGTERM reaches all."""

import os
import signal
import socket
import threading
import time

import pytest

from slpd_core.runtime import TERMINATED, sigterm_exits
from slpd_core.ssl import slurm

TOLD = """
import json, os, sys, time
from pathlib import Path
from slpd_core.ssl.slurm import current_node
arguments = json.loads(sys.argv[1])
node = current_node(arguments["num_nodes"], arguments["init_method"])
Path(arguments["folder"], str(node.node_rank)).write_text(f"{node.num_nodes} {node.init_method}")
if arguments.get("fails") == node.node_rank:
    sys.exit("no token")
time.sleep(arguments.get("seconds", 0))
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module that nodes can run."""
    (tmp_path / "told.py").write_text(TOLD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "told"


def test_each_node_is_told_its_place_and_where_all_meet(srun, module, tmp_path):
    slurm.srun_per_node(3, module, {"folder": str(tmp_path)}, threads=1)
    told = [(tmp_path / str(node)).read_text().split() for node in range(3)]
    assert [count for count, _ in told] == ["3"] * 3
    ((host, port),) = {tuple(meet.removeprefix("tcp://").split(":")) for _, meet in told}
    assert host == socket.gethostname()
    assert int(port) > 0


def test_a_node_that_fails_ends_all(srun, module, tmp_path):
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=r"training on 2 nodes failed \(srun: 1\)"):
        slurm.srun_per_node(2, module, {"folder": str(tmp_path), "fails": 1, "seconds": 600}, threads=1)
    assert time.monotonic() - started < 300


def test_sigterm_reaches_the_nodes(srun, module, tmp_path):
    def when_both_run():
        while not all((tmp_path / str(node)).exists() for node in range(2)):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=when_both_run, daemon=True).start()
    started = time.monotonic()
    with pytest.raises(SystemExit) as stop, sigterm_exits():
        slurm.srun_per_node(2, module, {"folder": str(tmp_path), "seconds": 600}, threads=1)
    assert stop.value.code == TERMINATED
    assert time.monotonic() - started < 300


def test_several_nodes_need_a_slurm_job(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(RuntimeError, match="nodes=2: several nodes need a Slurm job; set nodes=1"):
        slurm.srun_per_node(2, "told", {}, threads=1)


def test_a_first_node_where_the_others_do_not_call_is_named(monkeypatch):
    monkeypatch.setenv("SLURM_NODEID", "0")
    with pytest.raises(RuntimeError, match="but the job began on elsewhere"):
        slurm.current_node(2, "tcp://elsewhere:1234")
