"""Programs of a network for Triton's backends, and engines that compute them here, to compare them with the model."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from decathlete.core.extras import import_optional
from decathlete.core.files import translate_native_write_error
from decathlete.errors import ModelError, OptionError
from decathlete.export.programs import ProgramSource
from decathlete.export.triton_options import TritonSettings, check_profile
from decathlete.inference.engines.openvino import import_openvino, openvino_core
from decathlete.networks.convolutions import Conv3d, ConvTranspose3d
from decathlete.networks.instance_norm import EPS, InstanceNorm
from decathlete.networks.onnx_program import INPUT, OUTPUT, require_onnx

Compute = Callable[[Tensor], Tensor]
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_TENSORRT_WORKSPACE_BYTES = 4 << 30


def write_program(source: ProgramSource, settings: TritonSettings, folder: Path) -> Compute:
    """Write the program of a network into ``folder``; return a function that computes it here.

    Raises:
        MissingPackageError: a package is missing.
        ModelError: the format cannot represent the network.
        OptionError: the format cannot be written on this machine.
    """
    check_profile(settings, source.record.plan.patch_size)
    path = folder / settings.traits.file
    writers: dict[str, Callable[[], Compute]] = {
        "onnx": lambda: _write_onnx(source, settings, path),
        "torchscript-script": lambda: _write_torchscript(source, settings, path, by_script=True),
        "torchscript-trace": lambda: _write_torchscript(source, settings, path, by_script=False),
        "aotinductor": lambda: _write_aotinductor(source, settings, path),
        "openvino": lambda: _write_openvino(source, settings, path),
        "tensorrt": lambda: _write_tensorrt(source, settings, path),
    }
    return writers[settings.format]()


def check_format(settings: TritonSettings) -> None:
    """Raise an error for a format that cannot be written on this machine, before any work.

    Raises:
        MissingPackageError: a package is missing.
        OptionError: there is no GPU for TensorRT.
    """
    if settings.format == "onnx":
        require_onnx()
        _onnxruntime()
    elif settings.format == "openvino":
        require_onnx()
        import_openvino()
    elif settings.format == "tensorrt":
        _require_tensorrt()


class ProgramModule(nn.Module):
    """The mean of the float32 logits of several networks that compute in another precision.

    Modules with a path for training are replaced by plain ones, which compilers can read.
    """

    def __init__(self, networks: Sequence[nn.Module], precision: str) -> None:
        super().__init__()
        self.networks = nn.ModuleList([_without_training_paths(network) for network in networks])
        self.dtype = _DTYPES[precision]
        self.networks.to(self.dtype)

    def forward(self, windows: Tensor) -> Tensor:
        """Return the mean logits."""
        windows = windows.to(self.dtype)
        logits: Tensor = self.networks[0](windows).float()
        for network in list(self.networks)[1:]:
            logits = logits + network(windows).float()
        return logits / len(self.networks)


def _without_training_paths(network: nn.Module) -> nn.Module:
    """Return a copy of a network with torch's own modules in place of ours that differ only in training."""
    network = copy.deepcopy(network).eval()
    for name, module in list(network.named_modules()):
        plain: nn.Module | None = None
        if isinstance(module, InstanceNorm):
            plain = nn.GroupNorm(len(module.weight), len(module.weight), eps=EPS)
            plain.weight, plain.bias = module.weight, module.bias
        elif type(module) in (Conv3d, ConvTranspose3d):
            plain = copy.copy(module)
            plain.__class__ = nn.Conv3d if isinstance(module, Conv3d) else nn.ConvTranspose3d
        if plain is not None and name:
            parent, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent), leaf, plain)
    return network.eval().requires_grad_(requires_grad=False)


def _example(source: ProgramSource) -> Tensor:
    return torch.zeros(2, *source.record.window)


def _write_torchscript(source: ProgramSource, settings: TritonSettings, path: Path, *, by_script: bool) -> Compute:
    module = ProgramModule(source.networks(), settings.precision).eval()
    with _no_warnings(), torch.no_grad(), _named_failure("TorchScript"):
        if by_script:
            script = _script(module)
        else:
            script = torch.jit.trace(  # type: ignore[no-untyped-call]
                module, _example(source), check_trace=False
            )
        torch.jit.freeze(script).save(str(path))
    with _no_warnings():
        loaded = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    return _in_inference_mode(loaded)


def _script(module: nn.Module) -> torch.jit.ScriptModule:
    """Compile the graph of a module, which has no Python types that TorchScript does not know."""
    graph_module = fx.symbolic_trace(module)
    for node in graph_module.graph.nodes:
        node.type = None
    graph_module.recompile()
    script: torch.jit.ScriptModule = torch.jit.script(graph_module.eval())
    return script


def _write_aotinductor(source: ProgramSource, settings: TritonSettings, path: Path) -> Compute:
    """Compile with the C++ compiler of this machine, for the device of the instances."""
    device = "cuda" if settings.instance_kind == "gpu" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise OptionError(
            "an AOTInductor package for a GPU is compiled on one, and there is none here",
            remedy="choose --instance-kind cpu, or export where the GPU is",
        )
    module = ProgramModule(source.networks(), settings.precision).eval().to(device)
    batch = torch.export.Dim("n", min=1, max=settings.max_batch_size) if settings.max_batch_size > 1 else None
    example = _example(source)[: min(2, settings.max_batch_size)].to(device)
    with _no_warnings(), torch.no_grad(), _named_failure("AOTInductor"):
        program = torch.export.export(module, (example,), dynamic_shapes=({0: batch} if batch else None,))
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))
        compiled = torch._inductor.aoti_load_package(str(path))
    return _in_inference_mode(lambda windows: compiled(windows.to(device)).cpu())


def _write_onnx(source: ProgramSource, settings: TritonSettings, path: Path) -> Compute:
    onnx = require_onnx()
    model = onnx.load_from_string(source.onnx_program())
    if settings.dynamic_shapes:
        make_axes_dynamic(model)
    if settings.precision == "fp16":
        convert_to_fp16(model)
    with translate_native_write_error(path):
        onnx.save(model, str(path))
    session = _onnxruntime().InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda windows: torch.from_numpy(session.run(None, {INPUT: windows.numpy()})[0])


def make_axes_dynamic(model: Any) -> None:
    """Let an ``onnx.ModelProto`` accept windows of any size that its network can halve."""
    for value in (*model.graph.input, *model.graph.output):
        for place, axis in enumerate(value.type.tensor_type.shape.dim):
            if place >= 2:
                axis.Clear()
                axis.dim_param = f"size{place - 2}"


def convert_to_fp16(model: Any) -> None:
    """Let an ``onnx.ModelProto`` compute in float16; its input and output stay float32."""
    onnx = require_onnx()
    single, half = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    graph = model.graph
    tensors = [*graph.initializer, *(a.t for node in graph.node for a in node.attribute if a.HasField("t"))]
    for tensor in tensors:
        if tensor.data_type == single:
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), tensor.name))
    inside = {graph.input[0].name: f"{INPUT}_fp16", graph.output[0].name: f"{OUTPUT}_fp16"}
    for node in graph.node:
        node.input[:] = [inside.get(name, name) for name in node.input]
        node.output[:] = [inside.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == single:
                attribute.i = half
    (first, first_fp16), (last, last_fp16) = inside.items()
    begin = onnx.helper.make_node("Cast", [first], [first_fp16], to=half, name="to_fp16")
    end = onnx.helper.make_node("Cast", [last_fp16], [last], to=single, name="to_fp32")
    nodes = [begin, *graph.node, end]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)


def _write_openvino(source: ProgramSource, settings: TritonSettings, path: Path) -> Compute:
    openvino = import_openvino()
    model = openvino_core().read_model(source.onnx_program())
    if settings.dynamic_shapes:
        model.reshape(openvino.PartialShape([-1, source.record.window[0], *[-1] * len(source.record.window[1:])]))
    with translate_native_write_error(path):
        openvino.save_model(model, str(path), compress_to_fp16=False)
    return openvino_compute(path, settings.precision)


def openvino_compute(path: Path, precision: str) -> Compute:
    """Return a function that computes an OpenVINO program on the CPU."""
    hint = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    compiled = openvino_core().compile_model(str(path), "CPU", hint)
    return lambda windows: torch.from_numpy(compiled(windows.numpy())[0].copy())


def _write_tensorrt(source: ProgramSource, settings: TritonSettings, path: Path) -> Compute:
    """Build a plan with one profile; on this GPU, for GPUs of its kind and this version of TensorRT."""
    trt = _require_tensorrt()
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    onnx = require_onnx()
    model = onnx.load_from_string(source.onnx_program())
    if settings.dynamic_shapes:
        make_axes_dynamic(model)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ModelError(f"TensorRT cannot read the network ({reasons[:300]})", remedy="choose --format onnx")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _TENSORRT_WORKSPACE_BYTES)
    if settings.precision != "fp32":
        config.set_flag(trt.BuilderFlag.FP16 if settings.precision == "fp16" else trt.BuilderFlag.BF16)
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, *_profile(settings, source.record.window))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ModelError("TensorRT builds no plan of this network", remedy="choose --format onnx")
    path.write_bytes(bytes(plan))
    return _tensorrt_compute(trt, logger, path, n_outputs=source.record.output[0])


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


def _require_tensorrt() -> Any:
    missing = [] if torch.cuda.is_available() else ["a CUDA GPU (or a torch that uses it)"]
    try:
        trt = import_optional("tensorrt", title="TensorRT", extra="triton")
    except OptionError:
        trt = None
        missing.insert(0, "the Python package tensorrt")
    if missing:
        raise OptionError(
            f"a TensorRT plan is built on the GPU that computes it; missing here: {' and '.join(missing)}",
            remedy="export on the machine with the GPU, with the package tensorrt, or choose --format onnx with "
            "--accelerator tensorrt, which builds the plan when the server loads the model",
        )
    return trt


def other_window(window: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the shape of a window one step larger along each axis, to check a program with dynamic shapes.

    Args:
        window: channels, then the patch.
        strides: of each stage of the network.
    """
    steps = [prod(stage[axis] for stage in strides) for axis in range(len(window) - 1)]
    return (window[0], *(size + step for size, step in zip(window[1:], steps, strict=True)))


def _in_inference_mode(compute: Callable[[Tensor], Any]) -> Compute:
    def call(windows: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = compute(windows)
        return logits

    return call


def _onnxruntime() -> Any:
    return import_optional("onnxruntime", title="ONNX Runtime", extra="onnx", alternative="choose another --format")


@contextmanager
def _named_failure(title: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as problem:  # torch's compilers have many types of errors
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0][:200]
        raise ModelError(
            f"{title} cannot represent this network ({reason})",
            remedy="choose another --format",
        ) from problem


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Hide what torch reports about itself while it compiles, such as deprecated calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
