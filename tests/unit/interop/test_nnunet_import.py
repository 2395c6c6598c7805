"""Importing nnU-Net v2 models: what is taken, what is refused and why, and files that are made to harm."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_fill_holes
from typer.testing import CliRunner

from cli_support import run_command
from decathlete.cli.main import app
from decathlete.core.geometry import Geometry
from decathlete.errors import ArchiveError, DecathleteError, ModelError, OptionError, OutputError
from decathlete.interop.nnunet import import_nnunet
from decathlete.interop.nnunet_weights import convert_to_nnunet
from decathlete.io.volumes import Image
from decathlete.models.bundle import ModelBundle
from decathlete.networks.build import build_network
from decathlete.preprocessing.normalizations.ct import CtSettings
from decathlete.preprocessing.prepare import prepare

GOLDEN = Path(__file__).parents[2] / "reference" / "golden" / "nnunet"


def _model(tmp_path: Path, case: str = "plain_3d") -> Path:
    """A copy of a model of nnU-Net, to be changed."""
    (source,) = (GOLDEN / case).glob("Dataset*/*")
    target = tmp_path / "results" / source.parent.name / source.name
    shutil.copytree(source, target)
    return target


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _configured(model: Path, **changes: Any) -> None:
    def change(plans: dict[str, Any]) -> None:
        (configuration,) = plans["configurations"].values()
        configuration.update(changes)

    _edit(model / "plans.json", change)


def _packed(model: Path, archive: Path) -> Path:
    """As nnU-Net exports it: paths below its results folder."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path in model.rglob("*"):
            zipped.write(path, path.relative_to(model.parents[1]))
    return archive


def test_the_plan_says_what_nnunets_says(tmp_path: Path) -> None:
    made = import_nnunet(_model(tmp_path), tmp_path / "out")
    plan = made.bundle.record.plan
    theirs = json.loads((_model(tmp_path / "again") / "plans.json").read_text())
    (configuration,) = theirs["configurations"].values()
    intensities = theirs["foreground_intensity_properties_per_channel"]["0"]
    assert plan.dataset == "Dataset900_Phantom"
    assert plan.orientation == "stored"
    assert plan.axis_order == (1, 0, 2)
    assert plan.target_spacing == tuple(configuration["spacing"])
    assert plan.patch_size == (16, 16, 24)
    assert plan.normalization == (
        CtSettings(
            mean=intensities["mean"],
            std=intensities["std"],
            clip_low=intensities["percentile_00_5"],
            clip_high=intensities["percentile_99_5"],
        ),
    )
    assert plan.network.decoder_convs == (2, 1)  # nnU-Net counts from the coarsest
    assert [c.name for c in plan.labels.foreground] == ["outer", "middle", "inner"]
    assert plan.training_ranges.spacing[0].low == plan.training_ranges.spacing[0].high == 1.5  # transposed
    assert made.bundle.record.mirror_axes == (0, 1, 2)
    assert made.bundle.record.n_networks == 2
    assert made.folds == ("0", "1")
    assert made.bundle.record.training_provenance["trainer"] == "nnUNetTrainer"


def test_regions_keep_their_order(tmp_path: Path) -> None:
    labels = import_nnunet(_model(tmp_path, "residual_regions"), tmp_path / "out").bundle.record.plan.labels
    assert [(region.name, region.values) for region in labels.regions] == [
        ("whole", (1, 2, 3)),
        ("core", (2, 3)),
        ("enhancing", (3,)),
    ]
    assert labels.region_order == (1, 2, 3)


def test_regions_that_cannot_be_read_back_are_still_predicted(tmp_path: Path) -> None:
    model = _model(tmp_path, "residual_regions")
    _edit(model / "dataset.json", lambda dataset: dataset.update(regions_class_order=[3, 2, 1]))
    assert import_nnunet(model, tmp_path / "out").bundle.record.plan.labels.region_order == (3, 2, 1)


def test_nothing_is_resampled_where_nnunet_does_not(tmp_path: Path) -> None:
    plan = import_nnunet(_model(tmp_path, "residual_2d_batch_norm"), tmp_path / "out").bundle.record.plan
    assert plan.target((3.0, 0.5, 0.4)) == (3.0, 0.5, 0.4)
    assert plan.network.norm == "batch"  # nnUNetTrainerBN's, not that of the plans
    assert plan.axes(Geometry.plain((3, 4, 5))).permutation == (0, 1, 2)


def _normalized_by_nnunet(image_CZYX: np.ndarray) -> np.ndarray:
    """As nnU-Net's DefaultPreprocessor crops and normalises with ``use_mask_for_norm``."""
    mask = binary_fill_holes((image_CZYX != 0).any(axis=0))
    box = tuple(slice(places.min(), places.max() + 1) for places in np.nonzero(mask))
    mask, out = mask[box], image_CZYX[(slice(None), *box)].copy()
    for channel in out:
        channel[mask] = (channel[mask] - channel[mask].mean()) / max(channel[mask].std(), 1e-8)
    return out


@pytest.mark.parametrize("slices", [1, 3])
def test_holes_are_masked_as_nnunet_masks_them(slices: int, tmp_path: Path) -> None:
    """One slice of the image is not zero, and it has a hole, which nnU-Net does not fill."""
    model = _model(tmp_path, "residual_2d_batch_norm")
    n_channels = len(json.loads((model / "dataset.json").read_text())["channel_names"])
    schemes, masks = ["ZScoreNormalization"] * n_channels, [True] * n_channels
    _configured(model, normalization_schemes=schemes, use_mask_for_norm=masks)
    plan = import_nnunet(model, tmp_path / "out").bundle.record.plan
    image = np.zeros((n_channels, slices, 16, 18), np.float32)
    image[:, slices // 2, 2:14, 3:15] = np.random.default_rng(0).normal(100, 10, (n_channels, 12, 12))
    image[:, slices // 2, 6:9, 6:9] = 0
    prepared = prepare(Image(array_CZYX=image, geometry=Geometry.plain(image.shape[1:])), plan).image_CZYX
    np.testing.assert_allclose(prepared, _normalized_by_nnunet(image), atol=1e-4)
    assert not prepared[:, 0, 4:7, 3:6].any()


def test_a_model_without_masks_has_no_rule_about_holes(tmp_path: Path) -> None:
    plan = import_nnunet(_model(tmp_path), tmp_path / "out").bundle.record.plan
    assert plan.fill_slice_holes
    assert "fill_slice_holes" not in plan.model_dump()


def test_a_zip_file_gives_the_same_model_as_its_folder(tmp_path: Path) -> None:
    model = _model(tmp_path)
    folder = import_nnunet(model, tmp_path / "a").bundle
    archive = import_nnunet(_packed(model, tmp_path / "model.zip"), tmp_path / "b").bundle
    assert archive.record == folder.record
    assert archive.digest == folder.digest


def test_a_folder_above_is_searched_and_several_models_need_a_choice(tmp_path: Path) -> None:
    first = _model(tmp_path)
    second = first.with_name("nnUNetTrainer__nnUNetPlans__other")
    shutil.copytree(first, second)
    with pytest.raises(
        ModelError, match=r"contains 2 models: .*3d_fullres, .*other\n  → choose one with --configuration"
    ):
        import_nnunet(tmp_path / "results", tmp_path / "out")
    made = import_nnunet(tmp_path / "results", tmp_path / "out", configuration="3d_fullres")
    assert made.bundle.record.training_provenance["configuration"] == "3d_fullres"
    with pytest.raises(ModelError, match="choose --configuration among 3d_fullres, other"):
        import_nnunet(tmp_path / "results", tmp_path / "out2", configuration="2d")


def test_a_folder_that_was_renamed_is_of_the_configuration_that_its_checkpoint_says(tmp_path: Path) -> None:
    model = _model(tmp_path)
    renamed = model.rename(model.with_name("liver"))
    made = import_nnunet(renamed, tmp_path / "out", configuration="3d_fullres")
    assert made.bundle.record.training_provenance["configuration"] == "3d_fullres"
    with pytest.raises(ModelError, match="is of configuration 3d_fullres, not 2d"):
        import_nnunet(renamed, tmp_path / "out2", configuration="2d")


def test_a_folder_that_may_not_be_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _model(tmp_path)
    (tmp_path / "results" / "Closed").mkdir()
    listed = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder.name == "Closed":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert import_nnunet(tmp_path / "results", tmp_path / "out").folds == ("0", "1")


def test_folds_and_checkpoints_can_be_chosen(tmp_path: Path) -> None:
    model = _model(tmp_path)
    shutil.copytree(model / "fold_0", model / "fold_all")
    shutil.copy(model / "fold_1" / "checkpoint_final.pth", model / "fold_1" / "checkpoint_best.pth")
    both = import_nnunet(model, tmp_path / "both").bundle
    one = import_nnunet(model, tmp_path / "one", folds=[1]).bundle
    assert one.record.n_networks == 1
    name = "encoder.0.0.conv.weight"
    assert torch.equal(one.build().state_dict()[name], both.build(number=1).state_dict()[name])
    best = import_nnunet(model, tmp_path / "best", weights="best")
    assert best.folds == ("1",)
    assert best.bundle.record.weights == "best"
    assert import_nnunet(model, tmp_path / "all", folds=["all"]).folds == ("all",)
    with pytest.raises(
        ModelError, match=r"in fold_7\n  → choose --folds among 0, 1, all, or leave it out for every fold"
    ):
        import_nnunet(model, tmp_path / "none", folds=[7])
    with pytest.raises(ModelError, match="in every one of the folds 0, 7"):
        import_nnunet(model, tmp_path / "none", folds=[0, 7])
    with pytest.raises(OptionError, match="fold 1 is named twice"):
        import_nnunet(model, tmp_path / "none", folds=[1, "1"])


def test_fold_all_is_the_network_trained_on_all_cases(tmp_path: Path) -> None:
    model = _model(tmp_path)
    shutil.copytree(model / "fold_1", model / "fold_all")
    every = import_nnunet(model, tmp_path / "every")
    assert every.folds == ("0", "1")
    assert "fold_all, the network trained on all cases, is not imported: use --folds all" in every.notes[0]
    given = ["import", "nnunet", str(model), "--output", str(tmp_path / "all"), "--folds", "all"]
    said = CliRunner().invoke(app, given).output
    assert "fold_all (trained on all cases), in" in said
    assert "folds 0, 1 are not imported" in said
    alone, name = ModelBundle.load(tmp_path / "all"), "encoder.0.0.conv.weight"
    assert alone.record.n_networks == 1
    assert torch.equal(alone.build().state_dict()[name], every.bundle.build(number=1).state_dict()[name])
    for fold in ("fold_0", "fold_1"):
        shutil.rmtree(model / fold)
    assert import_nnunet(model, tmp_path / "only").folds == ("all",)


def test_a_copy_of_a_fold_is_not_averaged(tmp_path: Path) -> None:
    model = _model(tmp_path)
    shutil.copytree(model / "fold_0", model / "fold_0_old")
    made = import_nnunet(model, tmp_path / "out")
    assert made.folds == ("0", "1")
    assert "folds 0_old are not imported" in made.notes[0]


@pytest.mark.parametrize("folds", ["", "-1", "4-0", "0,,1", "every"])
def test_folds_that_are_no_list_are_rejected(folds: str, tmp_path: Path) -> None:
    said = run_command("import", "nnunet", str(GOLDEN / "plain_3d"), "-o", str(tmp_path / "out"), f"--folds={folds}")
    assert said.code == 2
    assert f"--folds {folds!r} is not a list of nnU-Net's folds" in said.err
    assert not (tmp_path / "out").exists()


def test_a_range_of_folds(tmp_path: Path) -> None:
    said = run_command("import", "nnunet", str(GOLDEN / "plain_3d"), "-o", str(tmp_path / "out"), "--folds", "0-1")
    assert "fold 0, 1, in" in said.out


def test_the_best_checkpoints_where_there_are_no_others(tmp_path: Path) -> None:
    model = _model(tmp_path)
    for fold in model.glob("fold_*"):
        (fold / "checkpoint_final.pth").rename(fold / "checkpoint_best.pth")
    assert import_nnunet(model, tmp_path / "out").bundle.record.weights == "best"


def test_plans_of_older_versions_say_the_same(tmp_path: Path) -> None:
    model = _model(tmp_path)
    new = import_nnunet(model, tmp_path / "new", folds=[0]).bundle.record.plan.network
    spec = new.revised(features=(3, 6, 6))  # older plans double, up to a greatest number

    def older(plans: dict[str, Any]) -> None:
        (configuration,) = plans["configurations"].values()
        kwargs = configuration.pop("architecture")["arch_kwargs"]
        configuration |= {
            "UNet_class_name": "PlainConvUNet",
            "UNet_base_num_features": 3,
            "unet_max_num_features": 6,
            "n_conv_per_stage_encoder": kwargs["n_conv_per_stage"],
            "n_conv_per_stage_decoder": kwargs["n_conv_per_stage_decoder"],
            "conv_kernel_sizes": kwargs["kernel_sizes"],
            "pool_op_kernel_sizes": kwargs["strides"],
        }
        parent = {key: configuration.pop(key) for key in ("batch_size", "spacing")}
        plans["configurations"]["parent"] = parent
        configuration["inherits_from"] = "parent"

    _edit(model / "plans.json", older)
    path, network = model / "fold_0" / "checkpoint_final.pth", build_network(spec, seed=0)
    content = torch.load(path, weights_only=False)
    torch.save(content | {"network_weights": convert_to_nnunet(network.state_dict(), spec)}, path)
    old = import_nnunet(model, tmp_path / "old", folds=[0]).bundle
    assert old.record.plan.network == spec
    assert torch.equal(old.build().state_dict()["heads.0.weight"], network.state_dict()["heads.0.weight"])


def _resampled(**kwargs: Any) -> dict[str, Any]:
    """Images and predictions alike."""
    return {f"resampling_fn_{what}_kwargs": kwargs for what in ("data", "probabilities")}


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "cascade": ("plain_3d", {"previous_stage": "3d_lowres"}, "second stage of a cascade"),
    "low resolution": ("plain_3d", {"next_stage": "3d_cascade_fullres"}, "is the first stage of a cascade"),
    "preprocessor": ("plain_3d", {"preprocessor_name": "MyPreprocessor"}, "only DefaultPreprocessor is supported"),
    "normalisation": (
        "plain_3d",
        {"normalization_schemes": ["MyNorm"]},
        "normalisation of channel 0, MyNorm, is not supported",
    ),
    "resampling": ("plain_3d", {"resampling_fn_data": "my_fn"}, "resampling of images by my_fn"),
    "rules": (
        "plain_3d",
        {"resampling_fn_probabilities_kwargs": {"order": 1, "force_separate_z": True}},
        "images and predictions are resampled by different rules",
    ),
    "order_z": ("plain_3d", {"resampling_fn_data_kwargs": {"order_z": 1, "force_separate_z": None}}, "of order 1"),
    "a threshold of 1": (
        "plain_3d",
        _resampled(order=1, separate_z_anisotropy_threshold=1),
        "separate_ratio: Input should be greater than 1",
    ),
    "no threshold": (
        "plain_3d",
        _resampled(order=1, separate_z_anisotropy_threshold=None),
        "separate_ratio",
    ),
    "no spacing": ("plain_3d", {"spacing": [1.0, float("nan"), 1.0]}, "spacing.1: Input should be a finite number"),
    "no parent": ("plain_3d", {"inherits_from": ["3d_fullres"]}, "does not exist"),
    "order": ("plain_3d", {"resampling_fn_data_kwargs": {"order": 5, "force_separate_z": None}}, "of order 5"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_decathlete_has_not_is_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    case, changes, reason = REFUSED[kind]
    model = _model(tmp_path, case)
    _configured(model, **changes)
    with pytest.raises(ModelError, match=reason):
        import_nnunet(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


ARCHITECTURES: dict[str, tuple[dict[str, Any], str]] = {
    "bottleneck": ({"block": "dynamic_network_architectures.building_blocks.residual.BottleneckD"}, "BottleneckD"),
    "nonlinearity": ({"nonlin": "torch.nn.GELU"}, r"the nonlinearity is torch\.nn\.GELU"),
    "order of layers": ({"nonlin_first": True}, "before the norm"),
    "norm": ({"norm_op": "torch.nn.GroupNorm"}, "only instance and batch norm"),
    "eps": ({"norm_op_kwargs": {"affine": True, "eps": 1e-3}}, "eps of 1e-5"),
    "stem": ({"stem_channels": 5}, "the stem has 5 channels"),
    "even kernels": ({"kernel_sizes": [2, 2, 2]}, "kernels must be odd"),
    "slope": ({"nonlin_kwargs": {"negative_slope": "steep"}}, "negative_slope: Input should be a valid number"),
    "no blocks": ({"n_blocks_per_stage": None}, "must be 1 or more"),
    "unknown entry": ({"squeeze_excitation": True}, "squeeze_excitation: Extra inputs are not permitted"),
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_other_networks_are_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    changes, reason = ARCHITECTURES[kind]
    model = _model(tmp_path, "residual_regions")

    def change(plans: dict[str, Any]) -> None:
        (configuration,) = plans["configurations"].values()
        configuration["architecture"]["arch_kwargs"].update(changes)

    _edit(model / "plans.json", change)
    with pytest.raises(ModelError, match=reason):
        import_nnunet(model, tmp_path / "out")


def test_the_ignore_label_is_imported(tmp_path: Path) -> None:
    model = _model(tmp_path)
    labels = json.loads((model / "dataset.json").read_text())["labels"]
    _edit(model / "dataset.json", lambda dataset: dataset["labels"].update(ignore=len(labels)))
    imported = import_nnunet(model, tmp_path / "out").bundle.record.plan.labels
    assert (imported.ignore, imported.n_classes) == (len(labels), len(labels))


def test_all_reasons_are_said_together(tmp_path: Path) -> None:
    model = _model(tmp_path)
    _configured(model, previous_stage="3d_lowres", normalization_schemes=["MyNorm"])
    _edit(model / "plans.json", lambda plans: plans.update(image_reader_writer="Tiff3DIO"))
    with pytest.raises(ModelError) as error:
        import_nnunet(model, tmp_path / "out")
    said = str(error.value)
    assert all(reason in said for reason in ("cascade", "MyNorm", "Tiff3DIO", "nnUNetv2_predict"))


@pytest.mark.parametrize(("mean", "std"), [(float("nan"), 1.0), (0.0, -1.0)])
def test_intensities_that_are_no_numbers_are_refused(mean: float, std: float, tmp_path: Path) -> None:
    model = _model(tmp_path)
    channels = {"0": {"mean": mean, "std": std, "percentile_00_5": 0.0, "percentile_99_5": 1.0}}
    _edit(model / "plans.json", lambda plans: plans.update(foreground_intensity_properties_per_channel=channels))
    with pytest.raises(ModelError, match="channel 0, CTNormalization, has no intensities in the plans"):
        import_nnunet(model, tmp_path / "out")


def test_labels_that_do_not_follow_each_other_are_refused(tmp_path: Path) -> None:
    model = _model(tmp_path)
    _edit(model / "dataset.json", lambda dataset: dataset["labels"].update(inner=7))
    with pytest.raises(ModelError, match="consecutive values only"):
        import_nnunet(model, tmp_path / "out")


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    model, other = _model(tmp_path), _model(tmp_path, "residual_regions")
    shutil.copy(other / "fold_0" / "checkpoint_final.pth", model / "fold_1" / "checkpoint_final.pth")
    with pytest.raises(ModelError, match=r"fold_1/checkpoint_final\.pth: does not fit the network of the plans"):
        import_nnunet(model, tmp_path / "out")


@pytest.mark.parametrize("file", ["plans.json", "dataset.json"])
@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_damaged_files_are_named(file: str, content: str, tmp_path: Path) -> None:
    model = _model(tmp_path)
    (model / file).write_text(content)
    with pytest.raises(ModelError, match=file.replace(".", r"\.")):
        import_nnunet(model, tmp_path / "out")


class Evil:
    """Pickled, it runs a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


def test_pickled_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(tmp_path)
    monkeypatch.chdir(tmp_path)
    torch.save({"network_weights": {}, "init_args": Evil()}, model / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(ModelError, match=rf"{os.system.__module__}\.system"):
        import_nnunet(model, tmp_path / "out")
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "out").exists()


def test_a_compressed_checkpoint_is_refused(tmp_path: Path) -> None:
    model = _model(tmp_path)
    path = model / "fold_0" / "checkpoint_final.pth"
    with zipfile.ZipFile(path) as plain:
        members = {name: plain.read(name) for name in plain.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    with pytest.raises(ModelError, match="compressed inside"):
        import_nnunet(model, tmp_path / "out")


def test_a_checkpoint_that_only_torch_takes_for_a_zip_file_is_refused(tmp_path: Path) -> None:
    """Python refuses its version, torch does not look at it: nobody would have looked for compression."""
    model = _model(tmp_path)
    path = model / "fold_0" / "checkpoint_final.pth"
    content = bytearray(path.read_bytes())
    content[content.rfind(b"PK\x01\x02") + 6] = 99  # needed to unpack, in the list at the end
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is not a checkpoint, or is damaged"):
        import_nnunet(model, tmp_path / "out")


def test_problems_inside_a_zip_file_name_the_zip_file(tmp_path: Path) -> None:
    model = _model(tmp_path)
    (model / "plans.json").write_text("{")
    archive = _packed(model, tmp_path / "model.zip")
    with pytest.raises(ModelError) as caught:
        import_nnunet(archive, tmp_path / "out")
    assert str(caught.value).startswith(f"{archive / model.relative_to(tmp_path / 'results') / 'plans.json'}: ")


def test_a_hostile_archive_is_refused(tmp_path: Path) -> None:
    archive = _packed(_model(tmp_path), tmp_path / "model.zip")
    with zipfile.ZipFile(archive, "a") as zipped:
        zipped.writestr("../../evil.json", "{}")
    with pytest.raises(ArchiveError, match="leaves its folder"):
        import_nnunet(archive, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.zip", "results"]


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    archive = _packed(_model(tmp_path), tmp_path / "model.zip")
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("x/fold_0/checkpoint_final.pth", bytes(2**26))
    with pytest.raises(ArchiveError, match="would unpack to more than"):
        import_nnunet(archive, tmp_path / "out")


def test_postprocessing_is_noted_and_never_unpickled(tmp_path: Path) -> None:
    model = _model(tmp_path)
    folder = model / "crossval_results_folds_0_1"
    folder.mkdir()
    (folder / "postprocessing.pkl").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    made = import_nnunet(model, tmp_path / "a")
    assert "postprocessing.pkl is not read" in made.notes[0]
    settings = {"postprocessing_fns": ["remove_all_but_largest_component"], "postprocessing_kwargs": [{"labels": [1]}]}
    (folder / "postprocessing.json").write_text(json.dumps(settings | {"input_folder": {"folder": "/home/someone"}}))
    made = import_nnunet(model, tmp_path / "b")
    assert made.bundle.record.training_provenance["postprocessing"] == settings
    assert "not applied" in made.notes[0]


def test_a_trainer_of_someone_elses_is_noted(tmp_path: Path) -> None:
    model = _model(tmp_path)
    for path in model.glob("fold_*/*.pth"):
        content = torch.load(path, weights_only=False)
        torch.save(content | {"trainer_name": "MyTrainer"}, path)
    assert "MyTrainer" in import_nnunet(model, tmp_path / "out").notes[0]


def test_what_is_in_the_way_is_kept(tmp_path: Path) -> None:
    first = import_nnunet(_model(tmp_path), tmp_path / "out").bundle
    with pytest.raises(OutputError, match="already exists"):
        import_nnunet(GOLDEN / "plain_2d", tmp_path / "out")
    assert ModelBundle.load(tmp_path / "out").digest == first.digest
    assert import_nnunet(GOLDEN / "plain_2d", tmp_path / "out", overwrite=True).bundle.digest != first.digest
    model = _model(tmp_path / "again")
    with pytest.raises(OutputError, match="no model"):
        import_nnunet(model, model, overwrite=True)
    assert (model / "fold_0" / "checkpoint_final.pth").is_file()


@pytest.mark.parametrize("source", ["nothing", "empty"])
def test_no_model(source: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DecathleteError, match=r"does not exist|contains no model of nnU-Net v2"):
        import_nnunet(tmp_path / source, tmp_path / "out")


def test_the_command(tmp_path: Path) -> None:
    arguments = ["import", "nnunet", str(GOLDEN / "plain_3d"), "--output", str(tmp_path / "out"), "--folds", "1"]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.output
    assert "3D model of Dataset900_Phantom, fold 1, in" in said.output
    assert ModelBundle.load(tmp_path / "out").record.n_networks == 1
