"""Versions of one model in a repository of Triton: when one is written, the others stay.

All versions of a model have the one configuration of its folder, so they need the same inputs and outputs.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from decathlete.core.copy_folder import copy_folder
from decathlete.core.files import read_text
from decathlete.errors import OutputError
from decathlete.export.triton_config import parse_config

CONFIG_FILE = "config.pbtxt"


def keep_other_versions(existing: Path, new: Path, *, version: int) -> None:
    """Add all versions of a model but one to the new folder that will replace it.

    Args:
        existing: folder of the model; it may not exist.
        new: folder with the new configuration and the version that is written.
        version: the one that is written.

    Raises:
        OutputError: there are others, and their configuration has other inputs or outputs.
    """
    others = _other_versions(existing, version)
    if not others:
        return
    if _interface(existing) != _interface(new):
        raise OutputError(
            f"has the version{'s' * (len(others) > 1)} {', '.join(path.name for path in others)} with other inputs, "
            "outputs or another format, which all versions of a model share",
            where=existing,
            remedy="choose another --name, or delete these versions",
            code="E-OUTPUT-EXISTS",
        )
    for folder in others:
        copy_folder(folder, new / folder.name, copy=_link_or_copy)


def _other_versions(folder: Path, version: int) -> list[Path]:
    inside = folder.iterdir() if folder.is_dir() else ()
    found = [path for path in inside if path.is_dir() and path.name.isdecimal() and path.name != str(version)]
    return sorted(found, key=lambda path: int(path.name))


def _interface(folder: Path) -> tuple[Any, ...]:
    config = parse_config(read_text(folder / CONFIG_FILE, error=OutputError))
    return config.backend, config.platform, list(config.input), list(config.output)


def _link_or_copy(source: Path, target: Path) -> None:
    """Link a file, so that versions of GBs need no space twice; not every file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
