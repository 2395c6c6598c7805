"""Is a training that was stopped after a part of its time as good as one that was planned for that time?

Trains fold 0 of a prepared dataset twice for each seed: once for ``--max-time``, stopped by a signal after ``--share``
of it, and once for the seconds that the stopped one took, its last steps included. Both are scored on the same held-out
cases, on the prepared grid.

python benchmarks/anytime.py 04 --prepared prepared --data data --folder /tmp/anytime --max-time 8m --seeds 1,2
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from decathlete.core.durations import parse_duration
from decathlete.errors import DecathleteError, InterruptedRunError
from decathlete.training.config import TrainConfig
from decathlete.training.reporting.records import EpochRecord
from decathlete.workflows.train import train, train_config
from decathlete.workflows.validate import validate
from decathlete.workflows.workspace import Workspace


class StopAt:
    """Progress that sends this process SIGINT once, at a share of the training."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._sent = False

    def on_step(self, step: int, progress: float) -> None:
        """Send the signal when the share is reached."""
        if progress >= self.share and not self._sent:
            self._sent = True
            os.kill(os.getpid(), signal.SIGINT)

    def on_epoch(self, record: EpochRecord) -> None:
        """Nothing: only steps count."""


def dice_of_stopped(task: str, workspace: Workspace, share: float, training: TrainConfig) -> tuple[float, float]:
    """Return the Dice of a training that is stopped after ``share`` of its time, and the seconds that it took.

    Raises:
        DecathleteError: it was too short for a model, or was not stopped.
    """
    began_s = time.monotonic()
    try:
        train(task, workspace=workspace, config=training, overwrite=True, progress=StopAt(share))
    except InterruptedRunError:
        seconds = time.monotonic() - began_s
        return held_out_dice(workspace.run_folder(task, 3, 0)), seconds
    raise DecathleteError("the training ended before it was stopped", remedy="use a longer --max-time")


def held_out_dice(run: Path) -> float:
    """Return the mean Dice of the held-out cases on the prepared grid."""
    return validate(run, grid="prepared", workers=1).headline.dice or 0.0


def compare(task: str, workspace: Workspace, *, seed: int, max_time_s: float, share: float) -> tuple[float, float]:
    """Return the Dice of the stopped training, and of the one that was planned for the same seconds.

    Each trains by the plan that is adapted to the time that it was started with, as a user's training does.
    """
    stopped = Workspace(data=workspace.data, prepared=workspace.prepared, results=workspace.results / "stopped")
    planned = Workspace(data=workspace.data, prepared=workspace.prepared, results=workspace.results / "planned")
    first, seconds = dice_of_stopped(task, stopped, share, config(max_time_s, seed))
    train(task, workspace=planned, config=config(seconds, seed), overwrite=True)
    return first, held_out_dice(planned.run_folder(task, 3, 0))


def config(max_time_s: float, seed: int) -> TrainConfig:
    """Return a training for this time without validations, which would take another part of it in each."""
    return train_config(max_time=f"{max_time_s:.0f}s", seed=seed, val_cases=0, device="cpu", logger="none")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", help="dataset: number, folder name or path")
    parser.add_argument("--data", type=Path, default=Path("data"), help="of raw datasets")
    parser.add_argument("--prepared", type=Path, default=Path("prepared"), help="of prepared data (3d)")
    parser.add_argument("--folder", type=Path, required=True, help="of results")
    parser.add_argument("--max-time", default="8m", help="time for which the stopped training is planned")
    parser.add_argument("--share", type=float, default=0.25, help="of the time, after which it is stopped")
    parser.add_argument("--seeds", default="1,2")
    given = parser.parse_args(arguments)
    workspace = Workspace(data=given.data, prepared=given.prepared, results=given.folder)
    print("| seed | stopped | planned for that time | difference |\n|---|---|---|---|")
    for seed in map(int, given.seeds.split(",")):
        first, second = compare(
            given.task, workspace, seed=seed, max_time_s=parse_duration(given.max_time), share=given.share
        )
        print(f"| {seed} | {first:.3f} | {second:.3f} | {first - second:+.3f} |", flush=True)


if __name__ == "__main__":
    main()
