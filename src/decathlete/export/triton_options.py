"""Options of an export to Triton Inference Server, and which of them each format of the network ignores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from decathlete.core.digits import parse_digits
from decathlete.core.registry import ComponentSettings
from decathlete.errors import OptionError
from decathlete.inference.engines import ENGINES
from decathlete.inference.options import AUTO

NetworkFormat = Literal["onnx", "torchscript-script", "torchscript-trace", "aotinductor", "openvino", "tensorrt"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Accelerator = Literal["none", "tensorrt", "openvino"]
InstanceKind = Literal["auto", "cpu", "gpu"]
OTHER_FORMAT = "choose another --format"
"""What to do where a format is not possible."""
QUEUE_DELAY_MS = 5.0
"""Default of the longest time that a request waits for others of its batch, ms."""


@dataclass(frozen=True, kw_only=True)
class FormatTraits:
    """What Triton does with one format.

    Attributes:
        backend: that computes it.
        platform: where a backend has several; empty: the backend alone decides.
        file: name of the program in the version's folder.
        precisions: that the program can be written in.
        dynamic_shapes: whether windows of other sizes than the patch can be allowed.
        profiles: whether minimum, optimum and maximum shapes have an effect without an accelerator.
        cuda_graphs: whether the backend captures CUDA graphs.
        accelerators: that the backend can use.
        kinds: of instances.
    """

    backend: str
    platform: str = ""
    file: str
    precisions: tuple[Precision, ...]
    dynamic_shapes: bool = True
    profiles: bool = False
    cuda_graphs: bool = False
    accelerators: tuple[Accelerator, ...] = ()
    kinds: tuple[InstanceKind, ...] = ("auto", "cpu", "gpu")


_TORCH: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
FORMATS: dict[NetworkFormat, FormatTraits] = {
    "onnx": FormatTraits(
        backend="onnxruntime",
        file="model.onnx",
        precisions=("fp32", "fp16"),
        accelerators=("tensorrt", "openvino"),
    ),
    "torchscript-script": FormatTraits(
        backend="pytorch", platform="pytorch_libtorch", file="model.pt", precisions=_TORCH
    ),
    "torchscript-trace": FormatTraits(
        backend="pytorch", platform="pytorch_libtorch", file="model.pt", precisions=_TORCH
    ),
    "aotinductor": FormatTraits(
        backend="pytorch",
        platform="torch_aoti",
        file="model.pt2",
        precisions=_TORCH,
        dynamic_shapes=False,
    ),
    "openvino": FormatTraits(
        backend="openvino", file="model.xml", precisions=("fp32", "bf16", "int8"), kinds=("auto", "cpu")
    ),
    "tensorrt": FormatTraits(
        backend="tensorrt",
        file="model.plan",
        precisions=("fp32", "fp16", "bf16"),
        profiles=True,
        cuda_graphs=True,
        kinds=("auto", "gpu"),
    ),
}


class TritonSettings(ComponentSettings):
    """How a model is written for Triton Inference Server."""

    name: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]*$")
    """Name of the models in the repository: NAME_network and NAME_pipeline; by default the dataset's name."""
    models: Literal["both", "network", "pipeline"] = "both"
    """Network (windows to logits), pipeline (image to label map), or both."""
    format: NetworkFormat = "onnx"
    """Format of the network."""
    precision: Precision = "fp32"
    """Precision of the network, and of the pipeline if its engine computes in it on the device; else it uses fp32."""
    max_batch_size: int = Field(default=8, ge=1)
    """Most windows (network) or images (pipeline) that Triton passes on together."""
    preferred_batch_sizes: tuple[int, ...] = ()
    """Batch sizes for which the dynamic batcher does not wait longer."""
    queue_delay_ms: float = Field(default=QUEUE_DELAY_MS, ge=0)
    """Longest time that a request waits for others of its batch, ms."""
    instances: int = Field(default=1, ge=1)
    """Instances of each model, on each GPU or on the CPU."""
    instance_kind: InstanceKind = "auto"
    """Device of the instances; auto: a GPU where the server has one."""
    dynamic_shapes: bool = False
    """Accept windows of other sizes than the patch, too."""
    min_shape: tuple[int, ...] = ()
    """Smallest window of a TensorRT profile, axes of the patch."""
    opt_shape: tuple[int, ...] = ()
    """Window that a TensorRT profile is optimised for."""
    max_shape: tuple[int, ...] = ()
    """Largest window of a TensorRT profile."""
    cuda_graphs: bool = False
    """Capture CUDA graphs."""
    accelerator: Accelerator = "none"
    """Execution accelerator of ONNX Runtime: TensorRT on GPUs, OpenVINO on CPUs."""
    warmup: int = Field(default=0, ge=0)
    """Requests that are computed before a model is ready."""
    resources: dict[str, int] = {}
    """Resources of the rate limiter that an instance needs while it computes, by name."""
    priority: int = Field(default=0, ge=0)
    """Priority in the rate limiter: 1 is the highest; 0: none is set."""
    response_cache: bool = False
    """Answer repeated requests to the network from the server's cache."""
    version_policy: str = "latest:1"
    """Versions that are served: latest:N, all, or specific:1,3."""
    version: int = Field(default=1, ge=1)
    """Number of the version that is written."""
    threads: int = Field(default=0, ge=0)
    """Threads of an instance on a CPU; 0: as many as the backend chooses."""
    engine: str = AUTO
    """Inference engine of the pipeline."""
    engine_settings: dict[str, JsonValue] = {}
    """Settings of the engine of the pipeline, by name."""
    environment: str = ""
    """Folder of the Python environment of the pipeline, on the server; empty: the server's."""
    code: bool = True
    """Copy Decathlete's code into the pipeline, so that it does not depend on the installed version."""

    @field_validator("version_policy")
    @classmethod
    def _known_policy(cls, text: str) -> str:
        parse_version_policy(text)
        return text

    @field_validator("resources")
    @classmethod
    def _some_of_each(cls, resources: dict[str, int]) -> dict[str, int]:
        if any(not name or count < 1 for name, count in resources.items()):
            raise ValueError("each resource needs a name and a number of at least 1")
        return resources

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = _find_problems(self)
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def with_network(self) -> bool:
        """Whether the network is written."""
        return self.models != "pipeline"

    @property
    def with_pipeline(self) -> bool:
        """Whether the pipeline is written."""
        return self.models != "network"

    @property
    def traits(self) -> FormatTraits:
        """The traits of the network's format in Triton."""
        return FORMATS[self.format]

    @property
    def has_profile(self) -> bool:
        """Whether shapes of a profile are given."""
        return bool(self.min_shape or self.opt_shape or self.max_shape)


def parse_version_policy(text: str) -> tuple[str, tuple[int, ...]]:
    """Return the kind of policy and its numbers.

    >>> parse_version_policy("specific:1,3")
    ('specific', (1, 3))

    Raises:
        ValueError: the text is not a policy.
    """
    kind, _, numbers = text.partition(":")
    if text == "all":
        return "all", ()
    found = tuple(parse_digits(part) or 0 for part in numbers.split(","))
    if all(found) and (kind == "specific" or (kind == "latest" and len(found) == 1)):
        return kind, found
    raise ValueError(f"{text!r} is no version policy: write latest:N, all, or specific:1,3")


def check_profile(settings: TritonSettings, patch_size: Sequence[int]) -> None:
    """Check that the shapes of a profile have the network's axes and contain the patch.

    Raises:
        OptionError: they do not.
    """
    shapes = {"--min-shape": settings.min_shape, "--opt-shape": settings.opt_shape, "--max-shape": settings.max_shape}
    for option, shape in shapes.items():
        if shape and (len(shape) != len(patch_size) or min(shape) < 1):
            raise OptionError(
                f"{option} has {len(shape)} sizes, and windows of this model have {len(patch_size)}, each at least 1",
                remedy=f"write {option} {'x'.join(str(n) for n in patch_size)}, for example",
            )
    low, best, high = (shape or tuple(patch_size) for shape in shapes.values())
    in_order = all(a <= b <= c for a, b, c in zip(low, best, high, strict=True))
    holds_patch = all(a <= p <= c for a, p, c in zip(low, patch_size, high, strict=True))
    if settings.has_profile and not (in_order and holds_patch):
        raise OptionError(
            f"the profile {low}, {best}, {high} is not in ascending order, or does not contain the model's patch "
            f"{tuple(patch_size)}",
            remedy="choose --min-shape <= --opt-shape <= --max-shape around the patch",
        )


def _find_problems(settings: TritonSettings) -> list[str]:
    """Return options that would have no effect, or that the format cannot follow, a clause each."""
    problems = _batching_problems(settings)
    kind, numbers = parse_version_policy(settings.version_policy)
    if kind == "specific" and settings.version not in numbers:
        problems.append(f"the version policy {settings.version_policy} does not serve the version {settings.version}")
    if settings.with_network:
        problems += _network_problems(settings)
    else:
        problems += _network_options(settings, "without the network")
    if not settings.with_pipeline:
        given = {
            "engine": settings.engine != AUTO or bool(settings.engine_settings),
            "environment": settings.environment != "",
            "code": not settings.code,
        }
        problems += [f"{option} has no effect without the pipeline" for option, is_given in given.items() if is_given]
    problems += _engine_problems(settings)
    if settings.with_pipeline and settings.precision == "int8":
        problems.append("int8 is for the network alone: choose --models network")
    return problems


def _batching_problems(settings: TritonSettings) -> list[str]:
    problems = [
        f"preferred batch size {size} exceeds the max batch size {settings.max_batch_size}"
        for size in settings.preferred_batch_sizes
        if not 1 <= size <= settings.max_batch_size
    ]
    if settings.max_batch_size == 1:
        delayed = settings.queue_delay_ms != QUEUE_DELAY_MS
        given = {"a queue delay": delayed, "a preferred batch size": bool(settings.preferred_batch_sizes)}
        problems += [f"{option} has no effect with batches of one" for option, is_given in given.items() if is_given]
    return problems


def _engine_problems(settings: TritonSettings) -> list[str]:
    """Return what the engine of the pipeline does not have, as far as it is known here."""
    if settings.engine == AUTO:
        return ["the engine auto has no settings: name an engine"] if settings.engine_settings else []
    if settings.engine not in ENGINES.names():
        return []  # the server has it
    try:
        cls = ENGINES.resolve(settings.engine).cls
        if settings.instance_kind == "gpu" and "cuda" not in cls.devices:
            return [f"the engine {settings.engine} has no instances of the kind gpu"]
        ENGINES.settings({**settings.engine_settings, "name": settings.engine})
    except OptionError as problem:
        return [problem.problem]
    return []


def _network_problems(settings: TritonSettings) -> list[str]:
    traits, name = settings.traits, settings.format
    accelerated = settings.accelerator == "tensorrt"
    wrong = {
        f"the format {name} has no precision {settings.precision} (it has {', '.join(traits.precisions)})": (
            settings.precision not in traits.precisions
        ),
        f"the format {name} cannot accept dynamic shapes": settings.dynamic_shapes and not traits.dynamic_shapes,
        "an int8 network cannot accept dynamic shapes": settings.dynamic_shapes and settings.precision == "int8",
        f"the format {name} ignores a profile of shapes": (
            settings.has_profile and not (traits.profiles or (accelerated and "tensorrt" in traits.accelerators))
        ),
        "a profile of shapes has no effect without dynamic shapes": (
            settings.has_profile and not settings.dynamic_shapes
        ),
        f"the format {name} ignores CUDA graphs": settings.cuda_graphs and not traits.cuda_graphs,
        f"the format {name} ignores the accelerator {settings.accelerator}": (
            settings.accelerator != "none" and settings.accelerator not in traits.accelerators
        ),
        f"the format {name} has no instances of the kind {settings.instance_kind}": (
            settings.instance_kind not in traits.kinds
        ),
        "the accelerator tensorrt needs instances on a GPU": accelerated and settings.instance_kind == "cpu",
        "the accelerator openvino needs instances on the CPU": (
            settings.accelerator == "openvino" and settings.instance_kind != "cpu"
        ),
        f"the format {name} ignores the number of threads": settings.threads > 0 and name == "tensorrt",
    }
    return [problem for problem, is_wrong in wrong.items() if is_wrong]


def _network_options(settings: TritonSettings, when: str) -> list[str]:
    given = {
        "format": settings.format != "onnx",
        "dynamic shapes": settings.dynamic_shapes,
        "a profile of shapes": settings.has_profile,
        "CUDA graphs": settings.cuda_graphs,
        "an accelerator": settings.accelerator != "none",
        "the response cache": settings.response_cache,
    }
    return [f"{option} has no effect {when}" for option, is_given in given.items() if is_given]
