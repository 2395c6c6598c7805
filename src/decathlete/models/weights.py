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

from decathlete.core.files import access_error, file_digest, is_access_error, translate_native_write_error
from decathlete.core.placeholder_files import placeholder_error
from decathlete.errors import DecathleteError, ModelError
from decathlete.models.record import RECORD_FILE, FloatType, NetworkRecord
from decathlete.networks.build import build_network
from decathlete.planning.network_spec import NetworkSpec

REMEDY = "copy the model again from the computer that trained it, or train it again"

_LISTED = 3
LARGEST_WEIGHT = 1e6
"""Maximum absolute value of a learnable parameter: weight decay and norms keep those of trained networks below 1e3.
Greater ones are damage, and let logits overflow or a norm suppress a whole feature map."""
STORED_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_FLOAT_TYPES: dict[torch.dtype, FloatType] = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}


@dataclass(frozen=True, kw_only=True)
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

    @property
    def n_bytes(self) -> int:
        """Size of the weights of all networks, as they are stored; without those of unknown size (old records)."""
        sizes = ((network.n_parameters or 0, getattr(torch, network.dtype)) for network in self._networks)
        return sum(n_parameters * dtype.itemsize for n_parameters, dtype in sizes)

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


@dataclass(frozen=True, kw_only=True)
class NetworkTensors:
    """Tensors that the network of a plan has.

    Attributes:
        types: by name.
        parameters: names of those that are learned; the others are statistics and counters.
        n_parameters: number of learnable values.
    """

    types: Mapping[str, TensorType]
    parameters: frozenset[str]
    n_parameters: int

    @classmethod
    def of(cls, spec: NetworkSpec) -> NetworkTensors:
        """Return the tensors of the network that ``spec`` describes."""
        with torch.device("meta"):
            network = build_network(spec)
        return cls(
            types=describe(network.state_dict()),
            parameters=frozenset(name for name, _ in network.named_parameters(remove_duplicate=False)),
            n_parameters=sum(parameter.numel() for parameter in network.parameters()),
        )


def describe(state: Mapping[str, Tensor]) -> dict[str, TensorType]:
    """Return the name, shape and type of every tensor of a state dict."""
    return {name: TensorType(shape=tuple(value.shape), dtype=value.dtype) for name, value in state.items()}


def state_of(network: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of ``network``, on the CPU and contiguous."""
    state = network.state_dict() if isinstance(network, nn.Module) else network
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def save_weights(path: Path, state: Mapping[str, Tensor], expected: NetworkTensors, *, where: Path) -> FloatType:
    """Write a state dict, if it has the expected tensors and plausible values.

    Args:
        where: what messages name: the bundle, since ``path`` may be temporary.

    Returns:
        The type of its floating-point tensors.

    Raises:
        ModelError: see :func:`check_state`.
        OSError: the disk is full, or cannot be written.
    """
    dtype = check_state(state, expected, where=where)
    path.parent.mkdir(exist_ok=True)
    with translate_native_write_error(path):
        save_file(dict(state), path, metadata={"format": "pt"})
    return dtype


def check_state(state: Mapping[str, Tensor], expected: NetworkTensors, *, where: Path | str) -> FloatType:
    """Check a state dict: names, shapes, types and values of its tensors.

    Args:
        where: what messages name: the file that it was read from, or the bundle that it is for.

    Returns:
        The type of its floating-point tensors.

    Raises:
        ModelError: it does not fit, has several floating-point types or one that bundles cannot have, or has values
            that are not finite or above :data:`LARGEST_WEIGHT`.
    """
    found = describe(state)
    dtype: FloatType = next((_FLOAT_TYPES[t.dtype] for t in found.values() if t.dtype in _FLOAT_TYPES), "float32")
    check_types(found, expected.types, dtype, where=where)
    for name, value in state.items():
        _check_values(name, value, where=where, is_learned=name in expected.parameters)
    return dtype


def check_file(folder: Path, networks: Sequence[NetworkRecord], specs: Sequence[NetworkSpec]) -> str:
    """Check one weights file against the records of its networks.

    Args:
        networks: all networks that are in the file.
        specs: the spec of each.

    Returns:
        SHA-256 of the file, hexadecimal.

    Raises:
        ModelError: the file is missing, cannot be read, is damaged, or is not the one that the record describes; or
            tensors are missing, unknown, of another shape or type, or have values that are not finite or too large.
    """
    path = folder / networks[0].file
    if not path.is_file():
        code = "E-MODEL-WEIGHTS-MISSING"
        raise placeholder_error(path, ModelError, code=code) or ModelError(
            f"has no {networks[0].file}", where=folder, remedy=REMEDY, code=code
        )
    digest = _digest(path)
    found = _stored_types(path)
    learned: set[str] = set()
    for network, spec in zip(networks, specs, strict=True):
        tensors = NetworkTensors.of(spec)
        learned |= {network.prefix + name for name in tensors.parameters}
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
    if {network.sha256 for network in networks} - {digest, None}:
        raise ModelError(
            f"is not the file that {RECORD_FILE} describes", where=path, remedy=REMEDY, code="E-MODEL-DIGEST"
        )
    for name, value in _tensors(path):
        _check_values(name, value, where=path, is_learned=name in learned)
    return digest


def read_weights(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Read the tensors whose names begin with ``prefix``; the prefix is removed.

    Raises:
        ModelError: the file cannot be read any more.
    """
    return {name.removeprefix(prefix): value for name, value in _tensors(path, prefix)}


def check_types(
    found: Mapping[str, TensorType], expected: Mapping[str, TensorType], dtype: FloatType, *, where: Path | str
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


def _raise_mismatch(problems: Sequence[str], *, where: Path | str) -> None:
    if problems:
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise ModelError(
            "the weights do not fit the plan's network: " + "; ".join(problems[:_LISTED]) + more,
            where=where,
            remedy="use the files of one model together, as they were saved",
            code="E-MODEL-WEIGHTS-FIT",
        )


def _type_name(dtype: torch.dtype | None) -> str:
    return "unknown" if dtype is None else str(dtype).removeprefix("torch.")


def _check_values(name: str, value: Tensor, *, where: Path | str, is_learned: bool) -> None:
    if not value.is_floating_point() or not value.numel():
        return
    # By NumPy, whose single thread is faster here than torch's several on a busy machine.
    array = value.detach().float().numpy()
    extremes = np.array([array.min(), array.max()])  # NaN if any value is
    if not np.isfinite(extremes).all():
        problem = "contains NaN or infinite values"
    elif is_learned and (greatest := np.abs(extremes).max()) > LARGEST_WEIGHT:
        problem = f"contains a weight of {greatest:.3g}, and those of trained networks are below {LARGEST_WEIGHT:g}"
    else:
        return
    raise ModelError(
        f"the tensor {name} {problem}",
        where=where,
        remedy="copy the model again from its source; if its training diverged, train again with a lower learning rate",
        code="E-MODEL-NOT-FINITE",
    )


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; reading all of it also finds a file that may not be read, or a bad disk."""
    try:
        return file_digest(path)
    except OSError as problem:
        raise access_error(problem, path, kind=ModelError) from None


def _stored_types(path: Path) -> dict[str, TensorType]:
    """Read the types of the tensors from the header alone, which also finds a truncated file."""
    try:
        with safe_open(path, framework="pt") as weights:
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
            return {
                name: TensorType(shape=tuple(part.get_shape()), dtype=STORED_TYPES.get(part.get_dtype()))
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


def _damaged(path: Path, problem: Exception) -> DecathleteError:
    if isinstance(problem, OSError) and is_access_error(problem):
        return access_error(problem, path, kind=ModelError)
    return placeholder_error(path, ModelError, code="E-MODEL-WEIGHTS-DAMAGED") or ModelError(
        f"is damaged or not a safetensors file ({problem})", where=path, remedy=REMEDY, code="E-MODEL-WEIGHTS-DAMAGED"
    )
