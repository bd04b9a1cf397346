"""Time of `import slpd_core` and of the first use of its names: each in a new process, the least of five."""

import subprocess
import sys

USES = {"`import slpd_core`": ("", 0.2), "`.read`": ("slpd.read", 2.0), "`.encode`": ("slpd.encode", 10.0)}
ROUNDS = 5
CODE = "import time; started = time.perf_counter(); import slpd_core as slpd; {}; print(time.perf_counter() - started)"


def seconds(use: str) -> float:
    """Return the least seconds of an import and one use of a name."""
    command = [sys.executable, "-c", CODE.format(use or "pass")]
    return min(float(subprocess.check_output(command)) for _ in range(ROUNDS))


def main() -> None:
    """Print the table."""
    print("| first use | s | at most |\n|---|---:|---:|")
    for name, (use, most) in USES.items():
        print(f"| {name} | {seconds(use):.3f} | {most} |", flush=True)
