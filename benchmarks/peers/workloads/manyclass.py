"""Predicting a large volume with many classes: peak memory, and the time of the way around the network.

The network is tiny on purpose (random weights, few channels): what is compared is what the sliding window and the way
back to the image's own grid need, not convolutions.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
from pathlib import Path

import numpy as np

from common.processes import peak_bytes
from workload import Contender, Measured, Work, Workload

MEMORY_LIMIT = 20 * 2**30
"""Beyond this a contender is stopped: the machine's other work would suffer."""
PATCH = (128, 128, 128)


def prepare(work: Work, folder: Path) -> None:
    """A made-up scan as a file, and a model of ours with random weights."""
    import nibabel as nib
    from scipy.ndimage import zoom

    from common.models import random_model

    rng = np.random.default_rng(0)
    coarse = rng.standard_normal([max(2, n // 16) for n in work["shape_xyz"]])
    factors = [n / m for n, m in zip(work["shape_xyz"], coarse.shape, strict=True)]
    volume = (100 * zoom(coarse.astype(np.float32), factors, order=1)).astype(np.int16)
    (folder / "images").mkdir()
    nib.save(nib.Nifti1Image(volume, np.diag([*work["spacing_xyz"], 1.0])), folder / "images" / "scan_0000.nii.gz")

    random_model(
        folder / "model", classes=work["classes"], patch=tuple(work["patch"]), spacing=(work["target_mm"],) * 3
    )


def ours(work: Work, folder: Path) -> Measured:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
    from decathlete.inference.options import PredictOptions
    from decathlete.workflows.predict import predict

    shutil.rmtree(folder / "ours", ignore_errors=True)  # what a round before made would be kept, and nothing computed
    began = time.perf_counter()
    options = PredictOptions(device="cpu", memory_gb=work.get("memory_gb"))
    predict(
        folder / "model",
        folder / "images",
        folder / "ours",
        options=options,
        save_probabilities=work.get("probabilities", False),
        overwrite=True,
    )
    return Measured(amounts=(peak_bytes() / 2**30,), notes={"seconds": time.perf_counter() - began})


def nnunet(work: Work, folder: Path) -> Measured:
    """nnU-Net's predictor with a network of as many channels, told the same spacing and patch."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    model = folder / "nnunet_model"
    _nnunet_model(work, model)
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,), "checkpoint_final.pth")
    began = time.perf_counter()
    (folder / "nnunet").mkdir(exist_ok=True)
    predictor.predict_from_files_sequential(str(folder / "images"), str(folder / "nnunet"), overwrite=True)
    return Measured(amounts=(peak_bytes() / 2**30,), notes={"seconds": time.perf_counter() - began})


def _nnunet_model(work: Work, model: Path) -> None:
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    if (model / "fold_0").exists():
        return
    n = int(np.log2(min(work["patch"]) / 4)) + 1
    spacing = [work["target_mm"]] * 3
    network = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": n,
            "features_per_stage": [4] * n,
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * n,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (n - 1),
            "n_conv_per_stage": [2] * n,
            "n_conv_per_stage_decoder": [2] * (n - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    function = "resample_data_or_seg_to_shape"
    configuration = {
        "data_identifier": "made_up",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(work["patch"]),
        "median_image_size_in_voxels": list(work["patch"]),
        "spacing": spacing,
        "normalization_schemes": ["NoNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": function,
        "resampling_fn_seg": function,
        "resampling_fn_data_kwargs": {**resampling, "order": 3},
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True},
        "resampling_fn_probabilities": function,
        "resampling_fn_probabilities_kwargs": resampling,
        "architecture": network,
        "batch_dice": False,
    }
    plans = {
        "dataset_name": "Dataset999_MadeUp",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": list(work["patch"]),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
    }
    labels = {"background": 0, **{f"class {i}": i for i in range(1, work["classes"])}}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    torch.manual_seed(0)
    built = get_network_from_plans(
        network["network_class_name"],
        network["arch_kwargs"],
        network["_kw_requires_import"],
        1,
        work["classes"],
        deep_supervision=False,
    )
    (model / "fold_0").mkdir(parents=True)
    (model / "plans.json").write_text(json.dumps(plans))
    (model / "dataset.json").write_text(json.dumps(dataset))
    torch.save(
        {
            "network_weights": built.state_dict(),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": "3d_fullres"},
            "inference_allowed_mirroring_axes": (0, 1, 2),
        },
        model / "fold_0" / "checkpoint_final.pth",
    )
    os.sync()


SCAN = {"shape_xyz": (512, 512, 400), "spacing_xyz": (0.8, 0.8, 1.0), "target_mm": 1.5, "patch": PATCH}

WORKLOAD = Workload(
    name="manyclass",
    title="Peak memory of predicting one large scan",
    unit="GiB",
    lower_is_better=True,
    sizes={
        "small": {**SCAN, "shape_xyz": (60, 56, 50), "patch": (16, 16, 16), "classes": 5},
        "full": {**SCAN, "classes": 117},
        "two": {**SCAN, "classes": 2},
        "probabilities": {**SCAN, "classes": 117, "memory_gb": 6, "probabilities": True},
        "unresampled": {**SCAN, "shape_xyz": (512, 512, 256), "spacing_xyz": (1.5,) * 3, "classes": 40, "memory_gb": 5},
        "unresampled_117": {**SCAN, "spacing_xyz": (1.5,) * 3, "classes": 117, "memory_gb": 6},
    },
    contenders=(
        Contender(name="ours", environment="ours", run=ours),
        Contender(name="nnunet", environment="peers", run=nnunet),
    ),
    prepare=prepare,
)
