"""Archives from outside: looked through before a byte is written, unpacked into a folder they cannot leave.

Only plain files are written. Symbolic and hard links, devices and pipes are ignored: with no link ever made, none can
lead a later member elsewhere. A member whose path leaves the folder condemns the whole archive, as does one that would
unpack to more than the caller allows. Owners, modes and times of the archive are not taken over.
"""

from __future__ import annotations

import io
import logging
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from decathlete.core.sizes import require_room, say_bytes
from decathlete.errors import ArchiveError

MAX_MEMBERS = 200_000
"""The Decathlon's largest has about 1500; a million empty files would fill a disk's table, too."""

_MAX_READ = 1 << 20
REMEDY = "do not use this file; fetch the archive from its publisher again"
# Headers are another's bytes: tarfile answers damaged ones with any of these.
_DAMAGED = (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, IndexError)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Contents:
    """What an archive would write: members with their paths below the top folder."""

    files: tuple[tuple[PurePosixPath, tarfile.TarInfo], ...]
    ignored: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        return sum(member.size for _, member in self.files)


def unpack_tar(archive: Path, folder: Path, *, top: str, limit_bytes: int, needs: tuple[str, ...] = ()) -> None:
    """Unpack what lies in the archive's folder ``top`` as the folder ``folder``.

    Args:
        archive: a tar file, not compressed.
        folder: made, where nothing is yet (give a temporary one and rename it: a failure leaves it half-filled).
        limit_bytes: more than this is never written.
        needs: files below ``top`` that must be there.

    Raises:
        ArchiveError: damaged, not a tar file, or not safe; found before anything is written, except damage in the
            files' own bytes.
        OutputError: the disk has no room for it.
    """
    with _opened(archive) as tar:
        contents = _look_through(tar, archive, top, limit_bytes)
        inside = {str(path) for path, _ in contents.files}
        if missing := [name for name in needs if name not in inside]:
            raise ArchiveError(f"holds no {top}/{missing[0]}", where=archive, remedy=REMEDY)
        folder.mkdir(parents=True)
        require_room(folder, contents.n_bytes, needed_for="to unpack it", remedy="free some, or choose another disk")
        for path, member in contents.files:
            _write(tar, member, folder / path)
    if contents.ignored:
        found = len(contents.ignored)
        logger.warning("%s: ignored links and devices (%d, the first %a)", archive.name, found, contents.ignored[0])


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        with (
            archive.open("rb") as stream,
            tarfile.open(fileobj=_ShortReads(stream), mode="r:", errorlevel=2) as tar,
        ):
            yield tar
    except _DAMAGED as problem:
        raise ArchiveError(
            f"is damaged, or not a plain tar file ({problem})", where=archive, remedy=REMEDY
        ) from problem


class _ShortReads(io.BufferedIOBase):
    """Refuses the reads that only a hostile header asks for: tarfile takes extended headers into memory whole."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MAX_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _look_through(tar: tarfile.TarFile, archive: Path, top: str, limit_bytes: int) -> _Contents:
    """Every member's header, judged; the archive is left as soon as one condemns it."""
    files: list[tuple[PurePosixPath, tarfile.TarInfo]] = []
    ignored: list[str] = []
    total = 0
    for n_members, member in enumerate(tar, start=1):
        path = inner_path(member.name, archive)
        total += _size(member, archive)
        if total > limit_bytes or n_members > MAX_MEMBERS:
            bound = say_bytes(limit_bytes) if total > limit_bytes else f"{MAX_MEMBERS} files"
            raise ArchiveError(
                f"would unpack to more than {bound}", where=archive, remedy=REMEDY, code="E-ARCHIVE-UNSAFE"
            )
        if any(part.startswith("._") for part in path.parts) or member.isdir():
            continue
        if not member.isreg():
            ignored.append(member.name)
        elif path.parts[:1] == (top,) and len(path.parts) > 1:
            files.append((path.relative_to(top), member))
    _refuse_early_end(tar)
    refuse_clashes([path for path, _ in files], archive)
    return _Contents(files=tuple(files), ignored=tuple(ignored))


def inner_path(name: str, archive: Path) -> PurePosixPath:
    """``name`` as a path below the folder, by the rules of every system at once (``\\``, ``C:``)."""
    path, as_windows = PurePosixPath(name), PureWindowsPath(name)
    if path.is_absolute() or as_windows.anchor or ".." in as_windows.parts or re.search(r"[\x00-\x1f]", name):
        raise ArchiveError(
            f"holds a member that leaves its folder: {name!a}", where=archive, remedy=REMEDY, code="E-ARCHIVE-UNSAFE"
        )
    return path


def _size(member: tarfile.TarInfo, archive: Path) -> int:
    """Bytes that the member would write. A negative size would send the reader back to read the same again."""
    if member.size < 0:
        raise ArchiveError(
            f"holds a member of negative size: {member.name!a}", where=archive, remedy=REMEDY, code="E-ARCHIVE-UNSAFE"
        )
    return member.size


def _refuse_early_end(tar: tarfile.TarFile) -> None:
    """After the last member come zeros or nothing: tarfile takes a damaged header in the middle for the end."""
    assert tar.fileobj is not None  # for the type checker: opened on a stream
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"no header where one is due, at byte {tar.offset}")


def refuse_clashes(paths: list[PurePosixPath], archive: Path) -> None:
    """No path twice, and none both a file and a folder."""
    seen: set[PurePosixPath] = {parent for path in paths for parent in path.parents}
    for path in paths:
        if path in seen:
            raise ArchiveError(f"holds {str(path)!a} twice", where=archive, remedy=REMEDY, code="E-ARCHIVE-UNSAFE")
        seen.add(path)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    if source is None:  # for the type checker: plain files alone come here
        return
    with source, path.open("xb") as target:
        while chunk := source.read(_MAX_READ):
            target.write(chunk)
