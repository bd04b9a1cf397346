"""Draw the demo cohort: python -m slpd_core.demo --out results/demo/drawn"""

import argparse
import logging
import os
import sys
from pathlib import Path

from slpd_core.demo.cohort import DemoCohort, run
from slpd_core.runtime import log


def main(arguments: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: Of the command; None: those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for slides.csv and slides/")
    parser.add_argument("--patients", type=int, default=8, help="per class; every fourth has two slides")
    parser.add_argument("--side", type=int, default=4608, help="width and height of a slide in px at 0.5 um/px")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args(arguments)
    log.addHandler(logging.StreamHandler(sys.stderr))
    log.setLevel(logging.INFO)
    try:
        sheet = run(out=args.out, cohort=DemoCohort(args.seed, args.patients, args.side), processes=args.processes)
    except (ValueError, OSError) as error:
        sys.exit(f"demo: {error}")
    log.info("sheet of the drawn cohort: %s", sheet)


if __name__ == "__main__":
    main()
