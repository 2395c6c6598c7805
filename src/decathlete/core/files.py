"""Atomic writing of files and folders, and digests of their content."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from decathlete.core.nearest_files import nearest_files
from decathlete.errors import DecathleteError, OutputError

TEMPORARY_PREFIX = ".partial-"
"""Prefix of the names of unfinished files and folders; a killed run may leave some."""

MAX_TEXT_BYTES = 1 << 28
"""Greatest size of a text file that is read, 256 MiB. Scores of 1000 cases with 100 classes have about 30 MB."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it is renamed to ``path`` on success and removed on failure.

    The content is synchronised to disk before the renaming, so that ``path`` is complete or absent at any moment. The
    temporary name keeps all suffixes of ``path``, since many writers choose their format by them.

    Raises:
        OutputError: the folder cannot be created or written, or the disk is full.
    """
    partial = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}-{path.name}")
    remedy = "choose a folder that you may write to, on a disk with free space"
    try:
        with translate_os_error("cannot be written", where=path, remedy=remedy):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            for path_inside in partial.rglob("*") if partial.is_dir() else ():
                _sync(path_inside)
            _sync(partial)
            os.replace(partial, path)
            _sync(path.parent)
    finally:
        remove(partial)


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder that replaces ``folder`` on success; on failure, ``folder`` stays as it was."""
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
    """Raise an :class:`OutputError` in place of an ``OSError``; ``what`` begins its message."""
    try:
        yield
    except OSError as problem:
        raise OutputError(
            f"{what} ({problem.strerror or problem})", where=where, remedy=remedy, code=output_code(problem)
        ) from problem


def output_code(problem: OSError) -> str:
    """Return the error code of a failed write: a full disk has its own."""
    return "E-DISK-FULL" if problem.errno in (errno.ENOSPC, errno.EDQUOT) else OutputError.code


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
    """Write indented JSON atomically. NaN is written as ``NaN``, which Python's JSON module reads."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_text(
    path: Path,
    *,
    error: type[DecathleteError] = DecathleteError,
    remedy: str = "",
    limit_bytes: int = MAX_TEXT_BYTES,
) -> str:
    """Read text in UTF-8, or in UTF-16 or UTF-32 as Windows programs write it, with or without a byte order mark.

    Args:
        limit_bytes: greatest size of the file.

    Raises:
        error: the file cannot be read, is not text, or is too large; it names the file and the remedy.
    """
    try:
        content = _read_regular_file(path, limit_bytes)
    except FileNotFoundError:
        raise error(f"does not exist{nearest_files(path)}", where=path, remedy=remedy or "check the path") from None
    except (OSError, ValueError) as problem:
        reason = (isinstance(problem, OSError) and problem.strerror) or problem
        raise error(
            f"cannot be read ({reason})", where=path, remedy=remedy or "check the file and its permissions"
        ) from problem
    try:
        text = content.decode(json.detect_encoding(content))
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise error(
            f"cannot be read: it is not UTF-8 text (byte {content[problem.start]:#x} in line {line})",
            where=path,
            remedy="save the file as UTF-8",
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_regular_file(path: Path, limit_bytes: int) -> bytes:
    """Read a file whole.

    Raises:
        ValueError: it is not a regular file (reading a pipe would wait for ever), or it is too large.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("a pipe, a device or a folder, not a file")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            content = stream.read(limit_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit_bytes:
        raise ValueError(f"larger than {limit_bytes >> 10} KiB, the limit for such files")
    return content


def remove(path: Path) -> None:
    """Remove a file or folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(NotADirectoryError):  # a parent is a file, so nothing exists at ``path``
            path.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Remove the unfinished files and folders that a killed run left in ``folder``."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        remove(leftover)


def writable_folder(path: Path) -> Path:
    """Create the folder ``path`` if need be and check that it can be written to, before hours of work.

    Raises:
        OutputError: it cannot be written, or it lies in a raw dataset, where nothing is ever written.
    """
    _reject_raw_dataset(path)
    probe = path / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
    except OSError as problem:
        raise OutputError(
            f"cannot be written ({problem.strerror})",
            where=path,
            remedy="choose a folder that you may write to",
            code=output_code(problem),
        ) from problem
    finally:
        if path.is_dir():
            probe.unlink(missing_ok=True)
    return path


def _reject_raw_dataset(path: Path) -> None:
    for folder in (path.resolve(), *path.resolve().parents):
        if (folder / "dataset.json").is_file() and (folder / "imagesTr").is_dir():
            raise OutputError(
                f"lies in the raw dataset {folder.name}, where nothing is ever written",
                where=path,
                remedy="choose a folder outside of the dataset",
                code="E-OUTPUT-INPUT",
            )


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def value_digest(value: object) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
