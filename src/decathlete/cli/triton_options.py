"""Options of ``export triton``: one dataclass for each section of its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from decathlete.cli.component_settings import (
    ENGINE,
    EngineAndReadingSettings,
    parse_engine_settings,
    reject_others,
    split_image_formats,
)
from decathlete.cli.option_values import parse_integers
from decathlete.cli.triton_client_options import name_option, warmup_option
from decathlete.core.assignments import split_assignments_of
from decathlete.core.digits import parse_digits
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.export.triton_options import TritonSettings

MODELS, BATCHING, ACCELERATION = "Models", "Batches and instances", "Acceleration"
Format = Literal["onnx", "torchscript-script", "torchscript-trace", "aotinductor", "openvino", "tensorrt"]
Models = Annotated[
    Literal["both", "network", "pipeline"],
    typer.Option(
        "--models",
        rich_help_panel=MODELS,
        help="Network (windows to logits), pipeline (image to label map), or both.",
    ),
]


def _shape_option(flag: str, help_: str) -> Any:
    return typer.Option(flag, metavar="Z,Y,X", show_default="the patch", rich_help_panel=ACCELERATION, help=help_)


@dataclass(frozen=True, kw_only=True)
class TritonModelArguments:
    """What is written."""

    name: Annotated[str, name_option("Name of the models: NAME_network and NAME_pipeline.", panel=MODELS)] = ""
    models: Models = "both"
    format: Annotated[
        Format,
        typer.Option(
            "--format", rich_help_panel=MODELS, help="Format of the network; tensorrt needs TensorRT and a GPU here."
        ),
    ] = "onnx"
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"],
        typer.Option(
            "--precision",
            rich_help_panel=MODELS,
            help="Precision of the network, and of the pipeline, which uses fp32 if its device or engine lacks it. "
            "int8: openvino networks only; rejected if the mean Dice of validation cases falls by 0.002 or more.",
        ),
    ] = "fp32"
    engine: Annotated[
        str,
        typer.Option("--engine", metavar="NAME", rich_help_panel=MODELS, help="Inference engine of the pipeline."),
    ] = "auto"
    set_: EngineAndReadingSettings = None
    environment: Annotated[
        str,
        typer.Option(
            "--environment",
            metavar="DIR",
            show_default="the server's",
            rich_help_panel=MODELS,
            help="Python environment of the pipeline, a folder on the server.",
        ),
    ] = ""
    code: Annotated[
        bool,
        typer.Option(
            "--code/--no-code",
            rich_help_panel=MODELS,
            help="Copy Decathlete's code into the pipeline; without it, the server's environment must have it.",
        ),
    ] = True
    version: Annotated[
        int,
        typer.Option(
            "--version", metavar="N", min=1, rich_help_panel=MODELS, help="Number of the version; others stay."
        ),
    ] = 1
    version_policy: Annotated[
        str,
        typer.Option(
            "--version-policy",
            metavar="POLICY",
            rich_help_panel=MODELS,
            help="Versions that are served: latest:N, all, or specific:1,3.",
        ),
    ] = "latest:1"


@dataclass(frozen=True, kw_only=True)
class TritonBatchingArguments:
    """How requests are batched, and where they are computed."""

    max_batch_size: Annotated[
        int,
        typer.Option(
            "--max-batch-size",
            metavar="N",
            min=1,
            rich_help_panel=BATCHING,
            help="Most windows (network) or images (pipeline) that Triton passes on together.",
        ),
    ] = 8
    preferred_batch_sizes: Annotated[
        str | None,
        typer.Option(
            "--preferred-batch-sizes",
            metavar="N,N",
            show_default="none",
            rich_help_panel=BATCHING,
            help="Batch sizes for which the dynamic batcher does not wait longer.",
        ),
    ] = None
    queue_delay: Annotated[
        float,
        typer.Option(
            "--queue-delay",
            metavar="MS",
            min=0,
            rich_help_panel=BATCHING,
            help="Longest time that a request waits for others of its batch, ms.",
        ),
    ] = 5.0
    instances: Annotated[
        int,
        typer.Option(
            "--instances",
            metavar="N",
            min=1,
            rich_help_panel=BATCHING,
            help="Instances of each model, on each GPU or on the CPU.",
        ),
    ] = 1
    instance_kind: Annotated[
        Literal["auto", "cpu", "gpu"],
        typer.Option(
            "--instance-kind",
            rich_help_panel=BATCHING,
            help="Device of the instances; auto: a GPU if the server has one.",
        ),
    ] = "auto"
    threads: Annotated[
        int,
        typer.Option(
            "--threads",
            metavar="N",
            min=0,
            show_default="the backend's choice",
            rich_help_panel=BATCHING,
            help="Threads of an instance on a CPU.",
        ),
    ] = 0
    warmup: Annotated[int, warmup_option("Requests that are computed before a model is ready.", panel=BATCHING)] = 0
    resource: Annotated[
        list[str] | None,
        typer.Option(
            "--resource",
            metavar="NAME=N",
            rich_help_panel=BATCHING,
            help="Resource of the rate limiter that an instance needs while it computes. Can be repeated.",
        ),
    ] = None
    priority: Annotated[
        int,
        typer.Option(
            "--priority",
            metavar="N",
            min=0,
            show_default="none",
            rich_help_panel=BATCHING,
            help="Priority of the instances in the rate limiter; 1 is the highest.",
        ),
    ] = 0
    response_cache: Annotated[
        bool,
        typer.Option(
            "--response-cache/--no-response-cache",
            rich_help_panel=BATCHING,
            help="Answer repeated requests to the network from the server's cache.",
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class TritonAcceleratorArguments:
    """Shapes and accelerators of the network."""

    dynamic_shapes: Annotated[
        bool,
        typer.Option(
            "--dynamic-shapes/--fixed-shapes",
            rich_help_panel=ACCELERATION,
            help="Accept windows of other sizes than the patch, too.",
        ),
    ] = False
    min_shape: Annotated[str | None, _shape_option("--min-shape", "Smallest window of TensorRT's profile.")] = None
    opt_shape: Annotated[
        str | None, _shape_option("--opt-shape", "Window that TensorRT's profile is optimised for.")
    ] = None
    max_shape: Annotated[str | None, _shape_option("--max-shape", "Largest window of TensorRT's profile.")] = None
    cuda_graphs: Annotated[
        bool,
        typer.Option(
            "--cuda-graphs/--no-cuda-graphs", rich_help_panel=ACCELERATION, help="Capture CUDA graphs (tensorrt)."
        ),
    ] = False
    accelerator: Annotated[
        Literal["none", "tensorrt", "openvino"],
        typer.Option(
            "--accelerator",
            rich_help_panel=ACCELERATION,
            help="Execution accelerator of ONNX Runtime: TensorRT on GPUs, OpenVINO on CPUs.",
        ),
    ] = "none"


def to_settings(
    models: TritonModelArguments, batching: TritonBatchingArguments, accelerators: TritonAcceleratorArguments
) -> TritonSettings:
    """Return the exporter's settings.

    Raises:
        OptionError: options that do not fit together; all problems at once.
    """
    from pydantic import ValidationError

    from decathlete.core.schema import describe
    from decathlete.errors import problems_found
    from decathlete.export.triton_options import TritonSettings

    fields: dict[str, Any] = {**vars(models), **vars(batching), **vars(accelerators)}
    for name in ("preferred_batch_sizes", "min_shape", "opt_shape", "max_shape"):
        flag = f"--{name.replace('_', '-')}"
        fields[name] = tuple(parse_integers(fields[name], flag=flag) or ())
    fields["queue_delay_ms"] = fields.pop("queue_delay")
    _, assignments = split_image_formats(fields.pop("set_"))
    of_engine, others = split_assignments_of([ENGINE], assignments)
    reject_others(others, "engine.SETTING=VALUE or image_format.NAME.SETTING=VALUE")
    if of_engine:
        fields["engine_settings"] = parse_engine_settings(of_engine)
    fields["resources"] = _parse_resources(fields.pop("resource") or [])
    try:
        return TritonSettings(**fields)
    except ValidationError as problem:
        raise problems_found(
            describe(problem), where="export triton", remedy="fix these options", kind=OptionError
        ) from None


def _parse_resources(given: list[str]) -> dict[str, int]:
    resources = {}
    for item in given:
        name, _, text = item.partition("=")
        count = parse_digits(text)
        if not name or count is None:
            raise OptionError(f"--resource {item} is not NAME=N", remedy="write for example --resource GPU_MEMORY=2")
        resources[name] = count
    return resources
