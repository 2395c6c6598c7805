"""Candidates of a selection: which configurations make a pair."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decathlete.core.labels import LabelSet
from decathlete.dataset.splits import Fold, Splits
from decathlete.errors import ModelError
from decathlete.models.record import PostprocessingStep
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.selection.candidates import make_candidates
from decathlete.workflows.selection.configurations import TrainedConfiguration, TrainedFold, common_folds
from decathlete.workflows.selection.inputs import load_inputs

LARGEST = (PostprocessingStep(name="keep_largest_component", settings={"together": True}),)


def configuration(name: str, *steps: tuple[PostprocessingStep, ...]) -> TrainedConfiguration:
    """One fold for each of ``steps``."""
    record = RunRecord.model_construct(val=(), dataset_digest="", fold=0)
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


def make_trained(root: Path, ids: list[str], **changes: object) -> TrainedConfiguration:
    """Two folds of a configuration that hold out the first two cases of a dataset; ``changes`` of their records."""
    for folder, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (root / folder).mkdir()
        for case_id in ids:
            (root / folder / f"{case_id}{ending}").touch()
    labels = {"background": 0, "organ": 1}
    manifest = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": len(ids), "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(manifest))
    trained = configuration("3d", LARGEST, LARGEST)
    for fold in trained.folds.values():
        update = {"val": tuple(ids[:2]), "dataset_root": str(root), "prepared": str(root)} | changes
        object.__setattr__(fold, "record", fold.record.model_copy(update=update))
    return trained


def test_configurations_with_other_steps_make_no_pair(caplog):
    chosen = [configuration("2d", LARGEST), configuration("3d", ()), configuration("3d_lowres", ())]
    names = [candidate.name for candidate in make_candidates(chosen, [0], max_members=5)]
    assert names == ["2d", "3d", "3d_lowres", "3d+3d_lowres"]
    assert "2d and 3d are no pair: their post-processing differs" in caplog.text


@pytest.mark.parametrize(("n_folds", "n_patients"), [(2, 4), (5, 8)])
def test_patients_are_those_of_the_split_however_many_folds_are_compared(tmp_path, n_folds, n_patients):
    """Four patients by the names of the cases are not plausible for five folds, and were not kept together there."""
    trained = make_trained(tmp_path, [f"p{number // 2}_visit{number % 2}" for number in range(8)])
    Splits(seed=1, grouped=False, folds=(Fold(train=(), val=()),) * n_folds).save(tmp_path / "splits.json")
    inputs = load_inputs([trained], [0, 1], dataset_root=None, group_by=None)
    assert len(set(inputs.patients.values())) == n_patients


def test_patients_are_those_that_the_training_was_given(tmp_path):
    """``run --group-by`` has stored them; another pattern of ``select`` is used instead."""
    given = {"ann1": "ann", "ann2": "ann", "bob1": "bob"}
    trained = make_trained(tmp_path, ["ann1", "ann2", "bob1", "bob2"], groups=given)

    def patients(group_by: str | None) -> dict[str, str]:
        return dict(load_inputs([trained], [0, 1], dataset_root=None, group_by=group_by).patients)

    found = patients(None)
    assert found == {"ann1": "group ann", "ann2": "group ann", "bob1": "group bob", "bob2": "case bob2"}
    assert found.items() >= {key: value for key, value in patients("^([a-z]+)").items() if key != "bob2"}.items()
    assert patients("(.)$")["ann1"] == "group 1"


def test_folds_of_one_configuration_have_the_same_steps():
    with pytest.raises(ModelError, match="another post-processing"):
        common_folds([configuration("3d", LARGEST, ())])
    assert common_folds([configuration("3d", LARGEST, LARGEST)]) == (0, 1)
