"""Seconds until the command line answers: medians of several starts, each in a process of its own.

python benchmarks/startup.py --repeats 10
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from statistics import median

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import decathlete": ["-c", "import decathlete"],
    "decathlete --help": ["-m", "decathlete", "--help"],
    "decathlete train --help": ["-m", "decathlete", "train", "--help"],
}


def seconds(arguments: list[str]) -> float:
    """Time one start of Python with these arguments."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure in turn and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    laps: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for arguments in COMMANDS.values():
        seconds(arguments)  # the first one fills the system's cache of files
    for _ in range(given.repeats):
        for name, arguments in COMMANDS.items():
            laps[name].append(seconds(arguments))
    print("| command | median s | least | most |\n|---|---|---|---|")
    for name, found in laps.items():
        print(f"| {name} | {median(found):.3f} | {min(found):.3f} | {max(found):.3f} |")


if __name__ == "__main__":
    main()
