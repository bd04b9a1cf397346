"""Several machines that train as one: under Slurm a process on each, which starts its own, one a GPU."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slpd_core.runtime import SECONDS_TO_STOP, TERMINATED, log


@dataclass(frozen=True)
class Place:
    """Which of how many nodes this is, and where their processes meet: tcp://host:port of node 0."""

    nodes: int = 1
    node: int = 0
    meet: str = ""


def here(nodes: int, meet: str) -> Place:
    """The place of the node that a process of `on_each` runs on.

    Raises RuntimeError where node 0 is not the one that the others will call.
    """
    node, host = int(os.environ["SLURM_NODEID"]), meet.removeprefix("tcp://").rpartition(":")[0]
    if node == 0 and socket.gethostname() != host:
        raise RuntimeError(f"node 0 is {socket.gethostname()}, but the job began on {host}: ask for one node fewer")
    return Place(nodes, node, meet)


def on_each(nodes: int, module: str, arguments: Mapping[str, Any], threads: int) -> None:
    """Run `python -m module JSON` on each node of this Slurm job, and wait.

    JSON: the arguments, and how many `nodes` there are and where they `meet`, as `here` takes them. threads: of each.
    Raises RuntimeError outside a Slurm job, and when a node fails; the others are stopped.
    """
    if "SLURM_JOB_ID" not in os.environ:
        raise RuntimeError(f"nodes={nodes}: several nodes are to be had in a Slurm job only; take nodes=1")
    with socket.socket() as free:
        free.bind(("", 0))
        meet = f"tcp://{socket.gethostname()}:{free.getsockname()[1]}"
    command = ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    command += [f"--cpus-per-task={threads}", "--kill-on-bad-exit=1", sys.executable, "-m", module]
    command.append(json.dumps({**arguments, "nodes": nodes, "meet": meet}))
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    log.info("training on %d nodes, which meet at %s", nodes, meet)
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) as process:
        try:
            status = process.wait()
        except (SystemExit, KeyboardInterrupt):
            process.terminate()  # srun tells all nodes
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_STOP)
            raise
        finally:
            process.kill()
    if status == TERMINATED:
        sys.exit(TERMINATED)
    if status:
        raise RuntimeError(f"training on {nodes} nodes failed (srun: {status}): the line above says why, and on which")
