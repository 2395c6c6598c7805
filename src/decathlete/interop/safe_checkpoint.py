"""Reads checkpoints in torch's format from untrusted sources, without running pickled code.

A pickle can call any function of any package. This module reads only what torch considers harmless (tensors, plain
values, containers) and the classes that the caller allows. A file that needs other classes or functions is rejected
before anything is loaded; the message names them.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from decathlete.core.files import access_error, is_access_error
from decathlete.core.placeholder_files import placeholder_error
from decathlete.errors import DecathleteError, ModelError
from decathlete.models.weights import STORED_TYPES
from decathlete.transfer.zips import find_damaged_member

Allowed = Callable[..., Any] | tuple[Callable[..., Any], str]
"""A class or function, with its name in the file if that is different."""

_make_scalar: Any = np.float64(0).__reduce__()[0]
NUMPY_SCALARS: tuple[Allowed, ...] = (
    (_make_scalar, "numpy.core.multiarray.scalar"),
    (_make_scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)),
)
"""NumPy scalars, which training loops log."""

_MAX_LISTED = 5
_ZIP = b"PK\x03\x04"
_ZIP_ERRORS = (
    OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_DAMAGE_ERRORS = (
    OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError, AssertionError,
    ArithmeticError, MemoryError, struct.error,
)  # fmt: skip
_UNSUPPORTED = re.compile(r"[Uu]nsupported (?:global: GLOBAL|GLOBAL|class) ([\w.<>]+)")
_REMEDY = "use a complete checkpoint that torch.save or Lightning has written"


def load_untrusted_checkpoint(
    path: Path, *, allowed: Sequence[Allowed] = (), keys: Sequence[str] = ()
) -> dict[str, Any]:
    """Load a checkpoint into the CPU's memory without running code.

    Args:
        path: file of the checkpoint.
        allowed: classes and functions that may be used besides tensors, plain values and containers.
        keys: entries that the caller needs, for the message.

    Raises:
        ModelError: the file is missing, damaged or not a checkpoint, or needs other classes or functions.
    """
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise placeholder_error(path, ModelError, code="E-MODEL-DAMAGED") or ModelError(
            problem, where=path, remedy="use the path of a checkpoint file"
        )
    _check_zip(path)
    with safe_globals(list(allowed)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about files that it then rejects
        if names := _find_unsafe_globals(path):
            raise _unsafe_error(path, names, keys)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as problem:
            raise _unsafe_error(path, _UNSUPPORTED.findall(str(problem)), keys) from None
        except _DAMAGE_ERRORS as problem:
            raise _damage_error(path, problem) from None
    if not isinstance(content, dict):
        raise ModelError("is not a checkpoint", where=path, remedy=_REMEDY)
    _reject_unusual_tensors(content, path)
    return content


def is_larger_than_storage(tensors: Iterable[Tensor]) -> bool:
    """Return whether tensors have more bytes than their storages.

    An expanded tensor repeats a few stored bytes to any size; a copy of it could fill the memory.
    """
    tensors = list(tensors)
    stored = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(t.numel() * t.element_size() for t in tensors) > sum(stored.values())


def _check_zip(path: Path) -> None:
    """Reject zip files with compressed members (torch.save does not compress) or with members that were changed.

    Compressed data can have any size. torch itself compares no checksum: a changed bit would change a weight.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = [m.filename for m in archive.infolist() if m.compress_type != zipfile.ZIP_STORED]
            damaged = None if compressed else find_damaged_member(archive)
    except _ZIP_ERRORS as problem:
        if _starts_like_zip(path):  # torch would read it, although its members could not be checked
            raise _damage_error(path, problem) from None
        return  # torch's old format, or not a checkpoint, which loading will show
    if compressed:
        raise ModelError(f"is compressed inside ({compressed[0]!a})", where=path, remedy=_REMEDY)
    if damaged:
        raise _damage_error(path, ValueError(f"the content of {damaged!a} does not match its checksum"))


def _reject_unusual_tensors(content: dict[str, Any], path: Path) -> None:
    """Reject tensors that are not dense arrays of real numbers on the CPU: no network has them.

    Raises:
        ModelError: names the first.
    """
    waiting: list[tuple[str, Any]] = [("", content)]
    seen: set[int] = set()  # a checkpoint may contain itself, or one list very often
    while waiting:
        name, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            waiting += [(f"{name}.{key}" if name else str(key), inner) for key, inner in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(f"{name}.{number}", inner) for number, inner in enumerate(value)]
        elif isinstance(value, Tensor) and (unusual := _unusual_kind(value)):
            raise ModelError(
                f"contains a tensor that is {unusual}: {name}",
                where=path,
                remedy="save the checkpoint again where the model was trained, with dense float32 tensors",
                code="E-MODEL-UNSUPPORTED",
            )


def _unusual_kind(tensor: Tensor) -> str | None:
    if tensor.is_nested or tensor.layout != torch.strided:
        return f"not dense ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.is_quantized or tensor.dtype not in STORED_TYPES.values():
        return f"of type {str(tensor.dtype).removeprefix('torch.')}"
    return None if tensor.device.type == "cpu" else f"without values (device {tensor.device.type})"


def _starts_like_zip(path: Path) -> bool:
    """Return whether the file starts like a zip file. torch decides by them, Python by the end of the file."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(_ZIP)) == _ZIP
    except OSError as problem:
        raise access_error(problem, path, kind=ModelError) from None


def _find_unsafe_globals(path: Path) -> list[str]:
    """Return the names that the pickle would import and that are not allowed, without unpickling it."""
    if not _starts_like_zip(path):
        return []  # torch's old format: torch.load rejects what is not allowed
    try:
        return sorted(get_unsafe_globals_in_checkpoint(str(path)))
    except (RuntimeError, ValueError, EOFError, OSError, AssertionError, pickle.UnpicklingError) as problem:
        raise _damage_error(path, problem) from None


def _unsafe_error(path: Path, names: Sequence[str], keys: Sequence[str]) -> DecathleteError:
    if not names:
        return _damage_error(path, None)
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    listed_keys = f"({', '.join(map(repr, keys))}{',' if len(keys) == 1 else ''})"
    return ModelError(
        f"requires code to be run when it is read: {', '.join(names[:_MAX_LISTED])}{more}; nothing was loaded",
        where=path,
        remedy="if you trust its source, write a plain copy where it was trained: "
        f"`c = torch.load(old, map_location='cpu'); torch.save({{k: c[k] for k in {listed_keys}}}, new)`",
        code="E-MODEL-UNSAFE",
    )


def _damage_error(path: Path, problem: Exception | None) -> DecathleteError:
    if isinstance(problem, OSError) and is_access_error(problem):
        return access_error(problem, path, kind=ModelError)
    reason = "" if problem is None else f" ({' '.join(str(problem).split())[:200]})"
    return placeholder_error(path, ModelError, code="E-MODEL-DAMAGED") or ModelError(
        f"is not a checkpoint, or is damaged{reason}", where=path, remedy=_REMEDY, code="E-MODEL-DAMAGED"
    )
