"""A node's part in pretraining on several: python -m slpd_core.pretraining JSON, which `pretrain.run` calls."""

import json
import sys
from pathlib import Path

from slpd_core import runtime
from slpd_core.pretraining import pretrain
from slpd_core.ssl.slurm import here


def main(text: str) -> None:
    """Train as JSON says: node 0 adds to the job's log, each other node writes one beside it."""
    said = json.loads(text)
    place = here(said["nodes"], said["meet"])
    training = pretrain.Training(**said["training"])
    log_path = Path(said["log_path"])
    own_log = log_path.with_suffix(f".node{place.node}{log_path.suffix}") if place.node else log_path
    name = f"pretrain {log_path.stem}, node {place.node}"
    with runtime.job(str(own_log), name, threads=said["threads"], gpus=training.gpus, goes_on=not place.node) as device:
        pretrain.train_together(training.model_copy(update={"device": device}), place)


if __name__ == "__main__":
    main(sys.argv[1])
