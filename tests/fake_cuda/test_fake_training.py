"""A whole training on a fake CUDA device, all but the backward passes: how often a step waits for the device."""

from __future__ import annotations

import pytest

from decathlete.training.reporting.records import Logs
from decathlete.training.run import train
from factories import make_test_network, make_test_plan
from training_support import REGIONS, make_store, tiny_config

LOSS = ["copy to cpu"]
"""The one wait of a step: for the loss, and whether it and the gradient are finite."""
SCALE = ["item"]
"""With loss scaling a second one: whether the scaler has skipped the step."""


class WaitsOfSteps:
    """Progress that notes what each step has waited for."""

    def __init__(self, waits: list[str]) -> None:
        self._waits = waits
        self.steps: list[list[str]] = []

    def on_step(self, step: int, progress: float) -> None:
        self.steps.append(list(self._waits))
        self._waits.clear()

    def on_epoch(self, record: object) -> None:
        pass


@pytest.mark.parametrize(
    ("dims", "network", "changes"),
    [
        (2, {"block": "residual"}, {"optimizer": "sgd", "precision": "bf16"}),
        (3, {}, {"optimizer": "sgd", "precision": "fp16", "gradient_clip": 1.0}),
        (3, {"norm": "batch"}, {"optimizer": "adamw", "precision": "fp32", "loss": "focal"}),
    ],
    ids=["2d_sgd_bf16", "3d_sgd_fp16", "3d_adamw_fp32"],
)
def test_a_step_waits_for_its_loss_alone(cuda, tmp_path, dims, network, changes):
    plan = make_test_plan(
        dims, labels=REGIONS, network=make_test_network(dims, out_channels=2).revised(**network), batch_size=4
    )
    store = make_store(tmp_path / "store", dims, plan=plan)
    waits = WaitsOfSteps(cuda.waits)
    config = tiny_config(**({"device": "auto", "epochs": 2, "steps_per_epoch": 3, "val_cases": 1} | changes))
    result = train(store, 0, tmp_path / "run", config, progress=waits)
    assert result.steps == 6
    assert Logs.load(tmp_path / "run" / "logs.json").epochs[1].skipped_steps == 0
    first, *later = waits.steps
    expected = LOSS + SCALE if changes["precision"] == "fp16" else LOSS
    assert first[-len(expected) :] == expected
    # The first step of an epoch follows a validation and a checkpoint.
    assert [later[i] for i in (0, 1, 3, 4)] == [expected] * 4
