"""Python scripts of Snakemake's local jobs, run in forks of a process that has imported the libraries."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
from contextlib import nullcontext
from multiprocessing import forkserver, process
from pathlib import Path
from typing import Any
from unittest.mock import patch


def install() -> None:
    """Let Snakemake run Python scripts so; a job in a container or an environment of its own is started as ever."""
    from snakemake.benchmark import benchmarked
    from snakemake.script import PythonScript

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warm_imports"])
    start, environment, lock = PythonScript.execute_script, dict(os.environ), threading.Lock()

    def execute(script: Any, fname: str, edit: bool = False) -> None:
        if edit or script.container_img or script.conda_env or script.env_modules:
            return start(script, fname, edit)
        job = context.Process(target=run, args=(fname, os.getcwd(), environment))
        with lock, patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):  # how the server finds modules
            forkserver.ensure_running()
            job.start()
            process._children.discard(job)  # a start in another thread would poll it, and take its exit status away
        with benchmarked(job.pid, script.bench_record) if script.bench_record is not None else nullcontext():
            job.join()
        if job.exitcode:
            raise subprocess.CalledProcessError(job.exitcode, f"{sys.executable} {fname}")
        return None

    PythonScript.execute_script = execute


def run(fname: str, folder: str, environment: dict[str, str]) -> None:
    """Run a script as a new Python would."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [fname]
    sys.path[0] = str(Path(fname).parent)
    runpy.run_path(fname, run_name="__main__")
