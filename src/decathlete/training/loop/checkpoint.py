"""Checkpoints: tensors and plain values in one file, written whole or not at all, read without unpickling code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from decathlete.core.files import atomic_path
from decathlete.errors import ModelError, OutputError

CHECKPOINT_VERSION = 1


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values atomically; a kill at any moment leaves the old file or the new one.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """
    with atomic_path(path) as partial:
        try:
            torch.save({"version": CHECKPOINT_VERSION, **content}, partial)
        except RuntimeError as problem:  # torch's writer reports a full disk so
            raise OutputError(
                f"cannot be written ({problem})", where=path, remedy="choose a folder with room on its disk"
            ) from problem


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote, to the CPU's memory.

    Raises:
        ModelError: missing, damaged, holding more than tensors and plain values, or of another version.
    """
    remedy = "check the path, or train again with --overwrite"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError("does not exist", where=path, remedy=remedy, code="E-MODEL-NOT-FOUND") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
        raise ModelError(
            "is not a checkpoint, or is damaged", where=path, remedy=remedy, code="E-MODEL-DAMAGED"
        ) from None
    if not isinstance(content, dict) or content.get("version") != CHECKPOINT_VERSION:
        raise ModelError("is not a checkpoint of this version of Decathlete", where=path, remedy=remedy)
    return content
