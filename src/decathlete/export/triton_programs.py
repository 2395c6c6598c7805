"""Programs of a network for Triton's backends, and engines that compute them here, to compare them with the model."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from decathlete.core.extras import import_optional
from decathlete.core.files import translate_native_write_error
from decathlete.errors import ModelError, OptionError
from decathlete.export.onnx_graphs import convert_to_half, make_axes_dynamic
from decathlete.export.parity import Compute
from decathlete.export.programs import ProgramSource
from decathlete.export.triton_options import OTHER_FORMAT, TritonSettings, check_profile
from decathlete.export.triton_tensorrt import require_tensorrt, write_tensorrt
from decathlete.inference.engines.openvino import import_openvino, openvino_core
from decathlete.networks.convolutions import Conv3d, ConvTranspose3d
from decathlete.networks.instance_norm import EPS, InstanceNorm
from decathlete.networks.onnx_program import INPUT, require_onnx

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


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
        "tensorrt": lambda: write_tensorrt(source, settings, path),
    }
    return writers[settings.format]()


def check_format(settings: TritonSettings) -> None:
    """Raise an error for a format that cannot be written on this machine, before any work.

    Raises:
        MissingPackageError: a package is missing.
        OptionError: there is no GPU for TensorRT.
    """
    if settings.format == "onnx":
        require_onnx(OTHER_FORMAT)
        _onnxruntime()
    elif settings.format == "openvino":
        require_onnx(OTHER_FORMAT)
        import_openvino()
    elif settings.format == "tensorrt":
        require_tensorrt()


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
    onnx = require_onnx(OTHER_FORMAT)
    model = onnx.load_from_string(source.onnx_program(alternative=OTHER_FORMAT))
    if settings.dynamic_shapes:
        make_axes_dynamic(model)
    if settings.precision == "fp16":
        convert_to_half(model, settings.precision)
    with translate_native_write_error(path):
        onnx.save(model, str(path))
    session = _onnxruntime().InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda windows: torch.from_numpy(session.run(None, {INPUT: windows.numpy()})[0])


def _write_openvino(source: ProgramSource, settings: TritonSettings, path: Path) -> Compute:
    openvino = import_openvino()
    model = openvino_core().read_model(source.onnx_program(alternative=OTHER_FORMAT))
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
    return import_optional("onnxruntime", title="ONNX Runtime", extra="onnx", alternative=OTHER_FORMAT)


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
            remedy=OTHER_FORMAT,
        ) from problem


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Hide what torch reports about itself while it compiles, such as deprecated calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
