"""Unpack tar files from untrusted sources: every header is checked before anything is written.

Only plain files are written. Symbolic and hard links, devices and pipes are ignored; since no link is ever created,
none can redirect a later member. The whole archive is rejected if a member's path leaves the folder, or if it would
unpack to more bytes than the caller allows. Owners, modes and times are not copied from the archive.
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

from decathlete.core.documents import is_unicode
from decathlete.core.sizes import format_bytes, require_disk_space
from decathlete.errors import ArchiveError

MAX_MEMBERS = 200_000
"""Maximum number of members; the largest archive of the Decathlon has about 1500. A million empty files would use up
the inodes of a disk."""

MAX_PATH_DEPTH = 32
"""Maximum number of folders in the path of a member; a model of nnU-Net has 4."""

MAX_PATH_CHARACTERS = 1024
"""Maximum length of the path of a member; systems allow 4096 bytes with the folder, and 255 for each name."""

_MAX_NAME_BYTES = 255
_MAX_READ = 1 << 20
REMEDY = "do not use this file; download the archive again from its publisher"
# tarfile raises any of these for damaged headers.
_DAMAGED = (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, IndexError)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Contents:
    """The members that would be written, with their paths below the top folder, and the names of ignored members."""

    files: tuple[tuple[PurePosixPath, tarfile.TarInfo], ...]
    ignored: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        return sum(member.size for _, member in self.files)


def unpack_tar(archive: Path, folder: Path, *, top: str, limit_bytes: int, needs: tuple[str, ...] = ()) -> None:
    """Unpack the archive's folder ``top`` to the new folder ``folder``.

    Args:
        archive: an uncompressed tar file.
        folder: does not exist yet. A failure leaves it incomplete, so give a temporary folder and rename it.
        limit_bytes: greatest number of bytes to write.
        needs: files below ``top`` that the archive must contain.

    Raises:
        ArchiveError: the file is damaged, not a tar file, or not safe. Nothing is written in these cases, except if
            the content of a member is damaged.
        OutputError: the disk has too little free space.
    """
    with _open_tar(archive) as tar:
        contents = _check_members(tar, archive, top, limit_bytes)
        inside = {str(path) for path, _ in contents.files}
        if missing := [name for name in needs if name not in inside]:
            raise ArchiveError(f"contains no {top}/{missing[0]}", where=archive, remedy=REMEDY)
        folder.mkdir(parents=True)
        require_disk_space(
            folder, contents.n_bytes, needed_for="to unpack it", remedy="free disk space, or choose another disk"
        )
        for path, member in contents.files:
            _write(tar, member, folder / path)
    if contents.ignored:
        n_ignored = len(contents.ignored)
        logger.warning("%s: ignored %d links and devices (first: %a)", archive.name, n_ignored, contents.ignored[0])


@contextmanager
def _open_tar(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        with (
            archive.open("rb") as stream,
            tarfile.open(fileobj=_LimitedReader(stream), mode="r:", errorlevel=2) as tar,
        ):
            yield tar
    except _DAMAGED as problem:
        raise ArchiveError(
            f"is damaged, or not a plain tar file ({problem})", where=archive, remedy=REMEDY
        ) from problem


class _LimitedReader(io.BufferedIOBase):
    """A stream that rejects large reads, which only a hostile header causes: tarfile reads extended headers whole."""

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


def _check_members(tar: tarfile.TarFile, archive: Path, top: str, limit_bytes: int) -> _Contents:
    """Check the header of every member; the first unsafe one ends the reading."""
    files: list[tuple[PurePosixPath, tarfile.TarInfo]] = []
    ignored: list[str] = []
    total = 0
    for n_members, member in enumerate(tar, start=1):
        path = inner_path(member.name, archive)
        total += _size(member, archive)
        if total > limit_bytes or n_members > MAX_MEMBERS:
            limit = format_bytes(limit_bytes) if total > limit_bytes else f"{MAX_MEMBERS} files"
            raise ArchiveError(
                f"would unpack to more than {limit}", where=archive, remedy=REMEDY, code="E-ARCHIVE-UNSAFE"
            )
        if any(part.startswith("._") for part in path.parts) or member.isdir():
            continue
        if not member.isreg():
            ignored.append(member.name)
        elif path.parts[:1] == (top,) and len(path.parts) > 1:
            files.append((path.relative_to(top), member))
    _reject_early_end(tar)
    reject_duplicates([path for path, _ in files], archive)
    return _Contents(files=tuple(files), ignored=tuple(ignored))


def inner_path(name: str, archive: Path) -> PurePosixPath:
    """Convert a member's name to a path below the folder, by the rules of all operating systems (``\\``, ``C:``)."""
    if len(name) > MAX_PATH_CHARACTERS or name.replace("\\", "/").count("/") > MAX_PATH_DEPTH:
        raise ArchiveError(
            f"contains a member in more than {MAX_PATH_DEPTH} folders, or with a path of more than "
            f"{MAX_PATH_CHARACTERS} characters: {name[:60]!a}...",
            where=archive,
            remedy=REMEDY,
            code="E-ARCHIVE-UNSAFE",
        )
    if not is_unicode(name) or any(len(part.encode()) > _MAX_NAME_BYTES for part in name.split("/")):
        raise ArchiveError(
            f"contains a member that cannot be the name of a file: {name[:60]!a}",
            where=archive,
            remedy=REMEDY,
            code="E-ARCHIVE-UNSAFE",
        )
    path, as_windows = PurePosixPath(name), PureWindowsPath(name)
    if path.is_absolute() or as_windows.anchor or ".." in as_windows.parts or re.search(r"[\x00-\x1f]", name):
        raise ArchiveError(
            f"contains a member that leaves its folder: {name!a}", where=archive, remedy=REMEDY, code="E-ARCHIVE-UNSAFE"
        )
    return path


def _size(member: tarfile.TarInfo, archive: Path) -> int:
    """Return the size of a member in bytes. With a negative size, the reader would read the same header again."""
    if member.size < 0:
        raise ArchiveError(
            f"contains a member of negative size: {member.name!a}",
            where=archive,
            remedy=REMEDY,
            code="E-ARCHIVE-UNSAFE",
        )
    return member.size


def _reject_early_end(tar: tarfile.TarFile) -> None:
    """Check that only zeros follow the last member: tarfile treats a damaged header in the middle as the end."""
    assert tar.fileobj is not None  # for the type checker: opened on a stream
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"no header at byte {tar.offset}")


def reject_duplicates(paths: list[PurePosixPath], archive: Path) -> None:
    """Reject an archive in which a path occurs twice, or is both a file and a folder."""
    seen: set[PurePosixPath] = {parent for path in paths for parent in path.parents}
    for path in paths:
        if path in seen:
            raise ArchiveError(f"contains {str(path)!a} twice", where=archive, remedy=REMEDY, code="E-ARCHIVE-UNSAFE")
        seen.add(path)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    if source is None:  # for the type checker: only plain files are passed
        return
    with source, path.open("xb") as target:
        while chunk := source.read(_MAX_READ):
            target.write(chunk)
