"""Reads the JSON files of a trained nnU-Net v2 model. Entries that prediction does not need are ignored."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from decathlete.core import documents
from decathlete.core.schema import describe
from decathlete.errors import ModelError, problems_found

_REMEDY = "use a model as nnU-Net v2 trained or exported it"

Size = Annotated[int, Field(ge=1, le=2**16)]
Sizes = list[Size] | Size
Finite = Annotated[float, Field(allow_inf_nan=False)]
Model = TypeVar("Model", bound="_Part")


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Intensities(_Part):
    """Intensities of a channel over the foreground of the training cases."""

    mean: float = 0.0
    std: float = 1.0
    percentile_00_5: float = 0.0
    percentile_99_5: float = 0.0

    @property
    def are_known(self) -> bool:
        """Return whether all are possible numbers. nnU-Net writes NaN for a channel without foreground."""
        numbers = (self.mean, self.std, self.percentile_00_5, self.percentile_99_5)
        return all(map(math.isfinite, numbers)) and self.std >= 0


class ArchitectureKwargs(_Part):
    """Arguments of the network's class. Unknown entries are rejected, because they may change the network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_stages: int = Field(ge=1, le=32)
    features_per_stage: Sizes
    conv_op: str
    kernel_sizes: list[Sizes] | Size
    strides: list[Sizes] | Size
    n_conv_per_stage: Sizes | None = None
    n_blocks_per_stage: Sizes | None = None
    n_conv_per_stage_decoder: Sizes
    conv_bias: bool = False
    norm_op: str | None = None
    norm_op_kwargs: dict[str, Any] | None = None
    dropout_op: str | None = None
    dropout_op_kwargs: dict[str, Any] | None = None
    nonlin: str | None = None
    nonlin_kwargs: dict[str, Any] | None = None
    nonlin_first: bool = False
    deep_supervision: bool = False
    block: str | None = None
    bottleneck_channels: Sizes | None = None
    stem_channels: int | None = None


class Architecture(_Part):
    """Class of the network and its arguments."""

    network_class_name: str
    arch_kwargs: ArchitectureKwargs


class Configuration(_Part):
    """One configuration of the plans, e.g. ``3d_fullres``. Axes are in nnU-Net's order after transposition."""

    patch_size: list[Size] = Field(min_length=2, max_length=3)
    batch_size: int
    spacing: list[Finite]
    median_image_size_in_voxels: list[Finite]
    normalization_schemes: list[str]
    use_mask_for_norm: list[bool]
    preprocessor_name: str = "DefaultPreprocessor"
    resampling_fn_data: str
    resampling_fn_data_kwargs: dict[str, Any] = {}
    resampling_fn_probabilities: str
    resampling_fn_probabilities_kwargs: dict[str, Any] = {}
    previous_stage: str | None = None
    next_stage: str | list[str] | None = None
    architecture: Architecture


class Plans(_Part):
    """Content of ``plans.json``."""

    dataset_name: str
    plans_name: str = "nnUNetPlans"
    image_reader_writer: str
    transpose_forward: list[int] = Field(min_length=3, max_length=3)
    original_median_shape_after_transp: list[Finite] = Field(min_length=3, max_length=3)
    label_manager: str = "LabelManager"
    configurations: dict[str, dict[str, Any]]
    foreground_intensity_properties_per_channel: dict[str, Intensities] = {}


class Dataset(_Part):
    """Content of ``dataset.json``."""

    channel_names: dict[str, str]
    labels: dict[str, Any]
    regions_class_order: list[int] | None = None


class Fingerprint(_Part):
    """Content of ``dataset_fingerprint.json``. Axes are in the order before transposition."""

    spacings: list[list[float]] = []
    shapes_after_crop: list[list[float]] = []


def read_plans(folder: Path) -> Plans:
    """Read ``plans.json`` in a model's folder.

    Raises:
        ModelError: the file is missing or not valid; the message lists every problem.
    """
    path = folder / "plans.json"
    content = read_json(path)
    by_channel = "foreground_intensity_properties_per_channel"
    content.setdefault(by_channel, content.get("foreground_intensity_properties_by_modality", {}))
    return _validate(Plans, content, path)


def read_dataset_json(folder: Path) -> Dataset:
    """Read ``dataset.json`` in a model's folder.

    Raises:
        ModelError: the file is missing or not valid; the message lists every problem.
    """
    path = folder / "dataset.json"
    content = read_json(path)
    content.setdefault("channel_names", content.get("modality"))
    return _validate(Dataset, content, path)


def read_fingerprint(folder: Path) -> Fingerprint:
    """Read ``dataset_fingerprint.json`` in a model's folder. Without the file, the fingerprint is empty.

    Raises:
        ModelError: the file is not valid; the message lists every problem.
    """
    path = folder / "dataset_fingerprint.json"
    return _validate(Fingerprint, read_json(path), path) if path.is_file() else Fingerprint()


def read_configuration(plans: Plans, name: str, *, where: Path) -> Configuration:
    """Return a configuration with its inherited entries. The architecture of older plans is converted.

    Args:
        plans: content of ``plans.json``.
        name: name of the configuration.
        where: path for messages.

    Raises:
        ModelError: the configuration does not exist, inherits from itself, or is not valid.
    """
    content = _resolve_inheritance(plans.configurations, name, where)
    if "architecture" not in content:
        content["architecture"] = _convert_old_architecture(content, where)
    return _validate(Configuration, content, where)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        ModelError: the file is missing or does not contain a JSON object.
    """
    content = documents.read_json(path, error=ModelError, remedy=_REMEDY)
    if not isinstance(content, dict):
        raise ModelError("is not a JSON object", where=path, remedy=_REMEDY)
    return content


def _validate(kind: type[Model], content: dict[str, Any], where: Path) -> Model:
    try:
        return kind.model_validate(content)
    except ValidationError as problem:
        raise problems_found(describe(problem), where=where, remedy=_REMEDY, kind=ModelError) from None


def _resolve_inheritance(configurations: dict[str, dict[str, Any]], name: str, where: Path) -> dict[str, Any]:
    chain: list[str] = []
    content: dict[str, Any] = {}
    parent: Any = name
    while parent is not None:
        if not isinstance(parent, str) or parent in chain or parent not in configurations:
            problem = "inherits from itself" if parent in chain else "does not exist"
            raise ModelError(f"configuration {parent!r} {problem}", where=where, remedy=_REMEDY)
        chain.append(parent)
        content = configurations[parent] | content
        parent = configurations[parent].get("inherits_from")
    return content


def _convert_old_architecture(content: dict[str, Any], where: Path) -> dict[str, Any]:
    """Convert the architecture of plans that were made before nnU-Net 2.4."""
    try:
        depth, dims = content["n_conv_per_stage_encoder"], len(content["patch_size"])
        base, maximum = content["UNet_base_num_features"], content["unet_max_num_features"]
        kind = content["UNet_class_name"]
        return {
            "network_class_name": kind,
            "arch_kwargs": {
                "n_stages": len(depth),
                "features_per_stage": [min(base * 2**i, maximum) for i in range(len(depth))],
                "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
                "kernel_sizes": content["conv_kernel_sizes"],
                "strides": content["pool_op_kernel_sizes"],
                "n_conv_per_stage" if kind == "PlainConvUNet" else "n_blocks_per_stage": depth,
                "n_conv_per_stage_decoder": content["n_conv_per_stage_decoder"],
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
        }
    except (KeyError, TypeError) as problem:
        raise ModelError(f"does not define the network ({problem})", where=where, remedy=_REMEDY) from None
