"""Training on several nodes of a Slurm job: one process on each, which starts one per GPU."""

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
class NodeInfo:
    """One of the nodes that train together.

    Attributes:
        num_nodes: Of the job.
        node_rank: Of this node, from 0.
        init_method: Address where processes meet, tcp://host:port of node 0; "" on a single node.
    """

    num_nodes: int = 1
    node_rank: int = 0
    init_method: str = ""


def current_node(num_nodes: int, init_method: str) -> NodeInfo:
    """Describe the node that a process of `srun_per_node` runs on.

    Args:
        num_nodes: Of the job.
        init_method: Where processes meet.

    Returns:
        The node, by its Slurm rank.

    Raises:
        RuntimeError: Node 0 is not the host that the others will call.
    """
    node, host = int(os.environ["SLURM_NODEID"]), init_method.removeprefix("tcp://").rpartition(":")[0]
    if node == 0 and socket.gethostname() != host:
        raise RuntimeError(f"node 0 is {socket.gethostname()}, but the job began on {host}: ask for one node fewer")
    return NodeInfo(num_nodes, node, init_method)


def srun_per_node(num_nodes: int, module: str, arguments: Mapping[str, Any], threads: int) -> None:
    """Run `python -m module JSON` on each node of this Slurm job, and wait.

    Args:
        num_nodes: Of the job.
        module: Takes one argument, JSON of an object.
        arguments: Of the object; `num_nodes` and `init_method` are added.
        threads: CPU cores per node.

    Raises:
        RuntimeError: This is no Slurm job, or a node failed; the others are stopped.
    """
    if "SLURM_JOB_ID" not in os.environ:
        raise RuntimeError(f"nodes={num_nodes}: several nodes need a Slurm job; set nodes=1")
    with socket.socket() as free:
        free.bind(("", 0))
        init_method = f"tcp://{socket.gethostname()}:{free.getsockname()[1]}"
    command = ["srun", "--overlap", f"--nodes={num_nodes}", f"--ntasks={num_nodes}", "--ntasks-per-node=1"]
    command += [f"--cpus-per-task={threads}", "--kill-on-bad-exit=1", sys.executable, "-m", module]
    command.append(json.dumps({**arguments, "num_nodes": num_nodes, "init_method": init_method}))
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    log.info("training on %d nodes, which meet at %s", num_nodes, init_method)
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
        raise RuntimeError(
            f"training on {num_nodes} nodes failed (srun: {status}): the line above names the node and the cause"
        )
