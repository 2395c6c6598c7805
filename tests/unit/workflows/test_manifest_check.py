"""Options that do not fit a dataset are rejected by its manifest, before any image is read: there are none here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

import decathlete
from decathlete import PlanOptions, Workspace
from decathlete.dataset.splits import Fold, Splits
from decathlete.errors import DatasetError, ManifestError, ModelError, OptionError, OutputError, PlanError
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.training.config import TrainConfig
from factories import make_test_plan

MANIFEST = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "left kidney": 1, "right kidney": 2, "liver": 3},
    "numTraining": 4,
    "file_ending": ".nii.gz",
    "annotated": {"case_0": ["liver"]},
}
WEIGHTS = {"name": "weighted_cross_entropy", "weights": [1, 2]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "Dataset001_Kidneys", MANIFEST)


def write_dataset(root: Path, manifest: dict[str, Any], suffix: str = ".nii.gz") -> Path:
    for folder, ending in (("imagesTr", f"_0000{suffix}"), ("labelsTr", suffix)):
        (root / folder).mkdir(parents=True)
        for n in range(4):
            (root / folder / f"case_{n}{ending}").touch()
    (root / "dataset.json").write_text(json.dumps(manifest))
    return root


def options_of(root: Path, plan: dict[str, Any] | None = None, **config: Any) -> dict[str, Any]:
    return {
        "workspace": Workspace(prepared=root.parent / "prepared", results=root.parent / "results"),
        "plan_options": PlanOptions(**(plan or {})),
        "config": TrainConfig(**config),
    }


def run(root: Path, **options: Any) -> None:
    decathlete.run(root, **options)


def run_folds(root: Path, **options: Any) -> None:
    decathlete.cross_validate(root, **options)


def run_configurations(root: Path, **options: Any) -> None:
    decathlete.run_configurations(root, **options)


@pytest.mark.parametrize("command", [run, run_folds, run_configurations])
@pytest.mark.parametrize(
    ("plan", "config", "problem"),
    [
        ({}, {"loss": "weighted_cross_entropy"}, "weighted_cross_entropy would punish classes that were not annotated"),
        ({}, {"loss": {"name": "combined", "terms": [{"loss": WEIGHTS}]}}, "2 numbers for 4 classes"),
        ({"mirror_pairs": "1=9"}, {}, "class '9' is not declared"),
        ({"mirror_pairs": "1=2", "orientation": "stored"}, {}, "left and right are unknown"),
        ({"brats": True}, {}, "whole tumour"),
        ({"regions": "all=1,2,3,4"}, {}, "4"),
        ({"overrides": ("coarse_start.share=0.5",)}, {}, "coarse_start.share=0.5: the training has no coarse start"),
        ({"architecture": "unknown"}, {}, "there is no architecture called 'unknown'"),
        ({}, {"sync_batchnorm": True}, "sync_batchnorm is for several devices"),
    ],
)
def test_what_does_not_fit_is_rejected_before_any_work(
    root: Path, command: Callable[..., None], plan: dict[str, Any], config: dict[str, Any], problem: str
) -> None:
    with pytest.raises(OptionError, match=problem):
        command(root, **options_of(root, plan, **config))
    assert not (root.parent / "prepared").exists()


def test_a_share_of_the_coarse_start_needs_a_time_of_each_training_or_of_all(root: Path) -> None:
    """The next error is that of the check of the images, which are empty."""
    options = options_of(root, {"overrides": ("coarse_start.share=0.5",)})
    with pytest.raises(DatasetError, match="case_0"):
        run_configurations(root, total_time_s=3600.0, **options)
    with pytest.raises(OptionError, match="has no coarse start") as no:
        run_configurations(root, configurations="2d,3d", **options)
    assert "--max-time" in no.value.remedy


@pytest.mark.parametrize("names", ["auto", "2d,3d"])
def test_options_of_several_configurations_are_checked_before_the_images(root: Path, names: str) -> None:
    options = options_of(root, pretrained=str(root.parent / "none"))
    with pytest.raises(ModelError, match="none"):
        run_configurations(root, configurations=names, **options)
    inside = Workspace(prepared=root.parent / "prepared", results=root / "results")
    with pytest.raises(OutputError, match="raw dataset"):
        run_configurations(root, configurations=names, **(options_of(root) | {"workspace": inside}))
    assert not (root.parent / "prepared").exists()


@pytest.mark.parametrize(
    ("channel", "freeze_stages", "problem"),
    [
        ("MRI", 1, "--freeze-stages 1: .* has no weights for CT"),
        ("CT", 2, "--freeze-stages 2: the network's encoder has 2 stage"),
    ],
)
def test_stages_that_cannot_be_frozen(root: Path, channel: str, freeze_stages: int, problem: str) -> None:
    plan = make_test_plan(3, channels=(channel,))
    ModelBundle.save(root.parent / "old", TrainedMember(plan=plan, networks=[build_network(plan.network, seed=1)]))
    options = options_of(root, pretrained=str(root.parent / "old"), freeze_stages=freeze_stages)
    for command, more in ((run, {}), (run_configurations, {"configurations": "3d"})):
        with pytest.raises(OptionError, match=problem):
            command(root, **more, **options)
    assert not (root.parent / "prepared").exists()


def test_losses_that_leave_out_what_was_not_annotated_are_accepted(root: Path) -> None:
    """The next error is that of the check of the images, which are empty."""
    loss = {"name": "combined", "terms": [{"loss": "tversky"}, {"loss": "topk"}]}
    with pytest.raises(DatasetError, match="case_0"):
        run(root, **options_of(root, loss=loss))


@pytest.mark.parametrize("folds", [[7], "0,5", "3-9"])
def test_folds_that_do_not_exist(root: Path, folds: str | list[int]) -> None:
    with pytest.raises(OptionError, match="does not exist: this dataset is split into 5") as raised:
        run_folds(root, folds=folds, **options_of(root))
    assert raised.value.code == "E-OPTION-FOLD"


def test_folds_of_a_list(root: Path, tmp_path: Path) -> None:
    (root / "splits_final.json").write_text(json.dumps([{"train": ["case_0", "case_1"], "val": ["case_2"]}]))
    with pytest.raises(OptionError, match="fold 1 does not exist: this dataset is split into 1"):
        run(root, fold=1, **options_of(root))
    with pytest.raises(ManifestError, match="does not exist"):
        run(root, **options_of(root, {"splits": tmp_path / "none.json"}))


@pytest.mark.parametrize(("plan", "n_folds"), [({}, 2), ({"n_folds": 3}, 3)])
def test_folds_that_prepared_data_do_not_have(root: Path, plan: dict[str, Any], n_folds: int) -> None:
    folds = (Fold(train=("case_0",), val=("case_1",)), Fold(train=("case_1",), val=("case_0",)))
    splits = Splits(seed=0, grouped=False, folds=folds)
    path = root.parent / "prepared" / root.name / "3d" / "splits.json"
    path.parent.mkdir(parents=True)
    splits.save(path)
    for command, named in ((run, {"fold": 7}), (run_folds, {"folds": "0,7"})):
        with pytest.raises(OptionError, match=f"fold 7 does not exist: this dataset is split into {n_folds}"):
            command(root, **named, **options_of(root, plan))
    assert not (root.parent / "results").exists()
    path.write_text("{")  # damaged
    with pytest.raises(DatasetError, match="case_0"):
        run(root, fold=7, **options_of(root))


def test_settings_that_wait_for_validations_need_a_fold(root: Path) -> None:
    with pytest.raises(OptionError, match="patience waits for validations"):
        run(root, fold="all", **options_of(root, epochs=5, patience=2))


def test_a_cascade_without_a_first_stage(root: Path) -> None:
    with pytest.raises(ModelError, match="none was trained") as raised:
        run(root, configuration="3d_cascade", **options_of(root))
    assert raised.value.code == "E-MODEL-STAGE"


def test_a_cascade_of_cases_that_no_fold_holds_out(root: Path) -> None:
    (root / "splits_final.json").write_text(json.dumps([{"train": ["case_0", "case_1"], "val": ["case_2"]}]))
    for command, options in (
        (run, {"configuration": "3d_cascade"}),
        (run_configurations, {"configurations": "3d_cascade"}),
    ):
        with pytest.raises(ModelError, match="no fold holds out 3 cases: case_0, case_1, case_3") as raised:
            command(root, **options, **options_of(root))
        assert raised.value.code == "E-MODEL-STAGE"
    assert not (root.parent / "prepared").exists()


def test_volumes_of_pictures(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "Dataset002_Cells", MANIFEST | {"file_ending": ".png"}, ".png")
    for path in root.glob("*/*.png"):
        Picture.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    for command, options in ((run, {}), (run_configurations, {"configurations": "2d,3d"})):
        with pytest.raises(PlanError, match="a 3D model needs volumes") as raised:
            command(root, **options, **options_of(root))
        assert "--dim 2" in str(raised.value)
    with pytest.raises(DatasetError, match="has the single value 0"):  # "auto" has no volumes
        run_configurations(root, **options_of(root))
