"""The JSON files of a trained nnU-Net v2 model, as far as predicting needs them. Other entries are left alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from decathlete.core.files import read_text
from decathlete.core.schema import describe
from decathlete.errors import ModelError, problems_found

_REMEDY = "give a model as nnU-Net v2 trained or exported it"

Size = Annotated[int, Field(ge=1, le=2**16)]
Sizes = list[Size] | Size
Finite = Annotated[float, Field(allow_inf_nan=False)]
Model = TypeVar("Model", bound="_Part")


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Intensities(_Part):
    """Of a channel, over the foreground of the training cases."""

    mean: float = 0.0
    std: float = 1.0
    percentile_00_5: float = 0.0
    percentile_99_5: float = 0.0

    @property
    def are_known(self) -> bool:
        """Whether all are numbers: of a channel without foreground nnU-Net writes NaN."""
        return all(map(math.isfinite, (self.mean, self.std, self.percentile_00_5, self.percentile_99_5)))


class ArchitectureKwargs(_Part):
    """What the network is made of. An entry that is not known here is refused: it may change what is computed."""

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
    """The class of the network, and what it is called with."""

    network_class_name: str
    arch_kwargs: ArchitectureKwargs


class Configuration(_Part):
    """``2d`` or ``3d_fullres`` of the plans; axes are in nnU-Net's order after transposition."""

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
    """``plans.json``."""

    dataset_name: str
    plans_name: str = "nnUNetPlans"
    image_reader_writer: str
    transpose_forward: list[int] = Field(min_length=3, max_length=3)
    original_median_shape_after_transp: list[Finite] = Field(min_length=3, max_length=3)
    label_manager: str = "LabelManager"
    configurations: dict[str, dict[str, Any]]
    foreground_intensity_properties_per_channel: dict[str, Intensities] = {}


class Dataset(_Part):
    """``dataset.json``."""

    channel_names: dict[str, str]
    labels: dict[str, Any]
    regions_class_order: list[int] | None = None


class Fingerprint(_Part):
    """``dataset_fingerprint.json``; axes in the order before transposition."""

    spacings: list[list[float]] = []
    shapes_after_crop: list[list[float]] = []


def read_plans(folder: Path) -> Plans:
    """Of a model's folder.

    Raises:
        ModelError: missing, or not as nnU-Net writes it; with every problem.
    """
    path = folder / "plans.json"
    content = read_json(path)
    by_channel = "foreground_intensity_properties_per_channel"
    content.setdefault(by_channel, content.get("foreground_intensity_properties_by_modality", {}))
    return _made(Plans, content, path)


def read_dataset_json(folder: Path) -> Dataset:
    """Of a model's folder.

    Raises:
        ModelError: missing, or not as nnU-Net writes it; with every problem.
    """
    path = folder / "dataset.json"
    content = read_json(path)
    content.setdefault("channel_names", content.get("modality"))
    return _made(Dataset, content, path)


def read_fingerprint(folder: Path) -> Fingerprint:
    """Of a model's folder; without one, nothing is known of the training images.

    Raises:
        ModelError: not as nnU-Net writes it; with every problem.
    """
    path = folder / "dataset_fingerprint.json"
    return _made(Fingerprint, read_json(path), path) if path.is_file() else Fingerprint()


def read_configuration(plans: Plans, name: str, *, where: Path) -> Configuration:
    """A configuration with what it inherits, the network of older plans brought into today's form.

    Raises:
        ModelError: there is none, it inherits from itself, or it is not as nnU-Net writes it.
    """
    content = _inherited(plans.configurations, name, where)
    if "architecture" not in content:
        content["architecture"] = _architecture_of_old_plans(content, where)
    return _made(Configuration, content, where)


def read_json(path: Path) -> dict[str, Any]:
    """An object from a file.

    Raises:
        ModelError: missing, or not a JSON object.
    """
    try:
        content = json.loads(read_text(path, error=ModelError, remedy=_REMEDY))
    except (ValueError, RecursionError) as problem:
        raise ModelError(f"is not JSON ({problem})", where=path, remedy=_REMEDY) from None
    if not isinstance(content, dict):
        raise ModelError("is not a JSON object", where=path, remedy=_REMEDY)
    return content


def _made(kind: type[Model], content: dict[str, Any], where: Path) -> Model:
    try:
        return kind.model_validate(content)
    except ValidationError as problem:
        raise problems_found(describe(problem), where=where, remedy=_REMEDY, kind=ModelError) from None


def _inherited(configurations: dict[str, dict[str, Any]], name: str, where: Path) -> dict[str, Any]:
    chain: list[str] = []
    content: dict[str, Any] = {}
    parent: Any = name
    while parent is not None:
        if not isinstance(parent, str) or parent in chain or parent not in configurations:
            problem = "inherits from itself" if parent in chain else "is not there"
            raise ModelError(f"configuration {parent!r} {problem}", where=where, remedy=_REMEDY)
        chain.append(parent)
        content = configurations[parent] | content
        parent = configurations[parent].get("inherits_from")
    return content


def _architecture_of_old_plans(content: dict[str, Any], where: Path) -> dict[str, Any]:
    """Plans made before nnU-Net 2.4 say the same in other words."""
    try:
        depth, dims = content["n_conv_per_stage_encoder"], len(content["patch_size"])
        base, most = content["UNet_base_num_features"], content["unet_max_num_features"]
        kind = content["UNet_class_name"]
        return {
            "network_class_name": kind,
            "arch_kwargs": {
                "n_stages": len(depth),
                "features_per_stage": [min(base * 2**i, most) for i in range(len(depth))],
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
        raise ModelError(f"does not say what the network is ({problem})", where=where, remedy=_REMEDY) from None
