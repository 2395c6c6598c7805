"""The plan of an imported model: where each setting is from, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from decathlete.core.files import write_json
from decathlete.errors import DecathleteError, ModelError, OptionError
from decathlete.interop.dynunet import DynUNetImportResult, import_dynunet
from decathlete.interop.dynunet_options import DynUNetOptions
from decathlete.interop.recipe_args import make_recipe_topology
from decathlete.models.bundle import ModelBundle
from decathlete.planning.presets import load_preset
from dynunet_support import changed


def imported(case: str, folder: Path, *, args: dict[str, Any] | None = None, **options: Any) -> DynUNetImportResult:
    path = changed(case, folder, args=args)
    return import_dynunet(path, folder / "model", options=DynUNetOptions(**options))


def test_the_task_that_the_checkpoint_names_fixes_the_rest(tmp_path: Path) -> None:
    made = imported("plain_3d", tmp_path)
    plan = made.plan
    assert (plan.dataset, plan.dims, plan.patch_size) == ("Task04_Hippocampus", 3, (40, 56, 40))
    assert plan.target_spacing == (1, 1, 1)
    assert (plan.orientation, plan.axis_order, plan.preprocessing_order) == ("stored", (0, 1, 2), "recipe")
    assert plan.channels == ("MRI",)
    assert [c.name for c in plan.labels.classes] == ["background", "Anterior", "Posterior"]
    assert (plan.normalization[0].component, plan.normalization[0].nonzero_only) == ("zscore", True)
    assert (plan.batch_size, plan.foreground_channel, made.notes) == (2, False, ())
    for field in ("patch_size", "target_spacing", "labels"):
        assert "Task04_Hippocampus, the task that the checkpoint names" in plan.reasons[field]
    again = ModelBundle.load(tmp_path / "model").record
    assert again.mirror_axes == (0, 1, 2)
    facts = again.training_provenance["imported"]
    assert isinstance(facts, dict)
    assert (facts["file"], facts["epoch"], len(str(facts["sha256"]))) == ("changed.ckpt", 7, 64)


def test_slices_are_not_resampled_unless_asked_for(tmp_path: Path) -> None:
    plan = imported("batch_2d", tmp_path, task="04").plan
    assert (plan.patch_size, plan.target_spacing) == ((56, 40), (None, None, None))
    assert "--task names" in plan.reasons["patch_size"]
    (tmp_path / "b").mkdir()
    plan = imported("batch_2d", tmp_path / "b", spacing=(0.8, 0.7)).plan
    assert plan.target_spacing == (None, 0.8, 0.7)


def test_options_win_over_the_task(tmp_path: Path) -> None:
    plan = imported(
        "plain_3d",
        tmp_path,
        patch_size=(32, 48, 24),
        spacing=(2.0, 1.5, 1.0),
        ct_stats=(-100.0, 300.0, 90.0, 40.0),
        channels=("scan",),
        labels=("liver", "cancer"),
    ).plan
    assert (plan.patch_size, plan.target_spacing, plan.channels) == ((32, 48, 24), (2, 1.5, 1), ("scan",))
    ct = plan.normalization[0]
    assert (ct.component, ct.clip_low, ct.clip_high, ct.mean, ct.std) == ("ct", -100, 300, 90, 40)
    assert [c.name for c in plan.labels.foreground] == ["liver", "cancer"]
    assert plan.reasons["patch_size"] == "set by --patch-size"


def test_a_ct_task_has_its_statistics(tmp_path: Path) -> None:
    plan = imported("plain_3d", tmp_path, args={"task": "07"}, patch_size=(40, 56, 40)).plan
    assert (plan.normalization[0].component, plan.normalization[0].std) == ("ct", 75.4)
    assert [c.name for c in plan.labels.foreground] == ["pancreas", "cancer"]


def test_names_come_from_a_dataset(tmp_path: Path) -> None:
    manifest = {
        "modality": {"0": "T1"},
        "labels": {"0": "background", "1": "head", "2": "tail"},
        "training": [{"image": "a.nii.gz", "label": "b.nii.gz"}],
    }
    write_json(tmp_path / "Own" / "dataset.json", manifest)
    plan = imported("plain_3d", tmp_path, dataset=tmp_path / "Own").plan
    assert (plan.dataset, plan.channels) == ("Own", ("T1",))
    assert [c.name for c in plan.labels.foreground] == ["head", "tail"]


def test_brats_outputs_are_regions_and_the_extra_channel_the_recipes_foreground(tmp_path: Path) -> None:
    made = imported("brats_3d", tmp_path)
    plan = made.plan
    regions = {r.name: r.values for r in plan.labels.regions}
    assert regions == {"whole tumour": (1, 2, 3), "core": (1, 3), "enhancing": (3,)}
    assert plan.labels.region_order == (2, 1, 3)
    assert (plan.foreground_channel, plan.foreground_rule, len(plan.channels)) == (True, "positive", 4)
    assert made.notes == ()


def test_brats_on_task_01_has_learned_another_core(tmp_path: Path) -> None:
    made = imported("brats_3d", tmp_path, args={"task": "01"})
    assert "oedema" in made.notes[0]
    assert made.plan.labels.regions[1].values == (1, 3)


def test_regions_by_hand(tmp_path: Path) -> None:
    regions = "whole=1,2,3;core=2,3;enhancing=3"
    plan = imported("brats_3d", tmp_path, args={"brats": False}, regions=regions).plan
    assert [(r.name, r.values) for r in plan.labels.regions] == [
        ("whole", (1, 2, 3)),
        ("core", (2, 3)),
        ("enhancing", (3,)),
    ]


@pytest.mark.parametrize(
    ("case", "args", "options", "said"),
    [
        (
            "plain_3d",
            {"task": None},
            {},
            ["patch size of a 3D model is unknown", "spacing is", "channels", "labels are"],
        ),
        ("plain_3d", {"task": "03"}, {}, ["strides 111 222 222 222", "Task03_Liver", "--patch-size"]),
        ("plain_3d", {"task": "05"}, {}, ["--task"]),
        ("plain_3d", {}, {"labels": ("one",)}, ["3 outputs, but there are 2 classes"]),
        ("plain_3d", {}, {"labels": ("a", "b", "c")}, ["use --brats"]),
        ("plain_3d", {}, {"channels": ("a", "b")}, ["has 1 input channels, but 2 are named (a, b)"]),
        ("plain_3d", {}, {"patch_size": (40, 56, 44)}, ["40 × 56 × 44", "not a multiple of 8 × 8 × 8"]),
        ("plain_3d", {}, {"patch_size": (40, 56)}, ["2 numbers", "3 axes"]),
        ("plain_3d", {}, {"spacing": (1.0, 1.0)}, ["spacing has 2 numbers"]),
        ("plain_3d", {}, {"modality": "CT"}, ["--ct-stats"]),
        ("plain_3d", {}, {"dims": 2}, ["--dim 2: the network is 3D"]),
        ("plain_3d", {}, {"norm": "batch"}, ["lacks the statistics of batch norm"]),
        ("batch_2d", {}, {"norm": "group"}, ["has the statistics of batch norm"]),
        ("plain_3d", {"dim": 2, "res_block": True}, {}, ["2 problems", "dim 2", "res_block True"]),
        ("plain_3d", {"filters": [8, 16, 32, 64]}, {}, ["filters (8, 16, 32, 64)"]),
        ("plain_3d", {"depth": 2}, {}, ["depth 2", "3 poolings"]),
        ("brats_3d", {"brats": False}, {}, ["3 outputs, but there are 4 classes", "--brats"]),
        ("brats_3d", {}, {"regions": "core=1,3;whole tumour=1,2,3;enhancing=3"}, ["outer regions come first"]),
    ],
)
def test_what_does_not_fit_is_said_together(
    case: str, args: dict[str, Any], options: dict[str, Any], said: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        imported(case, tmp_path, args=args, **options)
    for words in said:
        assert words in str(caught.value)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("args", "options", "said"),
    [
        ({}, {"task": "13"}, "not a task of the recipe .01 to 12"),
        ({}, {"task": "05"}, "trained on task 04"),
        ({"norm": "group"}, {}, "--norm instance"),
        ({"negative_slope": 0.2}, {}, "--negative-slope 0.01, or 0.2"),
    ],
)
def test_what_is_ambiguous_is_asked_for(
    args: dict[str, Any], options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=said):
        imported("plain_3d", tmp_path, args=args, **options)


def test_what_was_asked_for_is_taken(tmp_path: Path) -> None:
    args = {"norm": "group", "negative_slope": 0.2}
    network = imported("plain_3d", tmp_path, args=args, norm="group", negative_slope=0.2).plan.network
    assert (network.norm, network.norm_groups, network.negative_slope) == ("group", 32, 0.2)


@pytest.mark.parametrize(
    "options",
    [
        {"ct_stats": (1.0, 2.0)},
        {"ct_stats": (2.0, 1.0, 0.0, 1.0)},
        {"ct_stats": (1.0, 2.0, 0.0, 1.0), "modality": "MRI"},
        {"modality": "PET"},
        {"labels": ("a", "a")},
        {"labels": ("background", "a")},
        {"patch_size": (0, 8, 8)},
        {"spacing": (1.0, -1.0, 1.0)},
        {"spacing": (1.0, float("nan"), 1.0)},
        {"ct_stats": (0.0, 1.0, float("nan"), 1.0)},
        {"brats": True, "regions": "a=1"},
        {"regions": "a"},
        {"negative_slope": 2.0},
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(DecathleteError):
        DynUNetOptions(**options)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("task", load_preset("recipe").tasks, ids=lambda task: task.name)
def test_every_fixed_patch_is_a_multiple_of_the_recipes_strides(task: Any, dims: Any) -> None:
    patch = task.patch(dims)
    if patch is None:
        return
    strides, kernels = make_recipe_topology(task.spacing[-dims:], patch)
    assert len(strides) == len(kernels) <= 6
    for axis in range(dims):
        size = patch[axis]
        for stride in strides:
            assert size % stride[axis] == 0
            size //= stride[axis]
        assert size >= 4


def test_the_recipes_topology_of_an_anisotropic_task() -> None:
    strides, kernels = make_recipe_topology((3.6, 0.62, 0.62), (20, 320, 256))
    assert strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
    assert kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
