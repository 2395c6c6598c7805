"""Predictions that do not fit on the disk are an error; cases that do not fit together are predicted one by one."""

from __future__ import annotations

import logging
from bisect import bisect_left
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from decathlete.core import machine, sizes
from decathlete.core.estimates import MEMORY_SHARE
from decathlete.core.geometry import Geometry
from decathlete.core.sliding_window import SlidingWindow
from decathlete.errors import OutputError
from decathlete.inference.batching.case_predictor import LocalCasePredictor
from decathlete.inference.output.files import make_jobs
from decathlete.inference.requirements import limit_prediction
from decathlete.io.images import write_image
from decathlete.planning.plan import Plan
from factories import make_test_network, make_test_plan


def ensemble(plan: Plan, *, previous: Any = None) -> Any:
    return SimpleNamespace(plan=plan, engines=(None,), previous=previous)


def predict_with(*ensembles: Any) -> Any:
    models = LocalCasePredictor.__new__(LocalCasePredictor)
    models.predictor = SimpleNamespace(  # type: ignore[assignment]
        ensembles=ensembles, window=SlidingWindow(), device=torch.device("cpu")
    )
    models.facts = SimpleNamespace(labels=ensembles[0].plan.labels)  # type: ignore[assignment]
    models.one_at_a_time = False
    return models


@pytest.fixture
def models() -> Any:
    return predict_with(ensemble(make_test_plan()))


@pytest.fixture
def images(tmp_path: Path) -> dict[str, tuple[Path, ...]]:
    paths = {name: (tmp_path / "in" / f"{name}.nii.gz",) for name in ("a", "b")}
    for (path,) in paths.values():
        path.parent.mkdir(exist_ok=True)
        write_image(path, np.zeros((1, 20, 20, 20), np.float32), Geometry.plain((20, 20, 20)))
    return paths


def test_probabilities_that_do_not_fit_are_an_error(
    models: Any, images: dict[str, tuple[Path, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_outputs = models.facts.labels.n_outputs
    needed = 2 * 8000 * 4 * n_outputs + 320
    jobs = make_jobs(images, tmp_path / "out", save_probabilities=True)
    monkeypatch.setattr(sizes, "free_disk_bytes", lambda _: needed)
    limit_prediction(models, jobs, tmp_path / "out")
    monkeypatch.setattr(sizes, "free_disk_bytes", lambda _: needed - 1)
    with pytest.raises(OutputError, match="are needed for 2 predictions") as raised:
        limit_prediction(models, jobs, tmp_path / "out")
    assert (raised.value.code, raised.value.where) == ("E-DISK-FULL", tmp_path / "out")


def test_the_probabilities_of_each_plan_need_space_in_addition(
    images: dict[str, tuple[Path, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = predict_with(ensemble(make_test_plan(3)), ensemble(make_test_plan(2)))
    needed = 320 + 2 * 8000 * 4 * pair.facts.labels.n_outputs
    jobs = make_jobs(images, tmp_path / "out", save_probabilities=False)
    monkeypatch.setattr(sizes, "free_disk_bytes", lambda _: needed)
    limit_prediction(pair, jobs, tmp_path / "out")
    monkeypatch.setattr(sizes, "free_disk_bytes", lambda _: needed - 1)
    with pytest.raises(OutputError, match="are needed for 2 predictions"):
        limit_prediction(pair, jobs, tmp_path / "out")


def needed_bytes(
    models: Any, images: dict[str, tuple[Path, ...]], output: Path, monkeypatch: pytest.MonkeyPatch
) -> int:
    """Return the least memory, to 4 kB, that cases may fill to read the next one while one is predicted."""
    jobs = make_jobs(images, output, save_probabilities=False)

    def fits(available: int) -> bool:
        monkeypatch.setattr(machine, "available_memory_bytes", lambda: available)
        models.one_at_a_time = False
        limit_prediction(models, jobs, output)
        return not models.one_at_a_time

    return round(MEMORY_SHARE * 4096 * bisect_left(range(10**6), 1, key=lambda n: fits(4096 * n)))


def test_all_plans_and_first_stages_and_the_network_count(
    images: dict[str, tuple[Path, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    low = make_test_plan()
    masked = make_test_network(in_channels=1 + len(low.labels.structures))
    cascade = make_test_plan(previous_stage="3d_lowres", network=masked)

    def needed(*ensembles: Any) -> int:
        return needed_bytes(predict_with(*ensembles), images, tmp_path / "out", monkeypatch)

    alone = needed(ensemble(low))
    image = 4 * 8000
    # Images of the two plans are held while the next case is read, and while one is predicted.
    assert needed(ensemble(low), ensemble(low)) - alone == pytest.approx(2 * image, abs=4096)
    with_stage = needed(ensemble(cascade, previous=ensemble(low))) - needed(ensemble(cascade))
    assert with_stage == pytest.approx(2 * image, abs=4096)
    larger = make_test_plan(patch_size=(32, 32, 32))
    assert needed(ensemble(larger)) - alone > 7 * 4 * 4 * (32**3 - 16**3), "feature maps of a batch of one"


@pytest.mark.parametrize(("available", "expected"), [(10**9, False), (200_000, True)])
def test_little_memory_predicts_one_case_at_a_time(
    models: Any,
    images: dict[str, tuple[Path, ...]],
    tmp_path: Path,
    available: int,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: available)
    with caplog.at_level(logging.INFO, "decathlete"):
        limit_prediction(models, make_jobs(images, tmp_path / "out", save_probabilities=False), tmp_path / "out")
    assert models.one_at_a_time is expected
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("predict one case at a time")]
    assert len(said) == expected
