"""One command on one made-up dataset, in this process alone: time, processor time and peak memory as JSON.

    python measure.py '{"command": "check", "folder": "...", "workers": 2, "output": "..."}'
    python measure.py '{"command": "make", "folder": "...", "data": {"cases": 10, ...}}'

What is called is what the command line calls, and what it prints is printed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[:2]]

from common.processes import peak_bytes, tell


def main() -> None:
    task = json.loads(sys.argv[1])
    folder = Path(task["folder"])
    if task["command"] == "make":
        from data import make_data

        make_data(folder, **task["data"])
        return
    command = {"check": check, "preprocess": preprocess, "predict": predict}[task["command"]]
    work = command(folder, Path(task["output"]), task["workers"])
    began, began_cpu = time.perf_counter(), time.process_time()
    n_done = work()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    tell({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak_bytes(), "cases": n_done})


def check(folder: Path, output: Path, workers: int) -> Callable[[], int]:
    """All that ``decathlete check`` does."""
    from decathlete.cli.progress import TerminalReporter
    from decathlete.workflows.check import check as function

    def work() -> int:
        progress = TerminalReporter().cases("check")
        report = function(folder / "dataset", workers=workers, progress=progress)
        print("\n".join(report.lines()))
        report.raise_for_errors()
        return report.n_cases

    return work


def preprocess(folder: Path, output: Path, workers: int) -> Callable[[], int]:
    """All that ``decathlete preprocess`` does: check, fingerprint, plan, prepare."""
    from decathlete.cli.progress import TerminalReporter
    from decathlete.workflows.preprocess import preprocess
    from decathlete.workflows.workspace import Workspace

    def work() -> int:
        reporter = TerminalReporter()
        store = preprocess(
            folder / "dataset",
            dims=3,
            workspace=Workspace(prepared=output),
            workers=workers,
            on_plan=reporter.plan,
            checking=reporter.cases("check"),
            progress=reporter.cases("prepare"),
        )
        return len(store.case_ids)

    return work


def predict(folder: Path, output: Path, workers: int) -> Callable[[], int]:
    """All that ``decathlete predict`` does."""
    from decathlete.cli.progress import TerminalReporter
    from decathlete.inference.options import PredictOptions
    from decathlete.workflows.predict import predict as function

    def work() -> int:
        progress = TerminalReporter().cases("predict")
        options = PredictOptions(device="cpu", precision="fp32")
        done = function(folder / "model", folder / "images", output, options=options, progress=progress)
        return len(done)

    return work


if __name__ == "__main__":
    main()
