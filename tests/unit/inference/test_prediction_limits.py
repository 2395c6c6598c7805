"""Predictions that do not fit on the disk are an error; cases that do not fit together are predicted one by one."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from decathlete.core import machine, sizes
from decathlete.core.geometry import Geometry
from decathlete.core.sliding_window import SlidingWindow
from decathlete.errors import OutputError
from decathlete.inference.batching.case_predictor import LocalCasePredictor
from decathlete.inference.output.files import make_jobs
from decathlete.inference.requirements import limit_prediction
from decathlete.io.images import write_image
from factories import make_test_plan


@pytest.fixture
def models() -> Any:
    plan = make_test_plan()
    models = LocalCasePredictor.__new__(LocalCasePredictor)
    models.predictor = SimpleNamespace(  # type: ignore[assignment]
        ensembles=[SimpleNamespace(plan=plan)], window=SlidingWindow(), device=torch.device("cpu")
    )
    models.facts = SimpleNamespace(labels=plan.labels)  # type: ignore[assignment]
    models.one_at_a_time = False
    return models


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
