"""Apply small wrong changes one at a time, in a copy, and report which of them the chapter's fast tests notice.

    python -m tests.mutations [slides pretraining evaluation export] [--module slides/tissue.py] [--jobs 2]

The changes are listed in tests/mutations/{chapter}.yaml. The nearest tests run first, the long ones last. A change is
killed if a test fails or runs out of time.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from tqdm import tqdm

from tests.mutations import CHAPTERS, ROOT, Mutation, load_mutations

SECONDS = 900  # for the tests of one change


def copy_tree(folder: Path) -> None:
    """Copy what git tracks, as it stands."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def run_tests(folder: Path, tests: Sequence[str], marked: str = "not slow") -> str:
    """Return how the tests of some markers end in a copy: passed, failed, timeout or nothing (no test ran)."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", marked, "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return "timeout"
    return {0: "passed", 5: "nothing"}.get(done.returncode, "failed")


def try_mutation(folder: Path, mutation: Mutation) -> str:
    """Apply a change in a copy, run the tests nearest to it, last its chapter's long ones; return how they end."""
    path = folder / "slpd_core" / mutation.module
    source = path.read_text()
    try:
        path.write_text(mutation.apply(source))
        outcome = "nothing"
        for tests in mutation.rounds(folder):
            if outcome in ("passed", "nothing"):
                outcome = run_tests(folder, tests, "not slow and not long")
        return run_tests(folder, tests, "long and not slow") if outcome in ("passed", "nothing") else outcome
    finally:
        path.write_text(source)


def main() -> int:
    """Run the chosen changes; return 1 if less than 95 % of them are killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", default=CHAPTERS, help="chapters whose changes are tried")
    parser.add_argument("--module", default="", help="only changes of modules whose path contains this")
    parser.add_argument("--jobs", type=int, default=2, help="changes tried at the same time")
    args = parser.parse_args()
    mutations = [m for chapter in args.chapters for m in load_mutations(chapter) if args.module in m.module]
    with tempfile.TemporaryDirectory() as scratch:
        folders: Queue[Path] = Queue()
        for index in range(args.jobs):
            copy_tree(Path(scratch) / str(index))
            folders.put(Path(scratch) / str(index))
        for chapter in args.chapters:
            if (outcome := run_tests(Path(scratch) / "0", CHAPTERS[chapter])) != "passed":
                raise SystemExit(f"{chapter}: the tests end with {outcome!r} before any change; mend them first")

        def attempt(mutation: Mutation) -> str:
            folder = folders.get()
            try:
                return try_mutation(folder, mutation)
            finally:
                folders.put(folder)

        with ThreadPoolExecutor(args.jobs) as pool, tqdm(total=len(mutations), unit="change") as bar:
            outcomes = []
            for mutation, outcome in zip(mutations, pool.map(attempt, mutations), strict=True):
                outcomes.append(outcome)
                bar.update()
                if outcome in ("passed", "nothing"):
                    bar.write(f"survived: {mutation}")
    killed = sum(outcome in ("failed", "timeout") for outcome in outcomes)
    print(f"{killed} of {len(mutations)} killed, {outcomes.count('timeout')} of them by their time")
    return int(killed < 0.95 * len(mutations))


if __name__ == "__main__":
    sys.exit(main())
