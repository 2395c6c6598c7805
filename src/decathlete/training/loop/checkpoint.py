"""Checkpoints: tensors and plain values in one file, written whole or not at all, read without unpickling code."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from decathlete.core.files import access_error, atomic_path, is_access_error, translate_native_write_error
from decathlete.core.memory import is_out_of_memory
from decathlete.errors import DecathleteError, InsufficientMemoryError, ModelError, OutputError
from decathlete.transfer.zips import find_damaged_member

CHECKPOINT_VERSION = 1
CONTENT_ERRORS = (AttributeError, IndexError, KeyError, MemoryError, RuntimeError, TypeError, ValueError)
"""What is raised for entries of a checkpoint that are missing, or have another type or shape."""

_REMEDY = "check the path, or train again with --overwrite"


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values atomically; a kill at any moment leaves the old file or the new one.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """
    with atomic_path(path) as partial:
        try:
            with translate_native_write_error(partial):
                torch.save({"version": CHECKPOINT_VERSION, **content}, partial)
        except RuntimeError as problem:
            raise OutputError(
                f"cannot be written ({problem})", where=path, remedy="choose a folder on a disk with free space"
            ) from problem


def load_checkpoint(path: Path, *, parts: Sequence[str] = ()) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote, to the CPU's memory.

    Args:
        parts: entries that the caller needs.

    Raises:
        ModelError: missing, unreadable, damaged, without these entries, holding more than tensors and plain values, or
            of another version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = find_damaged_member(archive)
        if damaged is not None:  # torch compares no checksum
            raise ValueError(f"the content of {damaged!a} does not match its checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError("does not exist", where=path, remedy=_REMEDY, code="E-MODEL-NOT-FOUND") from None
    except (OSError, *CONTENT_ERRORS, EOFError, zipfile.BadZipFile, zlib.error, pickle.UnpicklingError) as problem:
        if isinstance(problem, OSError) and is_access_error(problem):
            raise access_error(problem, path, kind=ModelError) from None
        raise damage_error(path, problem) from None
    if not isinstance(content, dict) or content.get("version") != CHECKPOINT_VERSION:
        raise ModelError("is not a checkpoint of this version of Decathlete", where=path, remedy=_REMEDY)
    if missing := [name for name in parts if name not in content]:
        raise damage_error(path, ValueError(f"it has no {', '.join(missing)}"))
    return content


def damage_error(path: Path, problem: Exception) -> DecathleteError:
    """Return the error about a checkpoint whose content cannot be used."""
    if is_out_of_memory(problem):
        return InsufficientMemoryError(
            "out of memory for the checkpoint", where=path, remedy="close other programs, or use another computer"
        )
    reason = " ".join(str(problem).split())[:200]
    return ModelError(
        f"is not a checkpoint, or is damaged ({reason})", where=path, remedy=_REMEDY, code="E-MODEL-DAMAGED"
    )
