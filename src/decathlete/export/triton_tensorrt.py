"""TensorRT plans of a network: built on the GPU that computes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decathlete.core.extras import how_to_install_package, import_optional
from decathlete.errors import MissingPackageError, ModelError, OptionError
from decathlete.export.onnx_graphs import convert_to_half, make_axes_dynamic
from decathlete.export.parity import Compute
from decathlete.export.programs import ProgramSource
from decathlete.export.triton_options import OTHER_FORMAT, TritonSettings
from decathlete.networks.onnx_program import INPUT, OUTPUT, require_onnx

_WORKSPACE_BYTES = 4 << 30


def write_tensorrt(source: ProgramSource, settings: TritonSettings, path: Path) -> Compute:
    """Build a plan with one profile; on this GPU, for GPUs of its kind and this version of TensorRT."""
    trt = require_tensorrt()
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(_onnx_graph(source, settings)):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ModelError(f"TensorRT cannot read the network ({reasons[:300]})", remedy="choose --format onnx")
    plan = builder.build_serialized_network(network, _builder_config(trt, builder, settings, source.record.window))
    if plan is None:
        raise ModelError("TensorRT builds no plan of this network", remedy="choose --format onnx")
    path.write_bytes(bytes(plan))
    return _tensorrt_compute(trt, logger, path, n_outputs=source.record.output[0])


def _onnx_graph(source: ProgramSource, settings: TritonSettings) -> bytes:
    """Return the network in the precision in which TensorRT computes it: a strongly typed network follows its types."""
    model = require_onnx(OTHER_FORMAT).load_from_string(source.onnx_program(alternative=OTHER_FORMAT))
    if settings.dynamic_shapes:
        make_axes_dynamic(model)
    if settings.precision != "fp32":
        convert_to_half(model, settings.precision)
    graph: bytes = model.SerializeToString()
    return graph


def _network_flags(trt: Any) -> int:
    """Return the flags of a strongly typed network: an option of TensorRT 10, and always so from version 11."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _builder_config(trt: Any, builder: Any, settings: TritonSettings, window: tuple[int, ...]) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    if settings.precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default, and of 10 bits: its logits would not be the model's
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, *_profile(settings, window))
    config.add_optimization_profile(profile)
    return config


def _profile(settings: TritonSettings, window: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the smallest, best and largest batch of windows."""
    low, best, high = (shape or window[1:] for shape in (settings.min_shape, settings.opt_shape, settings.max_shape))
    most = settings.max_batch_size
    middle = max([1, *settings.preferred_batch_sizes]) if settings.preferred_batch_sizes else most
    return (1, window[0], *low), (middle, window[0], *best), (most, window[0], *high)


def _tensorrt_compute(trt: Any, logger: Any, path: Path, *, n_outputs: int) -> Compute:
    engine = trt.Runtime(logger).deserialize_cuda_engine(path.read_bytes())
    context = engine.create_execution_context()

    def compute(windows: Tensor) -> Tensor:
        there = windows.cuda().contiguous()
        logits = torch.empty((len(there), n_outputs, *there.shape[2:]), device="cuda")
        context.set_input_shape(INPUT, tuple(there.shape))
        context.set_tensor_address(INPUT, there.data_ptr())
        context.set_tensor_address(OUTPUT, logits.data_ptr())
        stream = torch.cuda.current_stream()
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return logits.cpu()

    return compute


def require_tensorrt() -> Any:
    """Return the module ``tensorrt``.

    Raises:
        OptionError: it cannot be imported, or there is no GPU; the message names all that is missing.
    """
    missing, trt = [], None
    try:
        trt = import_optional("tensorrt", title="TensorRT", package="tensorrt")
    except MissingPackageError as problem:
        reason = f" ({problem.problem})" if problem.broken else f" ({how_to_install_package('tensorrt')})"
        missing.append(f"the Python package tensorrt{reason}")
    if not torch.cuda.is_available():
        missing.append("a CUDA GPU (or a torch that uses it)")
    if missing:
        raise OptionError(
            f"a TensorRT plan is built on the GPU that computes it; missing here: {' and '.join(missing)}",
            remedy="export on the machine with the GPU, with the version of tensorrt that the server has, or choose "
            "--format onnx with --accelerator tensorrt, which builds the plan when the server loads the model",
        )
    return trt
