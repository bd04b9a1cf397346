"""Run what is missing of an experiment and print its tables: python -m benchmarks.evidence --help."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.evidence import arms, experiment, statistics
from benchmarks.evidence.runs import MEASURED, collect


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, run and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evidence",
        description=experiment.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tiles", type=Path, help="with test/ and training/, each a folder per phenotype")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/evidence"))
    parser.add_argument("--design", choices=[*experiment.DESIGNS], default="mixture")
    parser.add_argument("--seeds", type=int, nargs=2, default=(100, 123), help="first, and the one after the last")
    parser.add_argument("--arms", nargs="+", choices=[*arms.REFERENCES, *arms.TRAINED], default=experiment.PRIMARY_ARMS)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--afresh", action="store_true", help=f"compute what {MEASURED.name} has, too")
    chosen = parser.parse_args(arguments)
    seeds, measured = range(*chosen.seeds), None if chosen.afresh else MEASURED
    table = collect(chosen.tiles, chosen.out, chosen.design, seeds, chosen.arms, chosen.processes, measured=measured)
    claims = {
        f"{one} − {other}": (one, other)
        for one, other in experiment.CLAIMS
        if one in chosen.arms and other in chosen.arms
    }
    print(statistics.tables(table.drop(columns="design"), chosen.arms, claims))


if __name__ == "__main__":
    main()
