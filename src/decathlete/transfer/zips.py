"""Zip files from outside, under the rules of :mod:`decathlete.transfer.archive`.

Here a link or an encrypted member condemns the file: whoever packs a folder of plain files has neither.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from decathlete.core.sizes import require_room, say_bytes
from decathlete.errors import ArchiveError
from decathlete.transfer.archive import MAX_MEMBERS, REMEDY, inner_path, refuse_clashes

_READ = 1 << 20
_FORMS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError)


def unpack_zip(
    archive: Path, folder: Path, *, limit_bytes: int, wanted: Callable[[PurePosixPath], bool] = lambda _: True
) -> None:
    """Unpack the files that are ``wanted`` as the folder ``folder``.

    Args:
        folder: made, where nothing is yet (give a temporary one: a failure leaves it half-filled).
        limit_bytes: more than this is never written.

    Raises:
        ArchiveError: damaged, not a zip file, or not safe; found before anything is written, except damage in the
            files' own bytes.
        OutputError: the disk has no room for it.
    """
    with _opened(archive) as packed:
        files = [(path, member) for path, member in _members(packed, archive) if wanted(path)]
        n_bytes = sum(member.file_size for _, member in files)
        if n_bytes > limit_bytes:
            raise ArchiveError(
                f"would unpack to more than {say_bytes(limit_bytes)}",
                where=archive,
                remedy=REMEDY,
                code="E-ARCHIVE-UNSAFE",
            )
        refuse_clashes([path for path, _ in files], archive)
        folder.mkdir(parents=True)
        require_room(folder, n_bytes, needed_for="to unpack it", remedy="free some, or choose another disk")
        for path, member in files:
            _write(packed, member, folder / path, archive)


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        packed = zipfile.ZipFile(archive)
    except _DAMAGED as problem:
        raise _damaged(archive, problem) from problem
    with packed:
        yield packed


def _members(packed: zipfile.ZipFile, archive: Path) -> Iterator[tuple[PurePosixPath, zipfile.ZipInfo]]:
    """Every file, judged by its header."""
    for n_members, member in enumerate(packed.infolist(), start=1):
        if n_members > MAX_MEMBERS:
            raise ArchiveError(
                f"would unpack to more than {MAX_MEMBERS} files", where=archive, remedy=REMEDY, code="E-ARCHIVE-UNSAFE"
            )
        path = inner_path(member.filename, archive)
        if problem := _refused(member):
            raise ArchiveError(
                f"holds {problem}: {member.filename!a}", where=archive, remedy=REMEDY, code="E-ARCHIVE-UNSAFE"
            )
        if not member.is_dir():
            yield path, member


def _refused(member: zipfile.ZipInfo) -> str | None:
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or a device"
    if member.flag_bits & 1:
        return "an encrypted member"
    return None if member.compress_type in _FORMS else "a member that is packed in an unusual way"


def _write(packed: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, archive: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as target:
        try:
            with packed.open(member) as source:
                while chunk := source.read(_READ):  # never more than the header says
                    target.write(chunk)
        except _DAMAGED as problem:
            raise _damaged(archive, problem) from problem


def _damaged(archive: Path, problem: Exception) -> ArchiveError:
    return ArchiveError(f"is damaged, or not a zip file ({problem})", where=archive, remedy=REMEDY)
