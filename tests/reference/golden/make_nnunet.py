"""Makes the golden values in ``nnunet/``: small models in nnU-Net v2's own form, and what nnU-Net predicts with them.

Run it where nnunetv2 is installed (``make peers``), for all cases or those that are named:
``.venv-peers/bin/python tests/reference/golden/make_nnunet.py plain_2d``. Each model learns its phantom for some
seconds, so that it segments something; everything is preprocessed and predicted by nnunetv2 itself. The tests that read
the result need neither it nor this file.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.update(dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), "/nonexistent"))

import nibabel
import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import nnUNetTrainerBN
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy import ndimage

FOLDER = Path(__file__).parent / "nnunet"
TRAINERS = {"nnUNetTrainer": nnUNetTrainer, "nnUNetTrainerBN": nnUNetTrainerBN}
STEPS = 150
_DEFAULT = ("resample_data_or_seg_to_shape", {"order_z": 0, "force_separate_z": None})
_TORCH = ("resample_torch_fornnunet", {"force_separate_z": None, "memefficient_seg_resampling": False})
_NONE = ("no_resampling_hack", None)
_HALVED = ((1, 1, 1), (2, 2, 2), (2, 2, 2))
_FLAT = {"kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)), "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2))}
_EVERY_AXIS = (0, 1, 2)

CASES = {
    # Cropped, resampled, axes transposed, stored orientation, CT, two folds, more windows than one along each axis.
    "plain_3d": {
        "shape": (34, 30, 38),
        "spacing": (1.2, 1.5, 0.9),
        "margin": 4,
        "target": (1.4, 1.1, 1.0),
        "transpose": (1, 0, 2),
        "patch": (16, 16, 24),
        "schemes": ("CTNormalization",),
        "strides": _HALVED,
        "mirror": _EVERY_AXIS,
        "folds": (0, 1),
    },
    # Anisotropic, oblique and flipped, reoriented; two channels normalised inside the object; no biases.
    "anisotropic_3d": {
        "shape": (12, 40, 36),
        "spacing": (5.0, 1.0, 1.2),
        "margin": 3,
        "target": (4.0, 1.3, 1.3),
        "reader": "NibabelIOWithReorient",
        "turned": True,
        "patch": (8, 24, 16),
        "schemes": ("ZScoreNormalization", "ZScoreNormalization"),
        "masked": True,
        **_FLAT,
        "mirror": (1, 2),
        "conv_bias": False,
    },
    # Slices across the last axis of the file.
    "plain_2d": {
        "shape": (34, 40, 12),
        "spacing": (1.0, 1.2, 2.0),
        "margin": 0,
        "target": (1.1, 1.1),
        "transpose": (2, 0, 1),
        "patch": (24, 24),
        "schemes": ("RescaleTo01Normalization", "NoNormalization"),
        "steps": 400,
        "strides": ((1, 1), (2, 2), (2, 2)),
        "mirror": (0, 1),
    },
    # Overlapping regions, a residual encoder, nnU-Net's resampling with torch.
    "residual_regions": {
        "shape": (30, 28, 32),
        "spacing": (1.2, 1.2, 1.2),
        "margin": 2,
        "target": (1.0, 1.1, 1.3),
        "reader": "NibabelIO",
        "turned": True,
        "patch": (16, 24, 16),
        "schemes": ("ZScoreNormalization",),
        "blocks": (1, 2, 2),
        "strides": _HALVED,
        "resampling": _TORCH,
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
        "order": (1, 2, 3),
        "mirror": _EVERY_AXIS,
        "steps": 400,
    },
    # Coarse along another axis than the grid of the network: slices are taken apart along one axis, and put together
    # along another.
    "two_anisotropies": {
        "shape": (36, 10, 32),
        "spacing": (1.0, 5.0, 1.1),
        "margin": 1,
        "target": (4.0, 1.2, 1.2),
        "patch": (8, 24, 16),
        "schemes": ("ZScoreNormalization",),
        **_FLAT,
        "mirror": _EVERY_AXIS,
    },
    # Batch norm, 2D residual encoder, colours, nothing resampled.
    "residual_2d_batch_norm": {
        "shape": (6, 40, 44),
        "spacing": (3.0, 1.0, 1.0),
        "margin": 0,
        "target": (0.7, 0.7),
        "reader": "NibabelIO",
        "patch": (32, 24),
        "schemes": ("RGBTo01Normalization",) * 3,
        "blocks": (1, 1, 2),
        "strides": ((1, 1), (2, 2), (2, 2)),
        "resampling": _NONE,
        "trainer": "nnUNetTrainerBN",
        "mirror": None,
    },
}


def main() -> None:
    chosen = sys.argv[1:] or list(CASES)
    torch.set_num_threads(1)
    for seed, (name, case) in enumerate(CASES.items()):
        if name in chosen:
            shutil.rmtree(FOLDER / name, ignore_errors=True)
            make(FOLDER / name, case, seed)


def make(folder: Path, case: dict, seed: int) -> None:
    configuration = "2d" if len(case["patch"]) == 2 else "3d_fullres"
    trainer = case.get("trainer", "nnUNetTrainer")
    model = folder / f"Dataset{900 + seed}_Phantom" / f"{trainer}__nnUNetPlans__{configuration}"
    images, label = phantom(folder / "images", case, seed)
    plans, dataset = plans_of(case, configuration, images, seed), dataset_of(case)
    model.mkdir(parents=True)
    for file, content in (
        ("plans", plans),
        ("dataset", dataset),
        ("dataset_fingerprint", fingerprint_of(plans, images)),
    ):
        (model / f"{file}.json").write_text(json.dumps(content, indent=1))
    manager = PlansManager(json.loads(json.dumps(plans)))
    weights = [
        learn(model, fold, configuration, manager, dataset, case, images, label, seed)
        for fold in case.get("folds", (0,))
    ]
    label.unlink()
    for mirrored in (False, True):
        predict(folder, manager, configuration, dataset, case, weights, images, mirrored=mirrored)


def phantom(folder: Path, case: dict, seed: int) -> tuple[list[Path], Path]:
    """Nested ellipsoids in noise, 0 in a margin; written in the file's order of axes (x, y, z)."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    shape = case["shape"]
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    centre = rng.uniform(-0.2, 0.2, (3, 1, 1, 1))
    radius = np.sqrt((((grid - centre) / np.array([0.9, 0.8, 0.75]).reshape(3, 1, 1, 1)) ** 2).sum(0))
    radius += ndimage.gaussian_filter(rng.normal(size=shape), 3) * 0.8
    label = sum((radius < r).astype(np.uint8) for r in (0.85, 0.6, 0.35))
    margin = case["margin"]
    inside = np.zeros(shape, bool)
    inside[tuple(slice(min(margin, n // 4), n - min(margin, n // 4)) for n in shape)] = True
    label[~inside] = 0
    affine = affine_of(case)
    paths = []
    for channel in range(len(case["schemes"])):
        levels = rng.permutation([40, 90, 140, 190])
        image = levels[label] + 12 * ndimage.gaussian_filter(rng.normal(size=shape), 0.6)
        image = np.clip(np.round(image), 1, 255)
        image[~inside] = 0
        paths.append(folder / f"case_{channel:04d}.nii.gz")
        save(paths[-1], image.astype(np.uint8), affine)
    truth = folder / "label.nii.gz"
    save(truth, label, affine)
    return paths, truth


def affine_of(case: dict) -> np.ndarray:
    affine = np.diag([*case["spacing"][::-1], 1.0])
    if case.get("turned"):
        a = np.deg2rad(12)
        turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        affine[:3, :3] = turn @ np.array([[0, -1, 0], [0, 0, 1], [1, 0, 0]]) @ affine[:3, :3]
        affine[:3, 3] = (-20, 14, 5)
    return affine


def save(path: Path, array_ZYX: np.ndarray, affine: np.ndarray) -> None:
    image = nibabel.Nifti1Image(array_ZYX.transpose(2, 1, 0), affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nibabel.save(image, path)


def dataset_of(case: dict) -> dict:
    dataset = {
        "channel_names": {str(i): f"channel {i}" for i in range(len(case["schemes"]))},
        "labels": case.get("labels", {"background": 0, "outer": 1, "middle": 2, "inner": 3}),
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    return dataset | ({"regions_class_order": list(case["order"])} if "order" in case else {})


def fingerprint_of(plans: dict, images: list[Path]) -> dict:
    image, properties = PlansManager(plans).image_reader_writer_class().read_images([str(p) for p in images])
    return {"spacings": [properties["spacing"]], "shapes_after_crop": [crop_to_nonzero(image)[0].shape[1:]]}


def plans_of(case: dict, configuration: str, images: list[Path], seed: int) -> dict:
    forward = list(case.get("transpose", (0, 1, 2)))
    arrays = [np.asarray(nibabel.load(path).dataobj, np.float32) for path in images]
    intensities = {
        str(i): {
            "mean": float(a[a > 0].mean()),
            "std": float(a[a > 0].std()),
            "percentile_00_5": float(np.percentile(a[a > 0], 0.5)),
            "percentile_99_5": float(np.percentile(a[a > 0], 99.5)),
        }
        for i, a in enumerate(arrays)
    }
    return {
        "dataset_name": f"Dataset{900 + seed}_Phantom",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [case["spacing"][i] for i in forward],
        "original_median_shape_after_transp": [case["shape"][i] for i in forward],
        "image_reader_writer": case.get("reader", "SimpleITKIO"),
        "transpose_forward": forward,
        "transpose_backward": [int(i) for i in np.argsort(forward)],
        "configurations": {configuration: configuration_of(case, configuration)},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": intensities,
    }


def configuration_of(case: dict, configuration: str) -> dict:
    dims, channels = len(case["patch"]), len(case["schemes"])
    function, kwargs = case.get("resampling", _DEFAULT)
    resampling = {}
    for what in ("data", "seg", "probabilities"):
        own = {} if kwargs is None else kwargs | {"is_seg": what == "seg"}
        if function == _DEFAULT[0]:
            own |= {"order": 3 if what == "data" else 1}
        resampling |= {f"resampling_fn_{what}": function, f"resampling_fn_{what}_kwargs": own}
    return {
        "data_identifier": f"nnUNetPlans_{configuration}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(case["patch"]),
        "median_image_size_in_voxels": [float(n) for n in case["shape"][3 - dims :]],
        "spacing": list(case["target"]),
        "normalization_schemes": list(case["schemes"]),
        "use_mask_for_norm": [case.get("masked", False)] * channels,
        **resampling,
        "architecture": architecture_of(case, dims),
        "batch_dice": True,
    }


def architecture_of(case: dict, dims: int) -> dict:
    kind = "ResidualEncoderUNet" if "blocks" in case else "PlainConvUNet"
    depth = {"n_blocks_per_stage": case["blocks"]} if "blocks" in case else {"n_conv_per_stage": [2, 1, 2]}
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [3, 4, 6],
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": case.get("kernels", [[3] * dims] * 3),
            "strides": case["strides"],
            **depth,
            "n_conv_per_stage_decoder": [1, 2],
            "conv_bias": case.get("conv_bias", True),
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def learn(model, fold, configuration, manager, dataset, case, images, label, seed) -> dict:
    torch.manual_seed(100 * seed + fold)
    rng = np.random.default_rng(100 * seed + fold)
    config, labels = manager.get_configuration(configuration), manager.get_label_manager(dataset)
    preprocessor = DefaultPreprocessor(verbose=False)
    image, truth, _ = preprocessor.run_case([str(p) for p in images], str(label), manager, config, dataset)
    network = build(case, manager, config, dataset)
    counts = np.bincount(np.maximum(truth, 0).ravel().astype(int), minlength=4)
    rare = torch.from_numpy((counts.max() / counts) ** 0.5).float()  # so that small classes are learned as soon
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(case.get("steps", STEPS)):
        x, y = patches(image, np.maximum(truth[0], 0), case["patch"], rng)
        logits = network(x)
        if labels.has_regions:
            members = [torch.isin(y, torch.as_tensor(region)).float() for region in labels.foreground_regions]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.stack(members, 1))
        else:
            loss = torch.nn.functional.cross_entropy(logits, y, weight=rare)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = model / f"fold_{fold}"
    folder.mkdir()
    torch.save(
        {
            "network_weights": network.state_dict(),
            "optimizer_state": {},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5), np.float32(0.6)], "epoch_start_timestamps": [1.0, 2.0]},
            "_best_ema": np.float64(0.55),
            "current_epoch": 2,
            "init_args": {
                "plans": json.loads((model / "plans.json").read_text()),
                "configuration": configuration,
                "fold": fold,
                "dataset_json": dataset,
                "device": torch.device("cpu"),
            },
            "trainer_name": case.get("trainer", "nnUNetTrainer"),
            "inference_allowed_mirroring_axes": case["mirror"],
        },
        folder / "checkpoint_final.pth",
    )
    return network.state_dict()


def build(case: dict, manager: PlansManager, config, dataset: dict) -> torch.nn.Module:
    trainer = TRAINERS[case.get("trainer", "nnUNetTrainer")]
    n_outputs = manager.get_label_manager(dataset).num_segmentation_heads
    return trainer.build_network_architecture(manager, config, len(case["schemes"]), n_outputs, False)


def patches(image: np.ndarray, truth: np.ndarray, size: tuple[int, ...], rng) -> tuple[torch.Tensor, torch.Tensor]:
    """Two random patches (2D: of random slices), padded with 0 where the image is smaller."""
    size3 = (1,) * (3 - len(size)) + tuple(size)
    pad = [(0, max(0, s - n)) for s, n in zip(size3, image.shape[1:], strict=True)]
    image, truth = np.pad(image, [(0, 0), *pad]), np.pad(truth, pad)
    xs, ys = [], []
    for _ in range(2):
        start = [rng.integers(0, n - s + 1) for s, n in zip(size3, truth.shape, strict=True)]
        box = tuple(slice(a, a + s) for a, s in zip(start, size3, strict=True))
        xs.append(image[(slice(None), *box)])
        ys.append(truth[box])
    x, y = torch.from_numpy(np.stack(xs)), torch.from_numpy(np.stack(ys)).long()
    return (x, y) if len(size) == 3 else (x[:, :, 0], y[:, 0])


def predict(folder, manager, configuration, dataset, case, weights, images, *, mirrored: bool) -> None:
    predictor = nnUNetPredictor(use_mirroring=mirrored, device=torch.device("cpu"), allow_tqdm=False)
    config = manager.get_configuration(configuration)
    trainer = case.get("trainer", "nnUNetTrainer")
    network = build(case, manager, config, dataset)
    predictor.manual_initialization(network, manager, config, weights, dataset, trainer, case["mirror"])
    with tempfile.TemporaryDirectory() as out:
        predictor.predict_from_files_sequential([[str(p) for p in images]], [str(Path(out) / "case")])
        shutil.move(Path(out) / "case.nii.gz", folder / f"expected{'_mirrored' * mirrored}.nii.gz")


if __name__ == "__main__":
    main()
