"""Models exported to nnU-Net v2: content of the files, round trip, and models that nnU-Net cannot represent."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.core import sizes
from decathlete.core.labels import LabelClass, LabelSet, Region
from decathlete.errors import ModelError, OutputError
from decathlete.interop.nnunet import import_nnunet
from decathlete.interop.nnunet_export import export_nnunet
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.models.combine import combine_bundles
from decathlete.models.record import PostprocessingStep
from decathlete.networks.build import build_network
from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.normalizations import NORMALIZATIONS
from decathlete.planning.plan import Plan, Resampling
from factories import make_test_network, make_test_plan

NESTED = LabelSet(
    classes=tuple(LabelClass(name=n, value=v) for v, n in enumerate(("nothing", "rim", "core"))),
    regions=(Region(name="whole", values=(1, 2)), Region(name="inner", values=(2,))),
    region_order=(1, 2),
    ignore=7,
)
CT = NORMALIZATIONS.settings({"name": "ct", "clip_low": -90, "clip_high": 200, "mean": 40, "std": 25})


def network(dims: int = 3, **changes: Any) -> UNetSpec:
    """Three stages, anisotropic in 3D, two heads short of what nnU-Net's network has."""
    kernels = ((1, 3, 3), (3, 3, 3), (3, 3, 3)) if dims == 3 else ((3, 3),) * 3
    strides = ((1, 1, 1), (1, 2, 2), (2, 2, 2)) if dims == 3 else ((1, 1), (2, 2), (2, 2))
    fields = {
        "dims": dims,
        "in_channels": 2,
        "out_channels": 3,
        "kernels": kernels,
        "strides": strides,
        "features": (4, 8, 12),
        "encoder_convs": (1, 2, 2),
        "decoder_convs": (2, 1),
        "negative_slope": 0.05,
    }
    return UNetSpec(**(fields | changes))


PLANS = {
    "anisotropic": make_test_plan(
        3,
        n_channels=2,
        axis_order=(1, 0, 2),
        target_spacing=(4.0, 1.5, 1.25),
        patch_size=(8, 16, 24),
        normalization=(CT, NORMALIZATIONS.settings({"name": "zscore", "nonzero_only": True})),
        fill_slice_holes=False,
        resampling=Resampling(image_order=1, separate_axis="always", separate_ratio=2.5),
        network=network(heads=2),
    ),
    "2d": make_test_plan(
        2,
        n_channels=2,
        orientation="stored",
        patch_size=(16, 24),
        normalization=(NORMALIZATIONS.settings("rescale"), NORMALIZATIONS.settings("none")),
        network=network(2, block="residual", norm="batch"),
    ),
    "regions": make_test_plan(
        3,
        labels=NESTED.revised(ignore=None, classes=(LabelClass(name="background", value=0), *NESTED.foreground)),
        n_channels=2,
        patch_size=(8, 16, 16),
        network=network(out_channels=2, block="residual"),
    ),
    "as stored": make_test_plan(
        3, n_channels=2, target_spacing=(None, None, None), patch_size=(8, 16, 16), network=network()
    ),
}


def saved(folder: Path, plan: Plan, *, networks: int = 1, mirror_axes: tuple[int, ...] = (0, 1)) -> ModelBundle:
    states = [build_network(plan.network, seed=seed).state_dict() for seed in range(networks)]
    for number, state in enumerate(states):  # a batch norm that has seen something
        for name, value in state.items():
            if name.endswith(("running_mean", "running_var")):
                value.uniform_(0.5 + number, 1.5 + number)
    provenance = {"training_cases": 12}
    member = TrainedMember(plan=plan, networks=states, mirror_axes=mirror_axes, provenance=provenance)
    return ModelBundle.save(folder, member)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("networks", [1, 2])
def test_what_is_exported_comes_back(tmp_path: Path, name: str, networks: int) -> None:
    bundle = saved(tmp_path / "model", PLANS[name], networks=networks)
    export_nnunet(bundle.folder, tmp_path / "theirs")
    back = import_nnunet(tmp_path / "theirs", tmp_path / "back").bundle
    ours, theirs = bundle.record.plan, back.record.plan
    unknown = {"training_ranges", "fingerprint_digest", "reasons", "labels", "network", "mirror_axes", "resampling"}
    assert theirs.model_dump(exclude=unknown) == ours.model_dump(exclude=unknown)
    by_regions = {"classes"} if ours.labels.regions else set()  # then nnU-Net has no names of classes
    assert theirs.labels.model_dump(exclude=by_regions) == ours.labels.model_dump(exclude=by_regions)
    assert theirs.labels.values == ours.labels.values
    assert theirs.network == ours.network.revised(heads=2)
    assert theirs.resampling == (Resampling() if name == "as stored" else ours.resampling)
    assert (back.record.mirror_axes, back.record.n_networks) == ((0, 1), networks)
    for number in range(networks):
        mine, returned = bundle.build(number=number).state_dict(), back.build(number=number).state_dict()
        assert all(torch.equal(value, returned[key]) for key, value in mine.items())


def test_a_disk_without_space_is_found_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = saved(tmp_path / "model", PLANS["anisotropic"])
    export_nnunet(bundle.folder, tmp_path / "theirs")
    monkeypatch.setattr(sizes, "free_disk_bytes", lambda _: 10)
    with pytest.raises(OutputError, match="are needed for the exported weights"):
        export_nnunet(bundle.folder, tmp_path / "more")
    with pytest.raises(OutputError, match="are needed for the model"):
        import_nnunet(tmp_path / "theirs", tmp_path / "back")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "theirs"]


def test_nnunets_files_say_the_same(tmp_path: Path) -> None:
    plan = PLANS["anisotropic"]
    saved(tmp_path / "model", plan)
    made = export_nnunet(tmp_path / "model", tmp_path / "theirs")
    plans = json.loads((tmp_path / "theirs" / "plans.json").read_text())
    assert plans["image_reader_writer"] == "NibabelIOWithReorient"
    assert (plans["transpose_forward"], plans["transpose_backward"]) == ([1, 0, 2], [1, 0, 2])
    assert plans["foreground_intensity_properties_per_channel"]["0"] == {
        "mean": 40,
        "std": 25,
        "percentile_00_5": -90,
        "percentile_99_5": 200,
    }
    configuration = plans["configurations"]["3d_fullres"]
    assert configuration["spacing"] == [4.0, 1.5, 1.25]
    assert configuration["normalization_schemes"] == ["CTNormalization", "ZScoreNormalization"]
    assert configuration["use_mask_for_norm"] == [False, True]
    assert configuration["resampling_fn_data_kwargs"] == {
        "is_seg": False,
        "order": 1,
        "order_z": 0,
        "force_separate_z": True,
        "separate_z_anisotropy_threshold": 2.5,
    }
    kwargs = configuration["architecture"]["arch_kwargs"]
    assert kwargs["n_conv_per_stage"] == [1, 2, 2]
    assert kwargs["n_conv_per_stage_decoder"] == [1, 2]  # nnU-Net begins at the coarsest
    assert kwargs["nonlin_kwargs"] == {"inplace": True, "negative_slope": 0.05}
    dataset = json.loads((tmp_path / "theirs" / "dataset.json").read_text())
    assert dataset["labels"] == {"background": 0, "c1": 1, "c2": 2}
    assert dataset["numTraining"] == 12
    assert dataset["overwrite_image_reader_writer"] == "NibabelIOWithReorient"
    assert made.command.startswith(f"nnUNetv2_predict_from_modelfolder -m {tmp_path / 'theirs'} -f 0 ")


def test_a_checkpoint_is_plain_and_whole(tmp_path: Path) -> None:
    saved(tmp_path / "model", PLANS["2d"], mirror_axes=())
    export_nnunet(tmp_path / "model", tmp_path / "theirs")
    checkpoint = torch.load(tmp_path / "theirs" / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert checkpoint["init_args"]["configuration"] == "2d"
    assert checkpoint["inference_allowed_mirroring_axes"] is None  # nnU-Net stumbles over an empty tuple
    weights = checkpoint["network_weights"]
    assert weights["decoder.seg_layers.0.weight"].count_nonzero() == 0  # a head that ours has not
    assert weights["decoder.seg_layers.1.weight"].count_nonzero() > 0
    size = (tmp_path / "theirs" / "fold_0" / "checkpoint_final.pth").stat().st_size
    ours = (tmp_path / "model" / "weights" / "2d.safetensors").stat().st_size
    assert size < 2 * ours + 100_000  # tensors with several names are stored once


def test_regions_and_the_ignore_label(tmp_path: Path) -> None:
    saved(tmp_path / "model", PLANS["regions"].revised(labels=NESTED))
    made = export_nnunet(tmp_path / "model", tmp_path / "theirs")
    dataset = json.loads((tmp_path / "theirs" / "dataset.json").read_text())
    assert list(dataset["labels"].items()) == [
        ("background", 0), ("whole", [1, 2]), ("inner", 2), ("ignore", 3),
    ]  # fmt: skip
    assert dataset["regions_class_order"] == [1, 2]
    back = import_nnunet(tmp_path / "theirs", tmp_path / "back").bundle.record.plan.labels
    assert (back.ignore, back.n_outputs) == (3, 2)
    assert "ignore label 7 is 3 in nnU-Net" in " ".join(made.notes)


def test_a_class_of_no_region_does_not_raise_the_ignore_label(tmp_path: Path) -> None:
    """nnU-Net loads a model only if its ignore label is one above the greatest value of its regions."""
    labels = NESTED.revised(classes=(*NESTED.classes, LabelClass(name="air", value=3), LabelClass(name="x", value=5)))
    saved(tmp_path / "model", PLANS["regions"].revised(labels=labels))
    made = export_nnunet(tmp_path / "model", tmp_path / "theirs")
    declared = json.loads((tmp_path / "theirs" / "dataset.json").read_text())["labels"]
    ignore = declared.pop("ignore")
    values = {v for value in declared.values() for v in (value if isinstance(value, list) else [value])}
    assert ignore == max(values) + 1 == 3
    assert "the ignore label 7 is 3 in nnU-Net, which requires the value after the exported classes" in made.notes
    assert import_nnunet(tmp_path / "theirs", tmp_path / "back").bundle.record.plan.labels.ignore == 3


@pytest.mark.parametrize("fills", [True, False])
def test_other_masks_of_single_slices_are_noted(tmp_path: Path, fills: bool) -> None:
    zscore = NORMALIZATIONS.settings({"name": "zscore", "nonzero_only": True})
    saved(tmp_path / "model", PLANS["2d"].revised(normalization=(zscore, zscore), fill_slice_holes=fills))
    made = export_nnunet(tmp_path / "model", tmp_path / "theirs")
    assert any("does not fill the holes" in note for note in made.notes) == fills


def test_images_without_a_spacing_are_noted(tmp_path: Path) -> None:
    saved(tmp_path / "model", PLANS["2d"].revised(spacing_unit="pixel"))
    made = export_nnunet(tmp_path / "model", tmp_path / "theirs")
    assert any("reads only NIfTI files: convert the images, with a spacing of 1" in note for note in made.notes)


def test_nnunet_does_not_flip_from_left_to_right_with_mirror_pairs(tmp_path: Path) -> None:
    sides = LabelSet.from_names(["left lung", "right lung"])
    plan = PLANS["2d"].revised(orientation="canonical", labels=sides, mirror_pairs=(("left lung", "right lung"),))
    assert plan.side_swap is not None
    saved(tmp_path / "model", plan, mirror_axes=(0, 1))
    made = export_nnunet(tmp_path / "model", tmp_path / "theirs")
    kept = tuple(axis for axis in (0, 1) if axis != plan.side_swap.axis)
    checkpoint = torch.load(tmp_path / "theirs" / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert (tuple(checkpoint["inference_allowed_mirroring_axes"]), made.mirror_axes) == (kept, kept)
    assert any("cannot swap the outputs of mirror pairs" in note for note in made.notes)


GAPS = LabelSet(classes=tuple(LabelClass(name=f"c{v}", value=v) for v in (0, 1, 4)))
SINGLES = NESTED.revised(regions=(Region(name="a", values=(1,)), Region(name="b", values=(2,))))
TAKEN = LabelSet.from_names(["ignore", "x"])
REFUSED = {
    "a foreground channel": (
        {"foreground_channel": True, "network": make_test_network(in_channels=2)},
        "has a foreground channel",
    ),
    "the recipe's order": ({"order": "recipe"}, "resampled, then normalised"),
    "gaps": ({"labels": GAPS}, r"values are 0, 1, 4"),
    "regions of one value": (
        {"labels": SINGLES, "network": make_test_network(out_channels=2)},
        "none of its regions has several values",
    ),
    "a great value": (
        {
            "labels": NESTED.revised(
                classes=(*NESTED.classes, LabelClass(name="x", value=300)), ignore=None, region_order=(300, 2),
                regions=(Region(name="whole", values=(1, 2, 300)), Region(name="inner", values=(2,))),
            ),
            "network": make_test_network(out_channels=2),
        },
        "written with the value 300",
    ),
    "names": ({"labels": TAKEN}, "called ignore, x"),
    "group norm": ({"network": make_test_network().revised(norm="group")}, "group norm"),
    "kernels of the decoder": (
        {"network": make_test_network().revised(decoder_kernels=((1, 3, 3),))},
        "decoder has other kernels",
    ),
    "no stem": ({"network": make_test_network().revised(block="residual", stem=False)}, "has no stem"),
    "strided shortcuts": (
        {"network": make_test_network().revised(block="residual", shortcut="strided")},
        "strided shortcuts",
    ),
    "a single voxel": ({"patch_size": (2, 2, 2)}, "a single voxel"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_nnunet_cannot_express_is_refused(tmp_path: Path, what: str) -> None:
    changes, said = REFUSED[what]
    saved(tmp_path / "model", make_test_plan(**changes))
    with pytest.raises(ModelError, match=said):
        export_nnunet(tmp_path / "model", tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_every_reason_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "model", make_test_plan(preprocessing_order="recipe", labels=GAPS))
    with pytest.raises(ModelError) as caught:
        export_nnunet(tmp_path / "model", tmp_path / "theirs")
    assert "resampled, then normalised" in str(caught.value)
    assert "values are" in str(caught.value)


def test_the_order_does_not_matter_where_nothing_is_resampled(tmp_path: Path) -> None:
    saved(tmp_path / "model", PLANS["as stored"].revised(preprocessing_order="recipe"))
    assert export_nnunet(tmp_path / "model", tmp_path / "theirs").folds == 1


def test_what_is_there_is_kept_or_refused(tmp_path: Path) -> None:
    first, other = (saved(tmp_path / name, PLANS[name]) for name in ("2d", "regions"))
    place = tmp_path / "theirs"
    export_nnunet(first.folder, place)
    before = (place / "plans.json").stat().st_mtime_ns
    export_nnunet(first.folder, place)
    assert (place / "plans.json").stat().st_mtime_ns == before
    with pytest.raises(OutputError, match="another model"):
        export_nnunet(other.folder, place)
    export_nnunet(other.folder, place, overwrite=True)
    assert "3d_fullres" in json.loads((place / "plans.json").read_text())["configurations"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(OutputError, match=r"not an exported nnU-Net model alone: it has no exported_from\.json"):
        export_nnunet(other.folder, tmp_path / "mine", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2d", "mine", "regions", "theirs"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("file", ["fold_0/checkpoint_final.pth", "plans.json"])
def test_a_damaged_export_is_noticed_and_written_again(
    tmp_path: Path, file: str, damage: Callable[[Path], None]
) -> None:
    model, place = saved(tmp_path / "model", PLANS["2d"]).folder, tmp_path / "theirs"
    export_nnunet(model, place)
    expected = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    damage(place / file)
    with pytest.raises(OutputError, match=rf"changed or damaged after the export: {file}\n  → use --overwrite"):
        export_nnunet(model, place)
    export_nnunet(model, place, overwrite=True)
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == expected


def test_an_export_whose_record_is_damaged_is_written_again(tmp_path: Path) -> None:
    model, place = saved(tmp_path / "model", PLANS["2d"]).folder, tmp_path / "theirs"
    export_nnunet(model, place)
    expected = (place / "exported_from.json").read_bytes()
    truncate(place / "exported_from.json")
    with pytest.raises(OutputError, match="use --overwrite"):
        export_nnunet(model, place)
    export_nnunet(model, place, overwrite=True)
    assert (place / "exported_from.json").read_bytes() == expected


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_export_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    """A model that nnU-Net trained, and an export beside which somebody keeps results."""
    model, other = (saved(tmp_path / name, PLANS[name]).folder for name in ("2d", "regions"))
    for place, changed in ((tmp_path / "a", "exported_from.json"), (tmp_path / "b", "results/case.nii.gz")):
        export_nnunet(model, place)
        if (place / changed).exists():
            (place / changed).unlink()
        else:
            (place / changed).parent.mkdir()
            (place / changed).write_text("x")
        before = sorted(place.rglob("*"))
        with pytest.raises(OutputError, match=f"not an exported nnU-Net model alone: it .*{changed}"):
            export_nnunet(other, place, overwrite=overwrite)
        assert sorted(place.rglob("*")) == before


def test_the_command_says_how_to_go_on(tmp_path: Path) -> None:
    saved(tmp_path / "model", PLANS["anisotropic"], networks=2)
    given = ["export", "nnunet", str(tmp_path / "model"), "--output", str(tmp_path / "theirs")]
    said = CliRunner().invoke(app, given).output
    assert f"nnUNetv2_predict_from_modelfolder -m {tmp_path / 'theirs'} -f 0 1 -i" in said
    assert "NibabelIOWithReorient" in said


def test_a_folder_with_a_space_is_quoted_in_the_command(tmp_path: Path) -> None:
    saved(tmp_path / "model", PLANS["2d"])
    made = export_nnunet(tmp_path / "model", tmp_path / "my model")
    assert shlex.split(made.command)[1:3] == ["-m", str(tmp_path / "my model")]


def test_members_of_one_plan_become_folds_and_what_nnunet_lacks_is_noted(tmp_path: Path) -> None:
    models = [saved(tmp_path / name, PLANS["2d"], networks=n).folder for name, n in (("a", 2), ("b", 1))]
    step = PostprocessingStep(name="fill_holes")
    combine_bundles(models, tmp_path / "both", temperature=1.5, postprocessing=[step])
    made = export_nnunet(tmp_path / "both", tmp_path / "theirs")
    assert made.folds == 3
    assert sorted(path.name for path in (tmp_path / "theirs").glob("fold_*")) == ["fold_0", "fold_1", "fold_2"]
    assert any("temperature 1.5 is left out" in note for note in made.notes)
    assert any("post-processing is left out" in note for note in made.notes)
    assert json.loads((tmp_path / "theirs" / "dataset.json").read_text())["numTraining"] == 12


def test_members_with_different_plans_are_not_exported(tmp_path: Path) -> None:
    models = [saved(tmp_path / name, PLANS[name]).folder for name in ("2d", "anisotropic")]
    combine_bundles(models, tmp_path / "both")
    with pytest.raises(ModelError, match="members with different plans"):
        export_nnunet(tmp_path / "both", tmp_path / "theirs")
