"""Is a training that was stopped after a part of its time as good as one that was planned for that time?

Trains fold 0 of a dataset twice for each seed, as ``decathlete run`` does: once for ``--max-time``, stopped by a signal
after ``--share`` of it, and once for the seconds that the stopped one trained, its last steps included. Each is planned
and prepared for its own time. Both are scored on the same held-out cases, on their original grids.

python benchmarks/anytime.py data/Task04_Hippocampus --folder /tmp/anytime --max-time 8m --seeds 1,2
"""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from decathlete.core.durations import parse_duration
from decathlete.errors import DecathleteError, InterruptedRunError
from decathlete.models.bundle import ModelBundle
from decathlete.training.config import TrainConfig
from decathlete.training.reporting.records import EpochRecord
from decathlete.workflows.progress import ProgressReporter
from decathlete.workflows.run import run
from decathlete.workflows.train import train_config
from decathlete.workflows.validate import validate
from decathlete.workflows.workspace import Workspace


class StopAt(ProgressReporter):
    """Sends this process SIGINT once, at a share of the training."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._sent = False

    def training(self) -> StopAt:
        """Receive the steps, too."""
        return self

    def on_step(self, step: int, progress: float) -> None:
        """Send the signal when the share is reached."""
        if progress >= self.share and not self._sent:
            self._sent = True
            os.kill(os.getpid(), signal.SIGINT)

    def on_epoch(self, record: EpochRecord) -> None:
        """Nothing: only steps count."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Mean Dice of the held-out cases, seconds and steps of one training."""

    dice: float
    seconds: float
    steps: int

    @classmethod
    def of(cls, folder: Path) -> Outcome:
        """Score the run in a folder."""
        provenance = ModelBundle.load(folder).record.training_provenance
        dice = validate(folder, workers=1).headline.dice or 0.0
        seconds, steps = (float(str(provenance[name])) for name in ("training_seconds", "steps"))
        return cls(dice=dice, seconds=seconds, steps=int(steps))


def stopped(task: str, folder: Path, share: float, training: TrainConfig) -> Outcome:
    """Train, be stopped after ``share`` of the time, and score the model.

    Raises:
        DecathleteError: it was too short for a model, or was not stopped.
    """
    workspace = _workspace(folder)
    try:
        run(task, workspace=workspace, config=training, overwrite=True, reporter=StopAt(share))
    except InterruptedRunError:
        return Outcome.of(workspace.run_folder(task, 3, 0))
    raise DecathleteError("the training ended before it was stopped", remedy="use a longer --max-time")


def planned(task: str, folder: Path, training: TrainConfig) -> Outcome:
    """Train for a time, and score the model."""
    workspace = _workspace(folder)
    run(task, workspace=workspace, config=training, overwrite=True)
    return Outcome.of(workspace.run_folder(task, 3, 0))


def _workspace(folder: Path) -> Workspace:
    return Workspace(prepared=folder / "prepared", results=folder / "results")


def config(max_time_s: float, seed: int) -> TrainConfig:
    """Return a training for this time without validations, which would take another part of it in each."""
    return train_config(max_time=f"{max_time_s:.0f}s", seed=seed, val_cases=0, device="cpu", logger="none")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", help="folder of the dataset")
    parser.add_argument("--folder", type=Path, required=True, help="of prepared data and results")
    parser.add_argument("--max-time", default="8m", help="time for which the stopped training is planned")
    parser.add_argument("--share", type=float, default=0.25, help="of the time, after which it is stopped")
    parser.add_argument("--seeds", default="1,2")
    given = parser.parse_args(arguments)
    seconds = parse_duration(given.max_time)
    print(
        "| seed | stopped (s, steps) | planned for that time (s, steps) | difference |\n|---|---|---|---|", flush=True
    )
    for seed in map(int, given.seeds.split(",")):
        first = stopped(given.task, given.folder / "stopped", given.share, config(seconds, seed))
        second = planned(given.task, given.folder / "planned", config(first.seconds, seed))
        shown = [f"{one.dice:.3f} ({one.seconds:.0f}, {one.steps})" for one in (first, second)]
        print(f"| {seed} | {shown[0]} | {shown[1]} | {first.dice - second.dice:+.3f} |", flush=True)


if __name__ == "__main__":
    main()
