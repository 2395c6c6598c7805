"""Files appear whole or not at all: written beside, fsynced, renamed. Digests say what made them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from decathlete.errors import DecathleteError, OutputError

TEMPORARY_PREFIX = ".partial-"
"""Of names of unfinished files and folders: what a killed run leaves is known by it."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; renamed to ``path`` on success, removed on failure.

    The temporary name keeps all suffixes of ``path``, since many writers choose their format by them.

    Raises:
        OutputError: the folder cannot be made or written, or the disk is full.
    """
    partial = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}-{path.name}")
    remedy = "choose a folder you may write to, with room on its disk"
    try:
        with translate_os_error("cannot be written", where=path, remedy=remedy):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            for inside in partial.rglob("*") if partial.is_dir() else ():
                _sync(inside)
            _sync(partial)
            os.replace(partial, path)
            _sync(path.parent)
    finally:
        remove(partial)


@contextmanager
def swapped_in(folder: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of ``folder`` at the end, whatever that was."""
    displaced = folder.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}-old-{folder.name}")
    try:
        with atomic_path(folder) as partial:
            partial.mkdir()
            yield partial
            if folder.exists():
                os.replace(folder, displaced)
    except BaseException:
        if displaced.exists() and not folder.exists():
            os.replace(displaced, folder)
        raise
    remove(displaced)


@contextmanager
def translate_os_error(what: str, *, where: Path, remedy: str) -> Iterator[None]:
    """Whatever keeps a file from being written or read becomes an :class:`OutputError`; ``what`` begins its message."""
    try:
        yield
    except OSError as problem:
        raise OutputError(f"{what} ({problem.strerror or problem})", where=where, remedy=remedy) from problem


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write indented JSON atomically (NaN becomes ``NaN``: Python's JSON reads it back)."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_text(path: Path, *, error: type[DecathleteError] = DecathleteError, remedy: str = "") -> str:
    """Read UTF-8 text; ``error`` names the file and the remedy when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error("does not exist", where=path, remedy=remedy or "check the path") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise error(
            f"cannot be read ({problem})", where=path, remedy=remedy or "check the file and its permissions"
        ) from problem


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(NotADirectoryError):  # a file stands where a folder was meant: then nothing is there either
            path.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Remove what a killed run left half-written in ``folder``."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        remove(leftover)


def writable_folder(path: Path) -> Path:
    """Make ``path`` a folder and prove that it can be written to, before hours of work.

    Raises:
        OutputError: it cannot, or it lies in a raw dataset, where nothing is ever written.
    """
    _refuse_raw_dataset(path)
    probe = path / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
    except OSError as problem:
        raise OutputError(
            f"cannot be written ({problem.strerror})", where=path, remedy="choose a folder you may write to"
        ) from problem
    finally:
        if path.is_dir():
            probe.unlink(missing_ok=True)
    return path


def _refuse_raw_dataset(path: Path) -> None:
    for folder in (path.resolve(), *path.resolve().parents):
        if (folder / "dataset.json").is_file() and (folder / "imagesTr").is_dir():
            raise OutputError(
                f"lies in the raw dataset {folder.name}, where nothing is ever written",
                where=path,
                remedy="choose a folder outside of it",
            )


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def value_digest(value: object) -> str:
    """SHA-256 of a JSON-able value in canonical form, first 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
