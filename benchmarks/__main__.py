"""Run the benchmarks named on the command line, all of them without a name; ratios count, times are this machine's."""

import sys
from importlib import import_module

BENCHMARKS = (
    "workflow",
    "shared",
    "imports",
    "reading",
    "checksums",
    "slides",
    "tokens",
    "step",
    "epoch",
    "gpu",
    "prototypes",
    "search",
    "evaluation",
    "export",
    "intervals",
    "endpoint_intervals",
)

# Hours; run by name only. A third has arguments of its own: python -m benchmarks.evidence --help
EXPERIMENTS = ("planted", "tissue")

if __name__ == "__main__":  # and not in the processes that experiments start
    for name in sys.argv[1:] or BENCHMARKS:
        if name not in BENCHMARKS + EXPERIMENTS:
            sys.exit(f"no benchmark {name}; there are {', '.join(BENCHMARKS + EXPERIMENTS)}")
        print(f"\n## {name}\n", flush=True)
        import_module(f"benchmarks.{name}").main()
