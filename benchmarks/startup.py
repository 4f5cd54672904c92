"""What users pay before anything happens: imports, and the help of the program.

    python -m benchmarks.startup [--repeats 5]

CPU seconds of whole processes, the median of interleaved runs.
"""

import argparse
import resource
import statistics
import subprocess
import sys

from tabulate import tabulate

_PROCESSES = {
    "python -c pass": ("-c", "pass"),
    "import maskclippp": ("-c", "import maskclippp"),
    "import torch": ("-c", "import torch"),
    "import torch, maskclippp": ("-c", "import torch, maskclippp"),
    "from maskclippp import Predictor": ("-c", "from maskclippp import Predictor"),
    "maskclippp --help": ("-m", "maskclippp", "--help"),
    "maskclippp predict --help": ("-m", "maskclippp", "predict", "--help"),
}


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args(arguments).repeats
    seconds: dict[str, list[float]] = {name: [] for name in _PROCESSES}
    for _ in range(repeats):
        for name, words in _PROCESSES.items():
            seconds[name].append(_cpu_seconds(words))
    rows = [(name, statistics.median(taken)) for name, taken in seconds.items()]
    sys.stdout.write(tabulate(rows, ("process", "CPU seconds"), floatfmt=".2f") + "\n")


def _cpu_seconds(arguments: tuple[str, ...]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
