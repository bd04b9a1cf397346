"""Run the benchmarks named on the command line, all of them without a name; ratios count, times are this machine's."""

import sys
from importlib import import_module

BENCHMARKS = ("reading", "slides", "tokens", "step", "prototypes")

for name in sys.argv[1:] or BENCHMARKS:
    if name not in BENCHMARKS:
        sys.exit(f"no benchmark {name}; there are {', '.join(BENCHMARKS)}")
    print(f"\n## {name}\n", flush=True)
    import_module(f"benchmarks.{name}").main()
