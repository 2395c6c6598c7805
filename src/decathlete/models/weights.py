"""Weights of networks as safetensors files: written, and checked before anything uses them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from decathlete.core.files import file_digest
from decathlete.errors import ModelError
from decathlete.models.record import RECORD_FILE, FloatType, NetworkRecord
from decathlete.networks.build import build_network
from decathlete.planning.network_spec import NetworkSpec

REMEDY = "copy the model again from the computer that trained it, or train it again"

_LISTED = 3
_STORED_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_FLOAT_TYPES: dict[torch.dtype, FloatType] = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}


@dataclass(frozen=True)
class TensorType:
    """Shape and type of a tensor; ``dtype`` is ``None`` for a type that no network has."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None


class StoredNetworks(Sequence[Mapping[str, Tensor]]):
    """The state dicts of networks in a bundle; each is read when it is used.

    Args:
        folder: of the bundle.
    """

    def __init__(self, folder: Path, networks: Sequence[NetworkRecord]) -> None:
        self._folder, self._networks = folder, tuple(networks)

    def __len__(self) -> int:
        return len(self._networks)

    @overload
    def __getitem__(self, number: int) -> Mapping[str, Tensor]: ...
    @overload
    def __getitem__(self, number: slice) -> StoredNetworks: ...
    def __getitem__(self, number: int | slice) -> Mapping[str, Tensor] | StoredNetworks:
        if isinstance(number, slice):
            return StoredNetworks(self._folder, self._networks[number])
        network = self._networks[number]
        return read_weights(self._folder / network.file, network.prefix)


@dataclass(frozen=True)
class NetworkTensors:
    """Tensors that the network of a plan has.

    Attributes:
        types: by name.
        n_parameters: number of learnable values.
    """

    types: Mapping[str, TensorType]
    n_parameters: int

    @classmethod
    def of(cls, spec: NetworkSpec) -> NetworkTensors:
        """The tensors of the network that ``spec`` describes."""
        with torch.device("meta"):
            network = build_network(spec)
        return cls(describe(network.state_dict()), sum(parameter.numel() for parameter in network.parameters()))


def describe(state: Mapping[str, Tensor]) -> dict[str, TensorType]:
    """Name, shape and type of every tensor of a state dict."""
    return {name: TensorType(tuple(value.shape), value.dtype) for name, value in state.items()}


def state_of(network: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of ``network``, on the CPU and contiguous."""
    state = network.state_dict() if isinstance(network, nn.Module) else network
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def save_weights(path: Path, state: Mapping[str, Tensor], expected: NetworkTensors, *, where: Path) -> FloatType:
    """Write a state dict, if it has the expected tensors and is finite.

    Args:
        where: what messages name: the bundle, since ``path`` may be temporary.

    Returns:
        The type of its floating-point tensors.

    Raises:
        ModelError: it does not fit, has several floating-point types or one that bundles cannot have, or is not finite.
    """
    found = describe(state)
    dtype: FloatType = next((_FLOAT_TYPES[t.dtype] for t in found.values() if t.dtype in _FLOAT_TYPES), "float32")
    check_types(found, expected.types, dtype, where=where)
    for name, value in state.items():
        _check_finite(name, value, where=where)
    path.parent.mkdir(exist_ok=True)
    save_file(dict(state), path, metadata={"format": "pt"})
    return dtype


def check_file(folder: Path, networks: Sequence[NetworkRecord], specs: Sequence[NetworkSpec]) -> None:
    """Check one weights file against the records of its networks.

    Args:
        networks: all networks that are in the file.
        specs: the spec of each.

    Raises:
        ModelError: the file is missing, damaged, or not the one that the record describes; or tensors are missing,
            unknown, of another shape or type, or not finite.
    """
    path = folder / networks[0].file
    if not path.is_file():
        raise ModelError(f"has no {networks[0].file}", where=folder, remedy=REMEDY, code="E-MODEL-WEIGHTS-MISSING")
    found = _stored_types(path)
    for network, spec in zip(networks, specs, strict=True):
        tensors = NetworkTensors.of(spec)
        own = {name: kind for name, kind in found.items() if name.startswith(network.prefix)}
        expected = {network.prefix + name: kind for name, kind in tensors.types.items()}
        check_types(own, expected, network.dtype, where=path)
        if network.n_parameters not in (None, tensors.n_parameters):
            raise ModelError(
                f"n_parameters of {network.file} is {network.n_parameters}, the plan's network has "
                f"{tensors.n_parameters}",
                where=folder / RECORD_FILE,
                remedy=REMEDY,
                code="E-MODEL-WEIGHTS-FIT",
            )
    unknown = [name for name in found if not any(name.startswith(network.prefix) for network in networks)]
    _raise_mismatch([f"{name} is unknown" for name in unknown], where=path)
    if {network.sha256 for network in networks} != {file_digest(path)}:
        raise ModelError(
            f"is not the file that {RECORD_FILE} describes", where=path, remedy=REMEDY, code="E-MODEL-DIGEST"
        )
    for name, value in _tensors(path):
        _check_finite(name, value, where=path)


def read_weights(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it.

    Raises:
        ModelError: the file cannot be read any more.
    """
    return {name.removeprefix(prefix): value for name, value in _tensors(path, prefix)}


def check_types(
    found: Mapping[str, TensorType], expected: Mapping[str, TensorType], dtype: FloatType, *, where: Path
) -> None:
    """Check names, shapes and types of tensors against those of the plan's network.

    Args:
        dtype: required type of floating-point tensors.

    Raises:
        ModelError: with the first problems.
    """
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is unknown" for name in found if name not in expected]
    common = [(name, found[name], kind) for name, kind in expected.items() if name in found]
    problems += [
        f"{name} has shape {own.shape}, not {kind.shape}" for name, own, kind in common if own.shape != kind.shape
    ]
    for name, own, kind in common:
        assert kind.dtype is not None  # for the type checker: torch's own
        required = getattr(torch, dtype) if kind.dtype.is_floating_point else kind.dtype
        if own.dtype != required:
            problems.append(f"{name} has type {_type_name(own.dtype)}, not {_type_name(required)}")
    _raise_mismatch(problems, where=where)


def _raise_mismatch(problems: Sequence[str], *, where: Path) -> None:
    if problems:
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise ModelError(
            "the weights do not fit the plan's network: " + "; ".join(problems[:_LISTED]) + more,
            where=where,
            remedy=f"keep {RECORD_FILE} and the weights of one model together",
            code="E-MODEL-WEIGHTS-FIT",
        )


def _type_name(dtype: torch.dtype | None) -> str:
    return "unknown" if dtype is None else str(dtype).removeprefix("torch.")


def _check_finite(name: str, value: Tensor, *, where: Path) -> None:
    # By NumPy, whose single thread is faster here than torch's several on a busy machine.
    if value.is_floating_point() and not np.isfinite(value.detach().float().numpy()).all():
        raise ModelError(
            f"the tensor {name} contains NaN or infinite values",
            where=where,
            remedy="train again with a lower learning rate, or copy the model again if it was finite",
            code="E-MODEL-NOT-FINITE",
        )


def _stored_types(path: Path) -> dict[str, TensorType]:
    """From the header alone, which also finds a truncated file."""
    try:
        with safe_open(path, framework="pt") as weights:
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
            return {
                name: TensorType(tuple(part.get_shape()), _STORED_TYPES.get(part.get_dtype()))
                for name, part in slices.items()
            }
    except (OSError, SafetensorError) as problem:
        raise _damaged(path, problem) from problem


def _tensors(path: Path, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                if name.startswith(prefix):
                    yield name, weights.get_tensor(name)
    except (OSError, SafetensorError) as problem:
        raise _damaged(path, problem) from problem


def _damaged(path: Path, problem: Exception) -> ModelError:
    return ModelError(
        f"is damaged or not a safetensors file ({problem})", where=path, remedy=REMEDY, code="E-MODEL-WEIGHTS-DAMAGED"
    )
