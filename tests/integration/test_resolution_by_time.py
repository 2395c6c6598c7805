"""The training time plans the grid of the prepared data."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from decathlete.planning.compute_budget import ComputeBudget
from decathlete.planning.options import PlanOptions
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.training.config import TrainConfig
from decathlete.workflows import resolution
from decathlete.workflows.preprocess import preprocess
from decathlete.workflows.workspace import Workspace

FULL = (1.0, 1.0, 1.0)
MINUTE, MONTH = TrainConfig(max_time_s=60), TrainConfig(max_time_s=30 * 24 * 3600)


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Prepares a dataset of 5 large balls on a machine with one slow thread."""
    make_phantoms(tmp_path / "Balls", n_cases=5, shape_ZYX=(72, 72, 72), spacing_ZYX=FULL)
    monkeypatch.setattr(
        resolution,
        "budget_of_folds",
        lambda config, *_, **__: ComputeBudget(device="cpu", max_time_s=config.max_time_s, threads=1),
    )

    def prepared(training: TrainConfig | None, **options):
        workspace = Workspace(prepared=tmp_path / "prepared")
        return preprocess(tmp_path / "Balls", workspace=workspace, training=training, workers=1, **options)

    return prepared


def test_a_short_time_prepares_a_coarser_grid_that_later_runs_keep(prepare, caplog):
    short = prepare(MINUTE)
    spacing = short.plan.target_spacing
    assert min(spacing) > 1
    assert short.plan.median_shape[0] == round(72 / spacing[0])
    assert "coarser than full resolution" in short.plan.reasons["target_spacing"]
    assert short.plan.user_set == {}
    with caplog.at_level(logging.WARNING):
        assert prepare(MINUTE).plan == short.plan
        assert caplog.text == ""
        for options in ({}, {"reuse": True}):
            assert prepare(MONTH, **options).plan.target_spacing == spacing
    assert caplog.text.count("prepare them again with --overwrite") == 2
    assert prepare(MONTH, overwrite=True).plan.target_spacing == FULL


def test_no_time_or_a_grid_of_the_user_keeps_the_grid(prepare):
    options = PlanOptions(overrides=("target_spacing=1.5,1.5,1.5",))
    assert prepare(MINUTE, options=options).plan.target_spacing == (1.5, 1.5, 1.5)
    assert prepare(None, overwrite=True).plan.target_spacing == FULL


def test_measured_ceilings_are_kept_until_the_dataset_changes(prepare, monkeypatch):
    first = prepare(MINUTE)

    def fail(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(resolution, "measure_ceilings", fail)
    assert prepare(MINUTE, overwrite=True).plan == first.plan
    (first.folder.parent / "ceilings_3d.json").write_text("damaged")
    with pytest.raises(AssertionError, match="measured again"):
        prepare(MINUTE, overwrite=True)
