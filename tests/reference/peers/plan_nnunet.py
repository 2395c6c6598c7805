"""Plans made-up fingerprints with nnU-Net v2's own planners; run by the Python of ``make peers``.

``python tests/reference/peers/plan_nnunet.py OUTPUT.json [NAME ...]`` writes, for each fingerprint (or those that are
named) and network, the plan of each configuration: spacing, patch, batch, strides, kernels, features, blocks,
normalisation and resampling.
``tests/reference/test_configurations_of_nnunet.py`` compares them with ours.

The memory estimate builds networks without weights (on torch's meta device): equal numbers, sooner.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

NETWORKS = {
    "plain": "ExperimentPlanner",
    "resenc-m": "nnUNetPlannerResEncM",
    "resenc-l": "nnUNetPlannerResEncL",
    "resenc-xl": "nnUNetPlannerResEncXL",
}

FINGERPRINTS = {
    # name: (shape, spacing, cases, channels: number or names); lists of shapes or spacings are repeated over the cases
    "isotropic_brain": ((155, 240, 240), (1.0, 1.0, 1.0), 100, 4),
    "isotropic_brain_cropped": ((140, 171, 137), (1.0, 1.0, 1.0), 400, 4),
    "isotropic_half_mm": ((320, 320, 320), (0.5, 0.5, 0.5), 30, 1),
    "isotropic_heart": ((115, 320, 232), (1.37, 1.25, 1.25), 20, 1),
    "isotropic_cube_64": ((64, 64, 64), (1.0, 1.0, 1.0), 60, 1),
    "isotropic_cube_100": ((100, 100, 100), (2.0, 2.0, 2.0), 60, 1),
    "isotropic_cube_128": ((128, 128, 128), (1.0, 1.0, 1.0), 60, 2),
    "isotropic_cube_200": ((200, 200, 200), (1.0, 1.0, 1.0), 60, 2),
    "thick_ct_5mm": ((60, 512, 512), (5.0, 0.78, 0.78), 50, ("CT",)),
    "thick_ct_3mm": ((100, 512, 512), (3.0, 0.78, 0.78), 120, ("CT",)),
    "thick_ct_2_5mm": ((160, 512, 512), (2.5, 0.8, 0.8), 280, ("CT",)),
    "thick_ct_mixed": ([(60, 512, 512), (120, 512, 512), (300, 512, 512)], [
        (5.0, 0.8, 0.8), (2.5, 0.7, 0.7), (1.0, 0.75, 0.75),
    ], 90, ("CT",)),
    "thick_ct_coarse": ([(40, 400, 400), (30, 512, 512)], [(7.0, 0.9, 0.9), (10.0, 0.7, 0.7)], 40, ("CT",)),
    "thin_ct_1mm": ((400, 512, 512), (1.0, 0.77, 0.77), 130, ("CT",)),
    "thin_ct_0_7mm": ((600, 512, 512), (0.7, 0.7, 0.7), 40, ("CT",)),
    "thorax_ct": ((252, 512, 512), (1.24, 0.79, 0.79), 63, ("CT",)),
    "abdomen_ct": ((107, 512, 512), (3.0, 0.78, 0.78), 126, ("CT",)),
    "cine_mri": ((9, 256, 216), (10.0, 1.56, 1.56), 200, 1),
    "prostate_mri": ((20, 320, 320), (3.6, 0.62, 0.62), 32, 2),
    "knee_mri": ((40, 384, 384), (3.0, 0.36, 0.36), 90, 1),
    "tiny": ((12, 14, 13), (1.0, 1.0, 1.0), 20, 1),
    "tiny_flat_slab": ((5, 40, 40), (3.0, 1.0, 1.0), 25, 1),
    "hippocampus": ((36, 50, 35), (1.0, 1.0, 1.0), 208, 1),
    "small_thick": ((8, 64, 64), (6.0, 1.5, 1.5), 30, 1),
    "small_24": ((24, 24, 24), (2.0, 2.0, 2.0), 50, 1),
    "small_long": ((200, 20, 20), (1.0, 1.0, 1.0), 50, 1),
    "huge_micro_ct": ((1000, 1000, 1000), (0.02, 0.02, 0.02), 10, ("CT",)),
    "huge_whole_body": ((1100, 512, 512), (1.5, 1.5, 1.5), 80, ("ct",)),
    "huge_thick": ((500, 1024, 1024), (3.0, 0.5, 0.5), 20, 1),
    "huge_lightsheet": ((300, 2048, 2048), (4.0, 1.0, 1.0), 12, 2),
    "flat_512": ((1, 512, 512), (999.0, 1.0, 1.0), 100, 1),
    "flat_rgb": ((1, 360, 480), (999.0, 1.0, 1.0), 300, 3),
    "flat_small": ((1, 60, 80), (999.0, 1.0, 1.0), 50, 1),
    "flat_huge": ((1, 3000, 4000), (999.0, 0.5, 0.5), 40, 3),
    "two_channel_petct": ((200, 200, 200), (3.27, 4.07, 4.07), 50, ("CT", "PET")),
    "two_channel_mri": ((24, 384, 288), (4.4, 0.7, 0.7), 60, 2),
    "two_channel_cropped": ((150, 180, 140), (0.8, 0.8, 0.8), 20, 2),
    "few_cases_1": ((120, 200, 200), (1.0, 1.0, 1.0), 1, 1),
    "few_cases_2": ((40, 60, 50), (1.0, 1.0, 1.0), 2, 1),
    "few_cases_3": ((30, 300, 300), (4.0, 0.8, 0.8), 3, 1),
    "coarse_middle_axis": ((300, 60, 300), (0.8, 4.0, 0.8), 40, 1),
    "coarse_last_axis": ((256, 256, 30), (0.9, 0.9, 5.5), 40, 1),
    "mixed_sizes": ([(80, 160, 160), (120, 240, 200), (64, 128, 128)], [
        (1.5, 1.0, 1.0), (1.0, 0.8, 0.8), (2.0, 1.2, 1.2),
    ], 33, 1),
    "slightly_anisotropic": ((90, 220, 220), (2.0, 1.1, 0.9), 44, 1),
    "ratio_3": ((80, 240, 240), (3.0, 1.0, 1.0), 44, 1),
    "ratio_3_1": ((70, 240, 240), (3.1, 1.0, 1.0), 44, 1),
    "too_small_to_pool": ((7, 7, 7), (1.0, 1.0, 1.0), 30, 1),
    "flat_thin": ((1, 300, 300), (0.5, 1.0, 1.0), 30, 1),
    "mixed_large": ([(300, 512, 512), (150, 400, 400), (80, 600, 600)], [
        (1.0, 0.7, 0.7), (2.5, 0.9, 0.9), (5.0, 0.6, 0.6),
    ], 31, 1),
}  # fmt: skip
CROP_RATIOS = {
    "isotropic_brain_cropped": 0.6, "two_channel_cropped": 0.5, "two_channel_petct": 0.3, "thorax_ct": 0.7,
    "mixed_sizes": 0.75, "slightly_anisotropic": 0.749,
}  # fmt: skip
"""Fingerprint -> median share of the image that cropping keeps, where it is not 1."""


def cases_of(name: str) -> tuple[list[list[int]], list[list[float]], tuple[str, ...]]:
    """Return shapes, spacings and the names of the channels of a made-up dataset."""
    shapes, spacings, n, channels = FINGERPRINTS[name]
    shapes = shapes if isinstance(shapes, list) else [shapes]
    spacings = spacings if isinstance(spacings, list) else [spacings]
    return (
        [list(shapes[i % len(shapes)]) for i in range(n)],
        [list(spacings[i % len(spacings)]) for i in range(n)],
        channels if isinstance(channels, tuple) else ("MRI",) * channels,
    )


def main(output: Path, names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{name}"] = f"{folder}/{name}"
        plans = {
            name: {network: _plan(Path(folder), number, name, network) for network in NETWORKS}
            for number, name in enumerate(names, start=1)
        }
    lines = (f"{json.dumps(name)}: {json.dumps(plan)}" for name, plan in plans.items())
    output.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _plan(folder: Path, number: int, name: str, network: str) -> dict:
    import nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners as residual
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    dataset = f"Dataset{number:03d}_{name}"
    _write_dataset(folder, dataset, name)
    base = ExperimentPlanner if network == "plain" else getattr(residual, NETWORKS[network])

    class Planner(base):
        def determine_reader_writer(self):
            return dict  # any class: there are no images

        @staticmethod
        def static_estimate_VRAM_usage(*args):
            return _feature_map_size(repr(args), args)

    with contextlib.redirect_stdout(io.StringIO()):
        try:
            plans = Planner(dataset).plan_experiment()
        except Exception as problem:  # of datasets that it cannot plan
            return {"error": type(problem).__name__}
    plans = json.loads((folder / "preprocessed" / dataset / f"{plans['plans_name']}.json").read_text())
    return {
        "axis_order": plans["transpose_forward"],
        **{key: _short(value) for key, value in plans["configurations"].items() if "patch_size" in value},
        "cascade": "3d_cascade_fullres" in plans["configurations"],
    }


_SIZES: dict[str, int] = {}


def _feature_map_size(key: str, args: tuple) -> int:
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    if key not in _SIZES:
        patch_size, n_in, n_out, name, kwargs, requires = args
        with torch.device("meta"):
            network = get_network_from_plans(name, kwargs, requires, n_in, n_out, allow_init=False)
        _SIZES[key] = int(network.compute_conv_feature_map_size(patch_size))
    return _SIZES[key]


def _short(configuration: dict) -> dict:
    network = configuration["architecture"]["arch_kwargs"]
    blocks = network.get("n_conv_per_stage", network.get("n_blocks_per_stage"))
    return {
        "spacing": configuration["spacing"],
        "patch": configuration["patch_size"],
        "batch": configuration["batch_size"],
        "strides": _digits(network["strides"]),
        "kernels": _digits(network["kernel_sizes"]),
        "features": network["features_per_stage"],
        "encoder": list(blocks),
        "decoder": list(network["n_conv_per_stage_decoder"]),
        "batch_dice": configuration["batch_dice"],
        "normalization": configuration["normalization_schemes"],
        "masks": configuration["use_mask_for_norm"],
        "resampling": [
            [configuration[f"resampling_fn_{of}_kwargs"][key] for key in ("order", "order_z", "force_separate_z")]
            for of in ("data", "seg", "probabilities")
        ],
    }


def _digits(stages: list) -> str:
    return " ".join("".join(map(str, stage)) for stage in stages)


@lru_cache
def _write_dataset(folder: Path, dataset: str, name: str) -> None:
    shapes, spacings, channels = cases_of(name)
    raw, preprocessed = folder / "raw" / dataset, folder / "preprocessed" / dataset
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    preprocessed.mkdir(parents=True)
    for channel in range(len(channels)):
        (raw / "imagesTr" / f"case_{channel:04d}.nii.gz").touch()
    (raw / "labelsTr" / "case.nii.gz").touch()
    description = {
        "channel_names": {str(i): name for i, name in enumerate(channels)},
        "labels": {"background": 0, "c1": 1, "c2": 2},
        "numTraining": len(shapes),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(description))
    fingerprint = {
        "spacings": spacings,
        "shapes_after_crop": shapes,
        "median_relative_size_after_cropping": CROP_RATIOS.get(name, 1.0),
        "foreground_intensity_properties_per_channel": {str(i): {} for i in range(len(channels))},
    }
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(FINGERPRINTS))
