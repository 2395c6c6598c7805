"""Unpack zip files from untrusted sources, by the rules of :mod:`decathlete.transfer.archive`.

A link or an encrypted member rejects the whole file, since an archive of a folder of plain files contains neither.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from decathlete.core.files import is_access_error
from decathlete.core.placeholder_files import placeholder_error
from decathlete.core.sizes import format_bytes, require_disk_space
from decathlete.errors import ArchiveError
from decathlete.transfer.archive import MAX_MEMBERS, REMEDY, inner_path, reject_duplicates

_READ = 1 << 20
_FORMS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError)


def unpack_zip(
    archive: Path,
    folder: Path,
    *,
    limit_bytes: int,
    wanted: Callable[[PurePosixPath], bool] = lambda _: True,
    check: Callable[[int], object] = lambda _: None,
) -> None:
    """Unpack the files for which ``wanted`` is true to the new folder ``folder``.

    Args:
        folder: does not exist yet. A failure leaves it incomplete, so give a temporary folder.
        limit_bytes: greatest number of bytes to write.
        check: called with the number of bytes before they are written, first with all; an exception that it raises
            ends the work.

    Raises:
        ArchiveError: the file is damaged, not a zip file, or not safe. Nothing is written in these cases, except if
            the content of a member is damaged.
        OutputError: the disk has too little free space.
    """
    with _open_zip(archive) as packed:
        files = [(path, member) for path, member in _check_members(packed, archive) if wanted(path)]
        n_bytes = sum(member.file_size for _, member in files)
        if n_bytes > limit_bytes:
            raise ArchiveError(
                f"would unpack to more than {format_bytes(limit_bytes)}",
                where=archive,
                remedy=REMEDY,
                code="E-ARCHIVE-UNSAFE",
            )
        reject_duplicates([path for path, _ in files], archive)
        check(n_bytes)
        folder.mkdir(parents=True)
        require_disk_space(folder, n_bytes, needed_for="to unpack it", remedy="free disk space, or choose another disk")
        for path, member in files:
            _write(packed, member, folder / path, archive, check)


def find_damaged_member(packed: zipfile.ZipFile) -> str | None:
    """Return the first member whose content does not match its checksum (0.45 s for each GB), or ``None``.

    Its name is that inside the top folder, which torch calls as the file was called when it was written.

    torch can write zip files without checksums (``torch.serialization.set_crc32_options(False)``): then all are 0, and
    nothing is compared.

    Raises:
        zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError: of damaged headers.
    """
    if not any(member.CRC for member in packed.infolist()):
        return None
    name = packed.testzip()
    return None if name is None else name.partition("/")[2] or name


@contextmanager
def _open_zip(archive: Path) -> Iterator[zipfile.ZipFile]:
    with _reading(archive):
        packed = zipfile.ZipFile(archive)
    with packed:
        yield packed


def _check_members(packed: zipfile.ZipFile, archive: Path) -> Iterator[tuple[PurePosixPath, zipfile.ZipInfo]]:
    """Check the header of every member and yield the files."""
    for n_members, member in enumerate(packed.infolist(), start=1):
        if n_members > MAX_MEMBERS:
            raise ArchiveError(
                f"would unpack to more than {MAX_MEMBERS} files", where=archive, remedy=REMEDY, code="E-ARCHIVE-UNSAFE"
            )
        path = inner_path(member.filename, archive)
        if problem := _unsafe_feature(member):
            raise ArchiveError(
                f"contains {problem}: {member.filename!a}", where=archive, remedy=REMEDY, code="E-ARCHIVE-UNSAFE"
            )
        if not member.is_dir():
            yield path, member


def _unsafe_feature(member: zipfile.ZipInfo) -> str | None:
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or a device"
    if member.flag_bits & 1:
        return "an encrypted member"
    return None if member.compress_type in _FORMS else "a member that is packed in an unusual way"


def _write(
    packed: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, archive: Path, check: Callable[[int], object]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as target, _reading(archive), packed.open(member) as source:
        while chunk := source.read(_READ):  # never more than the size in the header
            check(len(chunk))
            target.write(chunk)


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Translate errors of damaged content; a seek to a damaged offset is one, too."""
    try:
        yield
    except _DAMAGED as problem:
        raise _damage_error(archive, problem) from problem
    except OSError as problem:
        if is_access_error(problem):
            raise
        raise _damage_error(archive, problem) from problem


def _damage_error(archive: Path, problem: Exception) -> ArchiveError:
    return placeholder_error(archive, ArchiveError) or ArchiveError(
        f"is damaged, or not a zip file ({problem})", where=archive, remedy=REMEDY
    )
