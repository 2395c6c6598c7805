"""Converts nnU-Net's plans, dataset and fingerprint to a :class:`Plan` with the same network input for an image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import ValidationError

from decathlete.core.choices import Norm, Orientation
from decathlete.core.digits import parse_digits
from decathlete.core.files import value_digest
from decathlete.core.labels import LabelSet
from decathlete.core.registry import ComponentSettings
from decathlete.core.schema import describe
from decathlete.dataset.declared_labels import parse_label_set
from decathlete.interop.nnunet_files import Configuration, Dataset, Fingerprint, Intensities, Plans
from decathlete.interop.nnunet_network import NnUNetNetwork, UnsupportedModelError, convert_architecture
from decathlete.planning.network_spec import Axes
from decathlete.planning.normalizations import NORMALIZATIONS
from decathlete.planning.plan import Plan, Range, Resampling, TrainingRanges
from decathlete.preprocessing.normalizations.ct import CtSettings
from decathlete.preprocessing.normalizations.zscore import ZScoreSettings
from decathlete.preprocessing.normalize import needs_mask

_READERS: dict[str, Orientation] = {
    "SimpleITKIO": "stored",
    "NibabelIO": "stored",
    "NibabelIOWithReorient": "canonical",
}
_SPLINES, _TORCH, _NOTHING = "resample_data_or_seg_to_shape", "resample_torch_fornnunet", "no_resampling_hack"
_UNKNOWN = Range(low=-math.inf, high=math.inf)


def build_plan(
    plans: Plans,
    name: str,
    configuration: Configuration,
    dataset: Dataset,
    fingerprint: Fingerprint,
    *,
    mirror_axes: Axes,
    norm: Norm | None = None,
) -> tuple[Plan, NnUNetNetwork]:
    """Build the plan and the network of one configuration.

    Args:
        plans: content of ``plans.json``.
        name: name of the configuration.
        configuration: the configuration with its inherited entries.
        dataset: content of ``dataset.json``.
        fingerprint: content of ``dataset_fingerprint.json``.
        mirror_axes: axes of the patch that were mirrored in training.
        norm: norm of the network, if the trainer did not use the norm of the plans.

    Raises:
        UnsupportedModelError: Decathlete does not support the model; the message lists every reason.
    """
    reasons = [*_find_unsupported(plans, name, configuration)]
    labels = _labels(dataset, reasons)
    normalization = _normalization(configuration, plans, reasons)
    resampling = _resampling(configuration, reasons)
    network = _network(configuration, dataset, labels, norm, reasons)
    if reasons or labels is None or network is None or resampling is None:
        raise UnsupportedModelError(reasons)
    order = _triple(plans.transpose_forward)
    fields: dict[str, Any] = {
        "dataset": plans.dataset_name,
        "dims": network.spec.dims,
        "channels": tuple(dataset.channel_names[key] for key in sorted(dataset.channel_names, key=_channel_key)),
        "labels": labels,
        "orientation": _READERS[plans.image_reader_writer],
        "axis_order": order,
        "target_spacing": _target_spacing(configuration),
        "median_shape": _median_shape(plans, configuration),
        "patch_size": tuple(configuration.patch_size),
        "batch_size": configuration.batch_size,
        "normalization": normalization,
        "fill_slice_holes": not needs_mask(normalization),
        "resampling": resampling,
        "network": network.spec,
        "mirror_axes": mirror_axes,
        "training_ranges": _training_ranges(fingerprint, order, len(dataset.channel_names)),
        "fingerprint_digest": value_digest(fingerprint.model_dump()),
        "reasons": _reasons(plans, name),
    }
    try:
        return Plan(**fields), network
    except ValidationError as problem:
        raise UnsupportedModelError(describe(problem)) from None


def _network(
    configuration: Configuration, dataset: Dataset, labels: LabelSet | None, norm: Norm | None, reasons: list[str]
) -> NnUNetNetwork | None:
    try:
        return convert_architecture(
            configuration.architecture,
            dims=2 if len(configuration.patch_size) == 2 else 3,
            in_channels=len(dataset.channel_names),
            out_channels=labels.n_outputs if labels else 1,
            norm=norm,
        )
    except UnsupportedModelError as problem:
        reasons += problem.reasons
        return None


def _find_unsupported(plans: Plans, name: str, configuration: Configuration) -> Iterator[str]:
    if configuration.previous_stage is not None:
        yield (
            f"{name} is the second stage of a cascade (it sees the segmentation of {configuration.previous_stage}): "
            "only models that predict from the image alone can be imported"
        )
    elif configuration.next_stage is not None or name == "3d_lowres":
        yield f"{name} is the first stage of a cascade: only 2d and 3d_fullres can be imported"
    if plans.image_reader_writer not in _READERS:
        yield (
            f"its images are read by {plans.image_reader_writer}: only models with the readers "
            f"{', '.join(_READERS)} can be imported"
        )
    if configuration.preprocessor_name != "DefaultPreprocessor":
        yield f"its images are prepared by {configuration.preprocessor_name}: only DefaultPreprocessor is supported"
    if plans.label_manager != "LabelManager":
        yield f"its labels are handled by {plans.label_manager}: only LabelManager is supported"
    if sorted(plans.transpose_forward) != [0, 1, 2]:
        yield f"transpose_forward {plans.transpose_forward} is not a permutation of the axes"
    if len(configuration.spacing) != len(configuration.patch_size):
        yield f"spacing {configuration.spacing} and patch_size {configuration.patch_size} differ in length"


def _labels(dataset: Dataset, reasons: list[str]) -> LabelSet | None:
    labels = parse_label_set(dict(dataset.labels), None, dataset.regions_class_order, reasons, read_back=False)
    if labels is not None and not labels.regions and labels.values != tuple(range(labels.n_classes)):
        reasons.append(f"its label values are {labels.values}: nnU-Net uses consecutive values only")
    return labels


def _normalization(configuration: Configuration, plans: Plans, reasons: list[str]) -> tuple[ComponentSettings, ...]:
    schemes, masks = configuration.normalization_schemes, configuration.use_mask_for_norm
    if len(schemes) != len(masks):
        reasons.append(f"normalization_schemes has {len(schemes)} entries, use_mask_for_norm {len(masks)}")
        return ()
    normalizations = []
    for channel, (scheme, masked) in enumerate(zip(schemes, masks, strict=True)):
        intensities = plans.foreground_intensity_properties_per_channel.get(str(channel))
        normalization = _convert_scheme(scheme, masked, intensities)
        if normalization is None:
            problem = "has no intensities in the plans" if scheme == "CTNormalization" else "is not supported"
            reasons.append(f"the normalisation of channel {channel}, {scheme}, {problem}")
        else:
            normalizations.append(normalization)
    return tuple(normalizations)


def _convert_scheme(scheme: str, masked: bool, intensities: Intensities | None) -> ComponentSettings | None:
    if scheme == "CTNormalization" and intensities is not None and intensities.are_known:
        low, high = intensities.percentile_00_5, intensities.percentile_99_5
        return CtSettings(clip_low=low, clip_high=high, mean=intensities.mean, std=intensities.std)
    if scheme == "RGBTo01Normalization":  # maps 0..255 to 0..1; no value lies outside
        return CtSettings(clip_low=0, clip_high=255, mean=0, std=255)
    if scheme == "ZScoreNormalization":
        return ZScoreSettings(nonzero_only=masked)
    if scheme == "RescaleTo01Normalization":
        return NORMALIZATIONS.settings("rescale")
    return NORMALIZATIONS.settings("none") if scheme == "NoNormalization" else None


def _resampling(configuration: Configuration, reasons: list[str]) -> Resampling | None:
    """Convert the resampling of images and logits. Plans edited by hand may have different rules for the two."""
    image, logits = configuration.resampling_fn_data, configuration.resampling_fn_probabilities
    if image == logits == _NOTHING:
        return Resampling()
    if not {image, logits} <= {_SPLINES, _TORCH}:
        reasons.append(f"resampling of images by {image} and of predictions by {logits} is not supported")
        return None
    image_rule = _separation(image, configuration.resampling_fn_data_kwargs)
    logits_rule = _separation(logits, configuration.resampling_fn_probabilities_kwargs)
    if image_rule != logits_rule:
        reasons.append(f"images and predictions are resampled by different rules ({image_rule} and {logits_rule})")
    order = _spline_order(image, configuration.resampling_fn_data_kwargs, reasons)
    if _spline_order(logits, configuration.resampling_fn_probabilities_kwargs, reasons) != 1:
        reasons.append("predictions are not resampled linearly")
    if order not in (0, 1, 3):
        reasons.append(f"images are resampled by splines of order {order}: only 0, 1 and 3 are supported")
        return None
    separate, ratio = image_rule
    try:
        return Resampling(image_order=order, separate_axis=separate, separate_ratio=ratio)
    except ValidationError as problem:
        reasons.extend(f"resampling: {line}" for line in describe(problem))
        return None


def _separation(function: str, kwargs: dict[str, Any]) -> tuple[Literal["auto", "always", "never"], Any]:
    forced = kwargs.get("force_separate_z", None if function == _TORCH else False)
    ratio = kwargs.get("separate_z_anisotropy_threshold", 3)
    return ("auto" if forced is None else "always" if forced else "never"), ratio


def _spline_order(function: str, kwargs: dict[str, Any], reasons: list[str]) -> Any:
    """Return the spline order within slices. Across slices only nearest neighbour is supported."""
    if function == _TORCH:
        modes = (kwargs.get("mode", "linear"), kwargs.get("aniso_axis_mode", "nearest-exact"))
        if modes != ("linear", "nearest-exact"):
            reasons.append(f"resampling with torch is not linear within slices and nearest across slices ({kwargs})")
        return 1
    if kwargs.get("order_z", 0) != 0:
        reasons.append(f"across slices, resampling is by splines of order {kwargs['order_z']}, not the nearest slice")
    return kwargs.get("order", 3)


def _target_spacing(configuration: Configuration) -> tuple[float | None, float | None, float | None]:
    if configuration.resampling_fn_data == _NOTHING:
        return (None, None, None)
    spacing = configuration.spacing
    first, second, third = spacing if len(spacing) == 3 else (None, *spacing)
    return (first, second, third)


def _median_shape(plans: Plans, configuration: Configuration) -> tuple[int, int, int]:
    sizes = configuration.median_image_size_in_voxels
    z, y, x = [*plans.original_median_shape_after_transp[: 3 - len(sizes)], *sizes]
    return (round(z), round(y), round(x))


def _training_ranges(fingerprint: Fingerprint, order: tuple[int, int, int], n_channels: int) -> TrainingRanges:
    """Return the ranges of spacing and size in the fingerprint. It does not contain mean intensities."""
    cases = [
        ([spacing[i] for i in order], [spacing[i] * shape[i] for i in order])
        for spacing, shape in zip(fingerprint.spacings, fingerprint.shapes_after_crop, strict=False)
        if len(spacing) == len(shape) == 3
    ]
    spacing, size = (_ranges([case[i] for case in cases]) for i in (0, 1))
    return TrainingRanges(spacing=spacing, size=size, intensity=(_UNKNOWN,) * n_channels)


def _ranges(values: list[list[float]]) -> tuple[Range, Range, Range]:
    if not values:
        return (_UNKNOWN,) * 3
    z, y, x = (Range(low=min(axis), high=max(axis)) for axis in zip(*values, strict=True))
    return (z, y, x)


def _reasons(plans: Plans, name: str) -> dict[str, str]:
    reason = f"as in nnU-Net's {plans.plans_name}, {name}"
    fields = ("orientation", "axis_order", "target_spacing", "patch_size", "normalization", "resampling", "mirror_axes")
    return dict.fromkeys(fields, reason)


def _triple(values: list[int]) -> tuple[int, int, int]:
    z, y, x = values
    return (z, y, x)


def _channel_key(key: str) -> tuple[int, str]:
    """Return a sort key: channel numbers are sorted as numbers, not as strings."""
    number = parse_digits(key)
    return (len(key) + 10**6 if number is None else number, key)
