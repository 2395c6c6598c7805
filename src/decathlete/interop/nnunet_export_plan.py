"""Converts a :class:`Plan` to nnU-Net's ``plans.json`` and ``dataset.json`` with the same network input for an image.

This is the inverse of ``nnunet_plan``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from decathlete.core.labels import LabelSet
from decathlete.core.registry import ComponentSettings
from decathlete.dataset.layouts import ManifestContent, nnunet_manifest
from decathlete.networks.unet_spec import UNetSpec, as_unet
from decathlete.planning.network_spec import Dims
from decathlete.planning.plan import Plan, Resampling
from decathlete.preprocessing.normalizations.ct import CtSettings
from decathlete.preprocessing.normalizations.zscore import ZScoreSettings

CONFIGURATIONS: dict[Dims, str] = {2: "2d", 3: "3d_fullres"}
PLANS_NAME = "nnUNetPlans"
TRAINER = "nnUNetTrainer"

_READERS = {"canonical": "NibabelIOWithReorient", "stored": "NibabelIO"}
_SCHEMES = {
    "ct": "CTNormalization",
    "zscore": "ZScoreNormalization",
    "rescale": "RescaleTo01Normalization",
    "none": "NoNormalization",
}
_FORCE_SEPARATE = {"auto": None, "always": True, "never": False}
_MAX_REGION_VALUE = 255


def find_unsupported_features(plan: Plan) -> list[str]:
    """List everything in a plan that nnU-Net v2 cannot represent."""
    return [*_find_unsupported_data(plan), *_find_unsupported_labels(plan.labels), *_find_unsupported_network(plan)]


def _find_unsupported_data(plan: Plan) -> Iterator[str]:
    if plan.foreground_channel:
        yield "its network has a foreground channel as an additional input, which nnU-Net does not support"
    if plan.preprocessing_order == "recipe" and any(spacing is not None for spacing in plan.target_spacing):
        yield "images are resampled, then normalised (preprocessing_order recipe); nnU-Net normalises first"
    for name in dict.fromkeys(settings.component for settings in plan.normalization):
        if name not in _SCHEMES:
            yield f"channels are normalised by {name}, which nnU-Net does not have"


def _find_unsupported_labels(labels: LabelSet) -> Iterator[str]:
    names = [structure.name for structure in labels.structures]
    reserved = [name for name in names if name in ("background", "ignore")]
    if reserved or len(set(names)) < len(names):
        yield f"its labels are called {', '.join(names)}: nnU-Net needs unique names other than background and ignore"
    if not labels.regions:
        if labels.values != tuple(range(labels.n_classes)):
            values = ", ".join(map(str, labels.values))
            yield f"its label values are {values}; nnU-Net needs consecutive values 0, 1, 2, ..."
        return
    if all(len(region.values) == 1 for region in labels.regions):
        yield "none of its regions has several values: nnU-Net would treat them as exclusive classes"
    if max(labels.region_order) > _MAX_REGION_VALUE:
        yield f"a region is written with the value {max(labels.region_order)}: nnU-Net allows values up to 255"


def _find_unsupported_network(plan: Plan) -> Iterator[str]:
    network = plan.network
    if not isinstance(network, UNetSpec):
        yield f"its network has the architecture {network.architecture}; nnU-Net has U-Nets"
        return
    if network.norm == "group":
        yield "its network has group norm, which nnU-Net's plans cannot define"
    if any(network.decoder_kernel(i) != network.kernels[i] for i in range(network.n_stages - 1)):
        yield "its decoder has other kernels than its encoder; nnU-Net uses the same"
    if network.block == "residual" and not network.stem:
        yield "its residual encoder has no stem; nnU-Net's has one"
    if network.block == "residual" and network.shortcut == "strided":
        yield "its residual blocks have strided shortcuts; nnU-Net's are pooled"
    if network.norm == "instance" and tuple(plan.patch_size) == network.divisor:
        yield "its coarsest feature map is a single voxel, which instance norm in nnU-Net's networks does not accept"


def make_plans_json(plan: Plan) -> dict[str, Any]:
    """Return ``plans.json`` with one configuration. Call :func:`find_unsupported_features` first."""
    order = list(plan.axis_order)
    spacing = [1.0 if s is None else s for s in plan.target_spacing]
    return {
        "dataset_name": plan.dataset,
        "plans_name": PLANS_NAME,
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": list(plan.median_shape),
        "image_reader_writer": _READERS[plan.orientation],
        "transpose_forward": order,
        "transpose_backward": [order.index(axis) for axis in range(3)],
        "configurations": {CONFIGURATIONS[plan.dims]: _configuration(plan)},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(c): _intensities(settings) for c, settings in enumerate(plan.normalization)
        },
    }


def nnunet_labels(labels: LabelSet) -> LabelSet:
    """Return labels as nnU-Net needs them.

    The background is called ``background``. A region model has only the classes of its regions: nnU-Net does not know
    others. The ignore label has the value after the greatest class (nnU-Net loads no other model).
    """
    used = {value for structure in labels.structures for value in structure.values}
    classes = tuple(c for c in labels.foreground if c.value in used)
    ignore = None if labels.ignore is None else max(used, default=0) + 1
    background = labels.classes[0].revised(name="background")
    # A copy: the names of classes need not be unique where only those of regions are written.
    return labels.model_copy(update={"classes": (background, *classes), "ignore": ignore})


def make_dataset_json(plan: Plan, *, n_training: int = 0) -> dict[str, Any]:
    """Return ``dataset.json`` with the entries for prediction. Call :func:`find_unsupported_features` first."""
    content = ManifestContent(name=plan.dataset, channels=plan.channels, labels=nnunet_labels(plan.labels), training=())
    return nnunet_manifest(content) | {
        "numTraining": n_training,
        "overwrite_image_reader_writer": _READERS[plan.orientation],
    }


def _configuration(plan: Plan) -> dict[str, Any]:
    return {
        "data_identifier": f"{PLANS_NAME}_{CONFIGURATIONS[plan.dims]}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": plan.batch_size,
        "patch_size": list(plan.patch_size),
        "median_image_size_in_voxels": list(plan.median_shape[3 - plan.dims :]),
        "spacing": list(plan.network_spacing),
        "normalization_schemes": [_SCHEMES[settings.component] for settings in plan.normalization],
        "use_mask_for_norm": [
            isinstance(settings, ZScoreSettings) and settings.nonzero_only for settings in plan.normalization
        ],
        **_resampling(plan),
        "batch_dice": True,
        "architecture": make_architecture(as_unet(plan.network)),
    }


def _intensities(settings: ComponentSettings) -> dict[str, float]:
    """Return the intensities that nnU-Net uses to normalise CT. It does not use them for other channels."""
    if not isinstance(settings, CtSettings):
        return {"mean": 0.0, "std": 1.0, "percentile_00_5": 0.0, "percentile_99_5": 0.0}
    return {
        "mean": settings.mean,
        "std": settings.std,
        "percentile_00_5": settings.clip_low,
        "percentile_99_5": settings.clip_high,
    }


def _resampling(plan: Plan) -> dict[str, Any]:
    """Return the resampling of images, label maps and predictions. All use the same rule for anisotropic images."""
    orders = {"data": plan.resampling.image_order, "seg": 1, "probabilities": 1}
    if all(spacing is None for spacing in plan.target_spacing):
        functions: dict[str, Any] = {f"resampling_fn_{kind}": "no_resampling_hack" for kind in orders}
        return functions | {f"resampling_fn_{kind}_kwargs": {} for kind in orders}
    functions = {f"resampling_fn_{kind}": "resample_data_or_seg_to_shape" for kind in orders}
    return functions | {
        f"resampling_fn_{kind}_kwargs": _resampling_kwargs(plan.resampling, order, is_seg=kind == "seg")
        for kind, order in orders.items()
    }


def _resampling_kwargs(resampling: Resampling, order: int, *, is_seg: bool) -> dict[str, Any]:
    return {
        "is_seg": is_seg,
        "order": order,
        "order_z": 0,
        "force_separate_z": _FORCE_SEPARATE[resampling.separate_axis],
        "separate_z_anisotropy_threshold": resampling.separate_ratio,
    }


def make_architecture(network: UNetSpec) -> dict[str, Any]:
    """Return nnU-Net's class of the network and its arguments."""
    dims, residual = network.dims, network.block == "residual"
    norm = {"instance": "instancenorm.InstanceNorm", "batch": "batchnorm.BatchNorm"}[network.norm]
    unet = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{unet}",
        "arch_kwargs": {
            "n_stages": network.n_stages,
            "features_per_stage": list(network.features),
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": [list(kernel) for kernel in network.kernels],
            "strides": [list(stride) for stride in network.strides],
            "n_blocks_per_stage" if residual else "n_conv_per_stage": list(network.encoder_convs),
            "n_conv_per_stage_decoder": list(network.decoder_convs[::-1]),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.{norm}{dims}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True, "negative_slope": network.negative_slope},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
