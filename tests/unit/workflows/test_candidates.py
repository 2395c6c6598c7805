"""Candidates of a selection: which configurations make a pair."""

from __future__ import annotations

from pathlib import Path

import pytest

from decathlete.core.labels import LabelSet
from decathlete.errors import ModelError
from decathlete.models.record import PostprocessingStep
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.selection.candidates import make_candidates
from decathlete.workflows.selection.configurations import TrainedConfiguration, TrainedFold, common_folds

LARGEST = (PostprocessingStep(name="keep_largest_component", settings={"together": True}),)


def configuration(name: str, *steps: tuple[PostprocessingStep, ...]) -> TrainedConfiguration:
    """One fold for each of ``steps``."""
    record = RunRecord.model_construct(val=(), dataset_digest="")
    folds = {
        fold: TrainedFold(
            folder=Path(name) / f"fold_{fold}",
            record=record,
            labels=LabelSet.from_names(["organ"]),
            digest="",
            n_networks=1,
            postprocessing=of_fold,
        )
        for fold, of_fold in enumerate(steps)
    }
    return TrainedConfiguration(name=name, folder=Path(name), folds=folds)


def test_configurations_with_other_steps_make_no_pair(caplog):
    chosen = [configuration("2d", LARGEST), configuration("3d", ()), configuration("3d_lowres", ())]
    names = [candidate.name for candidate in make_candidates(chosen, [0], max_members=5)]
    assert names == ["2d", "3d", "3d_lowres", "3d+3d_lowres"]
    assert "2d and 3d are no pair: their post-processing differs" in caplog.text


def test_folds_of_one_configuration_have_the_same_steps():
    with pytest.raises(ModelError, match="another post-processing"):
        common_folds([configuration("3d", LARGEST, ())])
    assert common_folds([configuration("3d", LARGEST, LARGEST)]) == (0, 1)
