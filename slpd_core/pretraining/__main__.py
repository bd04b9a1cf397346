"""A node's part in pretraining on several: python -m slpd_core.pretraining JSON, which `pretrain.run` calls."""

import json
import sys
from pathlib import Path

from slpd_core import runtime
from slpd_core.pretraining import pretrain
from slpd_core.ssl.slurm import current_node


def main(text: str) -> None:
    """Train as one of several nodes: node 0 adds to the job's log, each other node writes one beside it.

    Args:
        text: JSON of the arguments that `pretrain.run` gives `srun_per_node`.
    """
    arguments = json.loads(text)
    node = current_node(arguments["num_nodes"], arguments["init_method"])
    spec = pretrain.RunSpec(**arguments["spec"])
    job_log = Path(arguments["log_path"])
    rank, threads = node.node_rank, arguments["threads"]
    log_path = job_log.with_suffix(f".node{rank}{job_log.suffix}") if rank else job_log
    name = f"pretrain {job_log.stem}, node {rank}"
    with runtime.job(str(log_path), name, threads=threads, gpus=spec.gpus) as device:
        pretrain.train_on_node(spec.model_copy(update={"device": device}), node)


if __name__ == "__main__":
    main(sys.argv[1])
