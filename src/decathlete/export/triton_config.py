"""Write ``config.pbtxt`` for Triton Inference Server with the schema of its own protocol buffers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from decathlete.core.extras import import_optional
from decathlete.core.labels import LabelSet
from decathlete.errors import ModelError
from decathlete.export.triton_options import TritonSettings, parse_version_policy
from decathlete.networks.outputs import file_dtype

WINDOWS, LOGITS = "windows", "logits"
"""Names of the network's input and output; TorchScript and AOTInductor append the place, as in ``windows__0``."""
LABEL_TYPES = {f"{sign}int{bits}": f"TYPE_{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
WARMUP_FILES = ("volume", "affine")
"""Inputs of the pipeline's warm-up that are read from files in the folder ``warmup``: Triton's own random numbers
contain NaN, and are no grid."""


def network_config(settings: TritonSettings, name: str, *, window: Sequence[int], n_outputs: int) -> str:
    """Return the configuration of a network.

    Args:
        name: of the model in the repository.
        window: channels, then the patch.
        n_outputs: channels of the logits.

    Raises:
        MissingPackageError: tritonclient is missing.
    """
    config, traits = _new_config(settings, name), settings.traits
    config.backend, config.platform = traits.backend, traits.platform
    config.max_batch_size = settings.max_batch_size
    spatial = [-1] * (len(window) - 1) if settings.dynamic_shapes else list(window[1:])
    ending = "__0" if traits.backend == "pytorch" else ""
    _add(config.input, WINDOWS + ending, "TYPE_FP32", [window[0], *spatial])
    _add(config.output, LOGITS + ending, "TYPE_FP32", [n_outputs, *spatial])
    if settings.response_cache:
        config.response_cache.enable = True
    _add_batching(config, settings)
    _add_instances(config, settings)
    _add_optimization(config, settings, window, config.input[0].name)
    for key, value in _backend_parameters(settings).items():
        config.parameters[key].string_value = value
    _add_warmup(config, settings, {config.input[0].name: ("TYPE_FP32", list(window))})
    return format_config(config)


def pipeline_config(
    settings: TritonSettings, name: str, *, patch: Sequence[int], n_channels: int, labels: LabelSet
) -> str:
    """Return the configuration of a pipeline: an image of any size in, its label map out.

    Requests of several clients are batched: inputs are ragged, for images differ in size. Answers are not cached: the
    cache does not compare the parameters of requests, and would answer those for probabilities without them.

    Args:
        patch: of the model; a warm-up image has this size.

    Raises:
        MissingPackageError: tritonclient is missing.
    """
    config = _new_config(settings, name)
    config.backend, config.max_batch_size = "python", settings.max_batch_size
    for field, dtype, dims in (
        ("volume", "TYPE_FP32", [n_channels, -1, -1, -1]),
        ("affine", "TYPE_FP64", [4, 4]),
        ("file", "TYPE_UINT8", [-1]),
    ):
        _add(config.input, field, dtype, dims)
        config.input[-1].optional = config.input[-1].allow_ragged_batch = True
    for field, dtype, dims in (
        ("label", LABEL_TYPES[file_dtype(labels).name], [-1, -1, -1]),
        ("label_affine", "TYPE_FP64", [4, 4]),
        ("volumes_ml", "TYPE_FP64", [len(labels.structures)]),
        ("report", "TYPE_UINT8", [-1]),
        ("probabilities", "TYPE_FP32", [labels.n_outputs, -1, -1, -1]),
    ):
        _add(config.output, field, dtype, dims)
    _add_batching(config, settings)
    _add_instances(config, settings)
    for key, value in _pipeline_parameters(settings).items():
        config.parameters[key].string_value = value
    shape = [*(1,) * (3 - len(patch)), *patch]
    _add_warmup(config, settings, {"volume": ("TYPE_FP32", [n_channels, *shape]), "affine": ("TYPE_FP64", [4, 4])})
    return format_config(config)


def format_config(config: Any) -> str:
    """Return the text of a ``ModelConfig``, after it was parsed again.

    Raises:
        ModelError: the text does not describe the same configuration.
    """
    text_format = _protobuf()
    text: str = text_format.MessageToString(config)
    if parse_config(text) != config:
        raise ModelError("its Triton configuration cannot be written as text", remedy="report this with the options")
    return text


def parse_config(text: str) -> Any:
    """Return the ``ModelConfig`` of a ``config.pbtxt``.

    Raises:
        MissingPackageError: tritonclient is missing.
        ModelError: a field is unknown, or the text is damaged.
    """
    text_format, schema = _protobuf(), _schema()
    try:
        return text_format.Parse(text, schema.ModelConfig())
    except text_format.ParseError as problem:
        raise ModelError(
            f"is no configuration of a Triton model ({problem})", remedy="export the model again"
        ) from problem


def _new_config(settings: TritonSettings, name: str) -> Any:
    config = _schema().ModelConfig(name=name)
    kind, numbers = parse_version_policy(settings.version_policy)
    if kind == "all":
        config.version_policy.all.SetInParent()
    elif kind == "latest":
        config.version_policy.latest.num_versions = numbers[0]
    else:
        config.version_policy.specific.versions.extend(numbers)
    return config


def _add(fields: Any, name: str, dtype: str, dims: Sequence[int]) -> None:
    field = fields.add(name=name, dims=dims)
    field.data_type = _schema().DataType.Value(dtype)


def _add_batching(config: Any, settings: TritonSettings) -> None:
    config.dynamic_batching.max_queue_delay_microseconds = round(settings.queue_delay_ms * 1000)
    config.dynamic_batching.preferred_batch_size.extend(settings.preferred_batch_sizes)


def _add_instances(config: Any, settings: TritonSettings) -> None:
    """Add the instances; one of the openvino backend is always on the CPU."""
    group = config.instance_group.add(count=settings.instances)
    only_cpu = config.backend == "openvino"
    kind = "KIND_CPU" if only_cpu else f"KIND_{settings.instance_kind.upper()}"
    group.kind = type(group).Kind.Value(kind)
    group.rate_limiter.priority = settings.priority
    for name, count in settings.resources.items():
        group.rate_limiter.resources.add(name=name, count=count)
    if not (settings.priority or settings.resources):
        group.ClearField("rate_limiter")


def _add_optimization(config: Any, settings: TritonSettings, window: Sequence[int], input_name: str) -> None:
    if settings.cuda_graphs:
        config.optimization.cuda.graphs = True
    accelerators = config.optimization.execution_accelerators
    if settings.accelerator == "openvino":
        accelerators.cpu_execution_accelerator.add(name="openvino")
    elif settings.accelerator == "tensorrt":
        accelerator = accelerators.gpu_execution_accelerator.add(name="tensorrt")
        accelerator.parameters["precision_mode"] = "FP16" if settings.precision == "fp16" else "FP32"
        if settings.has_profile:
            shapes = {"min": settings.min_shape, "opt": settings.opt_shape, "max": settings.max_shape}
            for end, shape in shapes.items():
                batch = 1 if end == "min" else settings.max_batch_size
                sizes = "x".join(str(n) for n in (batch, window[0], *(shape or window[1:])))
                accelerator.parameters[f"trt_profile_{end}_shapes"] = f"{input_name}:{sizes}"


def _backend_parameters(settings: TritonSettings) -> dict[str, str]:
    """Return what the backend reads: the names are the backend's own."""
    parameters: dict[str, str] = {}
    threads = str(settings.threads) if settings.threads else ""
    if settings.traits.backend == "onnxruntime" and threads:
        parameters |= {"intra_op_thread_count": threads, "inter_op_thread_count": "1"}
    elif settings.traits.backend == "pytorch":
        if settings.traits.platform == "pytorch_libtorch":
            parameters["INFERENCE_MODE"] = "true"
        if threads:
            parameters |= {"INTRA_OP_THREAD_COUNT": threads, "INTER_OP_THREAD_COUNT": "1"}
    elif settings.traits.backend == "openvino":
        if threads:
            parameters["INFERENCE_NUM_THREADS"] = threads
        if settings.precision == "bf16":
            parameters["HINT_BF16"] = "YES"
    return parameters


def _pipeline_parameters(settings: TritonSettings) -> dict[str, str]:
    parameters = {"engine": settings.engine, "precision": settings.precision, "threads": str(settings.threads)}
    if settings.engine_settings:
        parameters["engine_settings"] = json.dumps(settings.engine_settings)
    if settings.environment:
        parameters["EXECUTION_ENV_PATH"] = settings.environment
    return parameters


def _add_warmup(config: Any, settings: TritonSettings, inputs: dict[str, tuple[str, list[int]]]) -> None:
    if settings.warmup == 0:
        return
    warmup = config.model_warmup.add(name="warmup", batch_size=1, count=settings.warmup)
    for name, (dtype, dims) in inputs.items():
        warmup.inputs[name].data_type = _schema().DataType.Value(dtype)
        warmup.inputs[name].dims.extend(dims)
        if name in WARMUP_FILES:
            warmup.inputs[name].input_data_file = name
        else:
            warmup.inputs[name].zero_data = True


def _schema() -> Any:
    return import_optional(
        "tritonclient.grpc.model_config_pb2", title="Triton's client", extra="triton", alternative=None
    )


def _protobuf() -> Any:
    return import_optional("google.protobuf.text_format", title="protobuf", extra="triton", alternative=None)
