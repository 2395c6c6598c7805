"""Atomic writing of files and folders, and digests of their content."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from decathlete.core.exchange_names import exchange_names
from decathlete.core.lazy_import import lazy_import
from decathlete.core.nearest_files import nearest_files
from decathlete.core.placeholder_files import find_placeholder, placeholder_error
from decathlete.errors import DecathleteError, OutputError

psutil = lazy_import("psutil")

TEMPORARY_PREFIX = ".partial-"
"""Prefix of the names of unfinished files and folders; a killed run may leave some."""
_FULL_BYTES = 2**16
"""A disk with less free space is full: the writers of torch and safetensors write larger pieces."""
_LEFTOVER = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}(?:p\d+-)?(?P<old>old-)?[0-9a-f]{{8}}-(?P<name>.+)", re.DOTALL)
_OWNER = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}p(?P<pid>\d+)-")
_MAX_NAME_BYTES = 200
"""Bytes of a file's name that its temporary name contains: file systems allow 255 in all."""
_CLOCK_STEP_S = 60.0
"""Difference between the clocks of files and processes that is tolerated, seconds."""


def temporary_name(name: str = "", *, is_displaced: bool = False) -> str:
    """Return a new name for an unfinished file or folder; it contains the number of this process.

    Args:
        is_displaced: it is complete, and moved away for a moment, until a new one is in its place.
    """
    ending = f"-{_end_of_name(name)}" if name else ""
    return f"{TEMPORARY_PREFIX}p{os.getpid()}-{'old-' if is_displaced else ''}{uuid.uuid4().hex[:8]}{ending}"


def _end_of_name(name: str) -> str:
    """Return a name, or the end of a long one, so that it has room for a prefix."""
    content = os.fsencode(name)
    return name if len(content) <= _MAX_NAME_BYTES else content[-_MAX_NAME_BYTES:].decode(errors="ignore")


MAX_TEXT_BYTES = 1 << 28
"""Maximum size of a text file that is read, 256 MiB. Scores of 1000 cases with 100 classes have about 30 MB."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it is renamed to ``path`` on success and removed on failure.

    The content is synchronised to disk before the renaming, so that ``path`` is complete or absent at any moment. The
    temporary name keeps all suffixes of ``path``, since many writers choose their format by them.

    Raises:
        OutputError: the folder cannot be created or written, or the disk is full.
    """
    partial = path.with_name(temporary_name(path.name))
    remedy = "choose a folder that you may write to, on a disk with free space"
    try:
        with translate_os_error("cannot be written", where=path, remedy=remedy):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            move_synced(partial, path)
    except Exception as problem:
        _rename_in_message(problem, partial, path)
        raise
    finally:
        remove(partial)


def _rename_in_message(problem: Exception, partial: Path, path: Path) -> None:
    """Let the message of an error name the file that the user knows instead of the temporary one."""

    def rename(value: object) -> object:
        if isinstance(value, Path) and value.is_relative_to(partial):
            return path / value.relative_to(partial)
        return value.replace(partial.name, path.name) if isinstance(value, str) else value

    problem.args = tuple(rename(value) for value in problem.args)
    if isinstance(problem, DecathleteError):
        problem.problem = str(rename(problem.problem))
        where = rename(problem.where)
        problem.where = where if isinstance(where, Path | str) else None


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield a new temporary folder in ``parent``, and remove it at the end."""
    folder = parent / temporary_name()
    try:
        folder.mkdir()
        yield folder
    finally:
        remove(folder)


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder that replaces ``folder`` on success; on failure, ``folder`` stays as it was.

    A process that is killed leaves the old or the new folder, complete and with its name. On a file system that cannot
    exchange names, the old one may be moved away at that moment; :func:`remove_partials` gives it its name back.
    """
    with atomic_path(folder) as partial:
        partial.mkdir()
        yield partial


@contextmanager
def translate_os_error(what: str, *, where: Path, remedy: str) -> Iterator[None]:
    """Raise an :class:`OutputError` in place of an ``OSError``; ``what`` begins its message."""
    try:
        yield
    except OSError as problem:
        raise OutputError(
            f"{what} ({problem.strerror or problem})", where=where, remedy=remedy, code=output_code(problem)
        ) from problem


@contextmanager
def translate_native_write_error(path: Path) -> Iterator[None]:
    """Raise an ``OSError`` in place of what compiled libraries raise when they cannot write to ``path``.

    Their errors have no ``errno``, and some do not name the reason: a disk without space for a few more kB is full.
    """
    try:
        yield
    except (DecathleteError, OSError, MemoryError):
        raise
    except Exception as problem:
        number = _errno_of_rust(problem)
        if number is None:
            if shutil.disk_usage(path.parent).free >= _FULL_BYTES:
                raise
            number = errno.ENOSPC
        raise OSError(number, os.strerror(number), str(path)) from problem


def _errno_of_rust(problem: Exception) -> int | None:
    """Return the number of the system's error in an exception of a library in Rust (safetensors).

    Such exceptions have no attribute with it. Their text ends with ``(os error NUMBER)``, which the standard library of
    Rust writes.
    """
    match = re.search(r"\(os error (\d+)\)", str(problem))
    return None if match is None else int(match[1])


def output_code(problem: OSError) -> str:
    """Return the error code of a failed write: a full disk has its own."""
    return "E-DISK-FULL" if problem.errno in (errno.ENOSPC, errno.EDQUOT) else OutputError.code


def move_synced(source: Path, target: Path) -> None:
    """Rename a file or folder after its content was synchronised to disk; when this returns, ``target`` is durable.

    A folder that exists as ``target`` gets the name of ``source``, or is removed.
    """
    for path_inside in source.rglob("*") if source.is_dir() else ():
        sync_path(path_inside)
    sync_path(source)
    if source.is_dir() and target.exists():
        _replace_folder(source, target)
    else:
        os.replace(source, target)
    sync_path(target.parent)


def _replace_folder(source: Path, target: Path) -> None:
    if exchange_names(source, target):
        return
    displaced = target.with_name(temporary_name(target.name, is_displaced=True))
    os.replace(target, displaced)
    try:
        os.replace(source, target)
    except BaseException:
        os.replace(displaced, target)
        raise
    remove(displaced)


def sync_path(path: Path) -> None:
    """Return when the content of a file, or the names in a folder, are on the disk."""
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
        missing = error(f"does not exist{nearest_files(path)}", where=path, remedy=remedy or "check the path")
        raise placeholder_error(path, error) or missing from None
    except OSError as problem:
        raise access_error(problem, path, kind=error) from problem
    except ValueError as problem:
        raise error(f"cannot be read ({problem})", where=path, remedy=remedy or "check the file") from problem
    placeholder = None if path.suffix == ".html" else find_placeholder(content)
    if placeholder is not None:
        raise error(placeholder.problem, where=path, remedy=placeholder.remedy)
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


def is_access_error(problem: Exception) -> bool:
    """Return whether the system could not open or read a file; a seek to a damaged offset (EINVAL) is damage."""
    return isinstance(problem, OSError) and problem.errno not in (None, errno.EINVAL)


def access_error(problem: OSError, path: Path, *, kind: type[DecathleteError]) -> DecathleteError:
    """Return the error about a file that exists but could not be opened or read: its content may be good."""
    return kind(
        f"cannot be read ({problem.strerror or problem})",
        where=path,
        remedy="check its permissions, and that its disk or network share is connected",
        code="E-FILE",
    )


def list_files(folder: Path) -> list[str]:
    """Return the files below a folder, relative to it, with ``/`` between the parts, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def remove(path: Path) -> None:
    """Remove a file or folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(NotADirectoryError):  # a parent is a file, so nothing exists at ``path``
            path.unlink(missing_ok=True)


def remove_partials(folder: Path, name: str | None = None) -> None:
    """Remove the unfinished files and folders that killed processes left in ``folder``.

    What was moved away while its successor was not yet in its place gets its name back.

    Call it with the folder's lock, since a process on another computer cannot be seen. What another running process of
    this computer writes without the lock is kept.

    Args:
        name: remove only what was to become this file or folder; ``None``: everything.
    """
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        match = _LEFTOVER.fullmatch(leftover.name)
        is_wanted = name is None or (match is not None and match["name"] == _end_of_name(name))
        if not is_wanted or _is_in_use(leftover):
            continue
        if match is not None and match["old"] and not (folder / match["name"]).exists():
            os.replace(leftover, folder / match["name"])
        else:
            remove(leftover)


def _is_in_use(leftover: Path) -> bool:
    """Return whether the process that made a temporary file or folder runs on this computer."""
    match = _OWNER.match(leftover.name)
    if match is None:
        return False
    try:
        started = float(psutil.Process(int(match["pid"])).create_time())
        return started <= leftover.lstat().st_mtime + _CLOCK_STEP_S  # else a later process has the same number
    except psutil.AccessDenied:
        return True
    except (psutil.Error, OSError, OverflowError):
        return False


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def value_digest(value: object) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
