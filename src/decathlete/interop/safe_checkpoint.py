"""Checkpoints that come from outside: torch's format, read without running what may be pickled into them.

A pickle can name any function of any package and have it called. Here only what torch itself holds harmless is read
(tensors, plain values, containers), and the few classes that the caller names; whatever else a file asks for is refused
by name before anything is loaded.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from decathlete.errors import ModelError

Allowed = Callable[..., Any] | tuple[Callable[..., Any], str]
"""A class or function; with the name that a file knows it by, if that is another."""

_make_scalar: Any = np.float64(0).__reduce__()[0]
NUMPY_SCALARS: tuple[Allowed, ...] = (
    (_make_scalar, "numpy.core.multiarray.scalar"),
    (_make_scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)),
)
"""Single numbers of NumPy, as training loops log them."""

_NAMED = 5
_ZIP = b"PK\x03\x04"
_DAMAGED = (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError)
_REFUSED = re.compile(r"[Uu]nsupported (?:global: GLOBAL|GLOBAL|class) ([\w.<>]+)")
_NO_CHECKPOINT = "give a checkpoint as torch.save or Lightning writes it, whole"


def load_from_outside(path: Path, *, allowed: Sequence[Allowed] = (), keys: Sequence[str] = ()) -> dict[str, Any]:
    """What a checkpoint holds, in the CPU's memory.

    Args:
        allowed: classes and functions of which things may be made besides tensors, plain values and their containers.
        keys: the entries that are needed of it; the remedy names them.

    Raises:
        ModelError: missing, damaged, no checkpoint, or in need of more classes or functions, which are named.
    """
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise ModelError(problem, where=path, remedy="give the path of a checkpoint file")
    _refuse_compressed(path)
    with safe_globals(list(allowed)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about files that it then refuses
        if more := _asked_for(path):
            raise _refusal(path, more, keys)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as problem:
            raise _refusal(path, _REFUSED.findall(str(problem)), keys) from None
        except _DAMAGED as problem:
            raise _damaged(path, problem) from None
    if not isinstance(content, dict):
        raise ModelError("does not hold a checkpoint", where=path, remedy=_NO_CHECKPOINT)
    return content


def is_hollow(tensors: Iterable[Tensor]) -> bool:
    """Whether tensors have more numbers than are stored for them: a few bytes can be repeated to any size.

    What is copied of them later is then no larger than the file that they came from.
    """
    tensors = list(tensors)
    stored = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(t.numel() * t.element_size() for t in tensors) > sum(stored.values())


def _refuse_compressed(path: Path) -> None:
    """torch.save stores all as it is: what is compressed inside may unpack to anything."""
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = [m.filename for m in archive.infolist() if m.compress_type != zipfile.ZIP_STORED]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as problem:
        if _begins_like_a_zip(path):  # torch would read it as one, and nobody has looked inside
            raise _damaged(path, problem) from None
        return  # torch's old format, or nothing at all, which loading it will find
    if compressed:
        raise ModelError(f"is compressed inside ({compressed[0]!a})", where=path, remedy=_NO_CHECKPOINT)


def _begins_like_a_zip(path: Path) -> bool:
    """By its first bytes alone, as torch decides; Python's own judgement is of a file's end."""
    with path.open("rb") as stream:
        return stream.read(len(_ZIP)) == _ZIP


def _asked_for(path: Path) -> list[str]:
    """Names that the file's pickle would import and that are not allowed; read off it, not unpickled."""
    if not _begins_like_a_zip(path):
        return []  # torch's old format: whatever is not allowed is refused while it is read
    try:
        return sorted(get_unsafe_globals_in_checkpoint(str(path)))
    except (RuntimeError, ValueError, EOFError, OSError, AssertionError, pickle.UnpicklingError) as problem:
        raise _damaged(path, problem) from None


def _refusal(path: Path, names: Sequence[str], keys: Sequence[str]) -> ModelError:
    if not names:
        return ModelError(
            "is not a checkpoint, or is damaged", where=path, remedy=_NO_CHECKPOINT, code="E-MODEL-DAMAGED"
        )
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    kept = f"({', '.join(map(repr, keys))}{',' if len(keys) == 1 else ''})"
    return ModelError(
        f"asks for code to be run when it is read: {', '.join(names[:_NAMED])}{more}; nothing was loaded",
        where=path,
        remedy="if you trust whom it is from, make a plain copy where it was trained: "
        f"`c = torch.load(old, map_location='cpu'); torch.save({{k: c[k] for k in {kept}}}, new)`",
        code="E-MODEL-UNSAFE",
    )


def _damaged(path: Path, problem: Exception) -> ModelError:
    reason = " ".join(str(problem).split())[:200]
    return ModelError(
        f"is not a checkpoint, or is damaged ({reason})", where=path, remedy=_NO_CHECKPOINT, code="E-MODEL-DAMAGED"
    )
