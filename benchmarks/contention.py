"""How fast does a CPU training stay while every processor has another busy process?

Trains fold 0 of a prepared dataset for ``--seconds``, in turn: on the quiet machine; beside one busy process for each
processor with all threads; and beside them with the threads that the training chooses. A fair share is half of the
quiet rate. The first third of each training is not counted (warm-up, first trials of threads).

python benchmarks/contention.py 04 --prepared prepared --data data --folder /tmp/contention --seconds 45 --rounds 3
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch

from decathlete.training import run
from decathlete.training.loop.contention import AdaptThreads
from decathlete.training.reporting.records import EpochRecord
from decathlete.workflows.train import train, train_config
from decathlete.workflows.workspace import Workspace


def never_end() -> None:
    """Keep a processor busy."""
    while True:
        pass


@contextmanager
def busy_processors(number: int) -> Iterator[None]:
    """Run busy processes."""
    processes = [multiprocessing.get_context("spawn").Process(target=never_end, daemon=True) for _ in range(number)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


class Rates:
    """Progress that keeps the patches per second of all epochs."""

    def __init__(self) -> None:
        self.epochs: list[tuple[float, float]] = []

    def on_step(self, step: int, progress: float) -> None:
        """Do nothing; rates come from the epochs."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Keep the end and the rate of an epoch."""
        self.epochs.append((record.elapsed, record.patches_per_second))


def measure(task: str, workspace: Workspace, *, seconds: float, adapted: bool) -> float:
    """Return the median patches per second of a training, without its first third."""
    rates = Rates()
    callback = AdaptThreads if adapted else partial(AdaptThreads, wait_s=lambda: None)
    with patch.object(run, "AdaptThreads", callback):
        config = train_config(max_time=f"{seconds:.0f}s", device="cpu", val_cases=0, logger="none")
        train(task, workspace=workspace, config=config, overwrite=True, progress=rates)
    return median(rate for elapsed_s, rate in rates.epochs if elapsed_s > seconds / 3)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--prepared", type=Path, default=Path("prepared"))
    parser.add_argument("--folder", type=Path, required=True, help="for the trained models")
    parser.add_argument("--seconds", type=float, default=45)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    workspace = Workspace(data=options.data, prepared=options.prepared, results=options.folder)
    measured = partial(measure, options.task, workspace, seconds=options.seconds)
    print("| quiet, patches/s | busy, all threads | busy, adapted | share of the fair half: all threads | adapted |")
    print("|---|---|---|---|---|")
    for _ in range(options.rounds):
        quiet = measured(adapted=True)
        with busy_processors(torch.get_num_threads()):
            fixed, adapted = measured(adapted=False), measured(adapted=True)
        shares = " | ".join(f"{2 * rate / quiet:.2f}" for rate in (fixed, adapted))
        print(f"| {quiet:.2f} | {fixed:.2f} | {adapted:.2f} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
