"""Snakemake's command line as `python -m snakemake` starts it, in less time.

Snakemake lists the installed packages once per kind of plugin; here they are listed once. With WARM_JOBS set, Python
scripts of local jobs run in forks of a process that has imported the libraries, in place of a new Python each.
"""

import os
import pkgutil
import sys
from functools import cache

import warm_jobs

if __name__ == "__main__":
    from snakemake.cli import main

    list_modules = pkgutil.iter_modules
    of_sys_path = cache(lambda _: [*list_modules()])
    pkgutil.iter_modules = lambda path=None, prefix="": (
        iter(of_sys_path((*sys.path,))) if path is None and not prefix else list_modules(path, prefix)
    )
    if os.environ.get("WARM_JOBS"):
        warm_jobs.install()
    main()
