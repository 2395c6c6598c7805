"""A task of the Medical Segmentation Decathlon, from the public bucket or a mirror into the data folder.

Fetched into ``<data>/TaskNN_Name.tar.part`` (resumable), checked against the published MD5, unpacked beside, and
renamed whole: ``<data>/TaskNN_Name`` is there with every file or not at all. Killed at any moment, the next call goes
on from what is on disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from decathlete.core.choices import BucketRegion
from decathlete.core.files import atomic_path, remove, writable_folder
from decathlete.core.sizes import require_room
from decathlete.dataset.decathlon import DecathlonTask, archive_source, find_task
from decathlete.dataset.manifest import MANIFEST
from decathlete.errors import ArchiveError, DownloadError, OptionError, OutputError
from decathlete.transfer.archive import unpack_tar
from decathlete.transfer.http import ByteProgress, Patience, fetch, shown
from decathlete.transfer.part_file import PartFile, md5_of

LARGEST = 100_000_000_000
"""Bytes of an archive whose length no server has told; the largest of the Decathlon has about 30 GB."""

Say = Callable[[str], None]


def download(
    task: str | int,
    data: str | Path = "data",
    *,
    region: BucketRegion | None = None,
    url: str | None = None,
    patience: Patience | None = None,
    progress: ByteProgress | None = None,
    say: Say | None = None,
) -> Path:
    """Bring a Decathlon task into the data folder; if it is there, do nothing.

    Args:
        task: ``4``, ``"04"``, ``"Task04_Hippocampus"`` or ``"hippocampus"``.
        data: root of the raw datasets; made if need be.
        region: of the public bucket; ``None``: ``"us"``.
        url: a mirror instead of the bucket: a folder with the archive or the archive itself, as ``https://``,
            ``file://`` or a path. A local archive is read where it lies and never changed.
        patience: with a broken connection.
        progress: told of the bytes that have come.
        say: told in a line of each step.

    Returns:
        The dataset's folder, ``<data>/Task04_Hippocampus``.

    Raises:
        OptionError: no such task, or ``url`` is no address.
        DownloadError: it cannot be fetched, or is not what was published.
        ArchiveError: the archive is damaged or not safe to unpack.
        OutputError: the data folder cannot be written, has no room, or holds something else of that name.
    """
    say = say or (lambda _: None)
    wanted = find_task(task)
    if url is not None and region is not None:
        raise OptionError(
            "--region chooses a public bucket, --url a mirror", remedy="give only one of them", code="E-OPTION-CONFLICT"
        )
    folder = Path(data) / wanted.folder
    part = PartFile(folder.with_name(f"{wanted.archive}.part"))
    if _is_there(folder):
        part.remove()  # all that was left to do when the last call was killed
        say(f"{folder} is there already")
        return folder
    source = archive_source(wanted, region=region or "us", url=url)
    writable_folder(folder.parent)
    with part.held():
        if _is_there(folder):  # another process was quicker while this one waited for its turn
            part.remove()
            return folder
        for leftover in folder.parent.glob(f".partial-*-{wanted.folder}"):
            remove(leftover)
        if isinstance(source, Path):
            _from_file(source, wanted, folder, say)
        else:
            _from_server(source, part, wanted, folder, patience or Patience(), progress, say)
    return folder


def _is_there(folder: Path) -> bool:
    if (folder / MANIFEST).is_file():
        return True
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputError(
            f"is in the way, and holds no {MANIFEST}", where=folder, remedy="move or remove it", code="E-OUTPUT-EXISTS"
        )
    return False


def _from_file(archive: Path, task: DecathlonTask, folder: Path, say: Say) -> None:
    """Unpack an archive on this machine, which is somebody's and stays as it is."""
    _require_room(folder, archive.stat().st_size, "to unpack it")
    say(f"checking {archive}")
    if (found := md5_of(archive)) != task.md5:
        raise DownloadError(
            _not_published(found, task),
            where=archive,
            remedy="fetch it anew, or from elsewhere",
            code="E-DOWNLOAD-CHECKSUM",
        )
    _unpack(archive, task, folder, say)


def _from_server(
    url: str,
    part: PartFile,
    task: DecathlonTask,
    folder: Path,
    patience: Patience,
    progress: ByteProgress | None,
    say: Say,
) -> None:
    """Fetch what is missing of the archive, check and unpack it; it goes when the dataset stands, or if it is bad."""

    def announced(size: int) -> None:
        _require_room(folder, size - part.size + size, "to fetch and unpack it")

    say(f"{'going on with' if part.size else 'fetching'} {shown(url)}")
    # Half of the room is for what is unpacked.
    most = min(LARGEST, (shutil.disk_usage(folder.parent).free + part.size) // 2)
    fetch(url, part, patience=patience, announced=announced, most=most, progress=progress, say=say)
    say("checking what has come")
    if (found := part.md5()) != task.md5:
        part.remove()
        raise DownloadError(
            f"{_not_published(found, task)}; it was removed",
            where=shown(url),
            remedy="run the same command again; if this happens again, give --url with the address of a mirror",
            code="E-DOWNLOAD-CHECKSUM",
        )
    try:
        _unpack(part.path, task, folder, say)
    except ArchiveError:
        part.remove()
        raise
    part.remove()


def _not_published(found: str, task: DecathlonTask) -> str:
    return f"is not the {task.archive} that was published (its MD5 is {found}, not {task.md5})"


def _unpack(archive: Path, task: DecathlonTask, folder: Path, say: Say) -> None:
    say(f"unpacking to {folder}")
    with atomic_path(folder) as partial:
        # A plain tar file holds no more than its own size, unless a sparse member claims to.
        limit = archive.stat().st_size
        unpack_tar(archive, partial, top=task.folder, limit_bytes=limit, needs=(MANIFEST,))


def _require_room(folder: Path, n_bytes: int, needed_for: str) -> None:
    remedy = "make room, or choose a folder on another disk with --data"
    require_room(folder.parent, n_bytes, needed_for=needed_for, remedy=remedy)
