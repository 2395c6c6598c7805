"""Run the robustness harness: ``python -m tests.robustness.run [fuzz|replay|kill|fault] ...``.

Ctrl-C or SIGTERM ends it with the table of what was done until then.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from robustness import fuzz
from robustness.formats import load_formats


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m tests.robustness.run", description=__doc__)
    parser.add_argument("part", nargs="?", default="fuzz", choices=("fuzz", "replay", "kill", "fault"))
    parser.add_argument("--workers", type=int, default=2, help="Number of processes.")
    parser.add_argument("--inputs", type=int, default=2400, help="Malformed inputs of all formats together.")
    parser.add_argument("--formats", nargs="*", choices=sorted(load_formats()), help="Only these formats.")
    parser.add_argument("--kinds", nargs="*", help="Only these kinds of mutation.")
    parser.add_argument("--actions", nargs="*", help="Only these actions.")
    parser.add_argument("--first", type=int, default=0, help="First number of the inputs; another one, other inputs.")
    parser.add_argument("--kills", type=int, default=200, help="Number of kills of all commands together.")
    parser.add_argument("--only", nargs="*", help="Only these commands, or faults.")
    parser.add_argument("--json", type=Path, help="File for the outcomes.")
    parser.add_argument("--seeds", type=Path, help="File to which the seeds of new faults are added.")
    parser.add_argument("--work", type=Path, help="Folder for costly honest inputs; default: a temporary one.")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run one part and return the exit code: 1 if there was a fault."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.part in ("fuzz", "replay"):
        return fuzz.run(options)
    from importlib import import_module

    code: int = import_module("robustness.kills" if options.part == "kill" else "robustness.faults").run(options)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
