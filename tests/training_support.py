"""A tiny prepared store and a tiny training, for tests of training (and for the processes that they start)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from decathlete.augmentation.config import AugmentationConfig
from decathlete.core.geometry import Geometry
from decathlete.core.labels import LabelSet
from decathlete.dataset.splits import Fold, Splits
from decathlete.io.images import Image, LabelMap
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.plan import Plan
from decathlete.preprocessing.prepare import prepare
from decathlete.preprocessing.store import PreparedStore, StoreSource
from decathlete.preprocessing.write import write_case
from decathlete.training.config import TrainConfig
from decathlete.training.objective.deep_supervision import DeepSupervision
from decathlete.training.objective.losses import LOSSES, LossContext
from factories import make_test_plan

N_CASES = 6


def make_store(folder: Path, dims: int = 3, *, plan: Plan | None = None) -> PreparedStore:
    """Six cases of 20 voxels a side: a bright ball (class 1) with a brighter core (class 2) in noise."""
    plan = plan or make_test_plan(dims)
    ids = tuple(f"case{i}" for i in range(N_CASES))
    for number, case_id in enumerate(ids):
        image_ZYX, label_ZYX = make_ball(number)
        geometry = Geometry.plain(label_ZYX.shape)
        prepared = prepare(
            Image(array_CZYX=image_ZYX[None], geometry=geometry),
            plan,
            label=LabelMap(array_ZYX=label_ZYX, geometry=geometry),
            case_id=case_id,
        )
        (folder / "cases").mkdir(parents=True, exist_ok=True)
        write_case(folder / "cases" / case_id, prepared, digest="test", dims=plan.dims)
    plan.save(folder / "plan.json")
    Fingerprint(dataset_digest="test", cases=(), intensity=()).save(folder / "fingerprint.json")
    splits = Splits(folds=(Fold(train=ids[:4], val=ids[4:]),), seed=1, grouped=False)
    splits.save(folder / "splits.json")
    StoreSource(dataset="Test", root="/nowhere", dataset_digest="test", case_ids=ids).save(folder / "source.json")
    return PreparedStore.open(folder)


def make_ball(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (float32) and label (uint8), both ZYX."""
    generator = np.random.default_rng(seed)
    centre = generator.uniform(8, 12, 3)
    distance = np.linalg.norm(np.stack(np.indices((20, 20, 20)), -1) - centre, axis=-1)
    label = np.where(distance < 4, 2, np.where(distance < 7, 1, 0)).astype(np.uint8)
    image = label * 2.0 + generator.normal(0, 0.5, label.shape)
    return image.astype(np.float32), label


def make_loss(labels: LabelSet, *, heads: int, name: str = "cross_entropy", **settings: Any) -> DeepSupervision:
    """The loss of a training with this many supervised heads."""
    one_head = LOSSES.build(LOSSES.settings({"name": name, **settings}), LossContext(labels=labels))
    return DeepSupervision(one_head, heads=heads)


def tiny_config(**changes: Any) -> TrainConfig:
    """Two epochs of four steps on one CPU process, everything repeatable."""
    values: dict[str, Any] = {
        "epochs": 2,
        "steps_per_epoch": 4,
        "device": "cpu",
        "precision": "fp32",
        "learning_rate": 0.01,
        "loggers": (),
    }
    if changes.get("max_time_s") is not None:
        del values["steps_per_epoch"]
    return TrainConfig.make(**(values | changes))


REGIONS = LabelSet.model_validate(
    {
        "classes": [{"name": "background", "value": 0}, {"name": "shell", "value": 1}, {"name": "core", "value": 2}],
        "regions": [{"name": "whole", "values": [1, 2]}, {"name": "core", "values": [2]}],
        "region_order": [1, 2],
    }
)


class SimulatedClock:
    """A clock that moves only when a test moves it.

    Attributes:
        now_s: what it reads, seconds.
    """

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class KillAt:
    """Progress that sends this process a signal after a step."""

    def __init__(self, step: int, number: int) -> None:
        self.step = step
        self.number = number

    def on_step(self, step: int, progress: float) -> None:
        import os

        if step == self.step:
            os.kill(os.getpid(), self.number)

    def on_epoch(self, record: object) -> None:
        pass


def main(store: str, output: str, config_json: str, kill_step: str, number: str) -> int:
    """Train in a process of its own, which is sent signal ``number`` after ``kill_step`` steps."""
    import torch

    from decathlete.errors import DecathleteError
    from decathlete.training.run import train

    torch.set_num_threads(1)
    config = TrainConfig.model_validate_json(config_json)
    try:
        train(
            PreparedStore.open(Path(store)),
            0,
            Path(output),
            config,
            resume=True,
            progress=KillAt(int(kill_step), int(number)),
        )
    except DecathleteError as problem:
        sys.stderr.write(str(problem))
        return problem.exit_code
    return 0


def launched(store: str, output: str, config_json: str, slow_s: str) -> int:
    """Train as one of several processes of a launcher, over whatever is there; claiming the folder takes long."""
    import time

    from decathlete.errors import DecathleteError
    from decathlete.training import run

    claim = run.claim

    def slow_claim(*arguments: Any, **options: Any) -> Any:
        time.sleep(float(slow_s))
        return claim(*arguments, **options)

    run.claim = slow_claim
    config = TrainConfig.model_validate_json(config_json)
    try:
        result = run.train(PreparedStore.open(Path(store)), 0, Path(output), config, overwrite=True)
    except DecathleteError as problem:
        sys.stderr.write(str(problem))
        return problem.exit_code
    sys.stdout.write(f"{result.steps} steps, {result.model.is_dir()}")
    return 0


NO_AUGMENTATION = AugmentationConfig.none()

if __name__ == "__main__":
    sys.exit(launched(*sys.argv[2:]) if sys.argv[1] == "launched" else main(*sys.argv[1:]))
