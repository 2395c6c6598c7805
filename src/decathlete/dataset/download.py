"""Download a task of the Medical Segmentation Decathlon from the public bucket or a mirror to the data folder.

The archive is downloaded to ``<data>/TaskNN_Name.tar.part`` (resumable), checked against the published MD5, unpacked to
a temporary folder, and renamed: ``<data>/TaskNN_Name`` is complete or absent. After a kill, the next call resumes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from decathlete.core.choices import BucketRegion
from decathlete.core.files import atomic_path, remove
from decathlete.core.output_paths import writable_folder
from decathlete.core.sizes import require_disk_space
from decathlete.dataset.decathlon import DecathlonTask, find_task, locate_archive
from decathlete.dataset.find_dataset import MANIFEST
from decathlete.errors import ArchiveError, DownloadError, OptionError, OutputError
from decathlete.transfer.archive import unpack_tar
from decathlete.transfer.http import ByteProgress, Patience, download_file, without_query
from decathlete.transfer.part_file import PartFile, md5_of

LARGEST = 100_000_000_000
"""Maximum size of an archive whose size the server does not give, bytes; the largest of the Decathlon has 30 GB."""

Log = Callable[[str], None]


def download(
    task: str | int,
    *,
    data: str | Path = "data",
    region: BucketRegion | None = None,
    url: str | None = None,
    patience: Patience | None = None,
    progress: ByteProgress | None = None,
    log: Log | None = None,
) -> Path:
    """Download a Decathlon task to the data folder; do nothing if the dataset exists.

    Args:
        task: ``4``, ``"04"``, ``"Task04_Hippocampus"`` or ``"hippocampus"``.
        data: root of the raw datasets; created if need be.
        region: location of the public bucket; ``None``: ``"us"``.
        url: a mirror instead of the bucket: a folder with the archive or the archive itself, as ``https://``,
            ``file://`` or a path. A local archive is read in place and never changed.
        patience: limits of retrying a broken connection.
        progress: called with the number of downloaded bytes.
        log: called with a line of text for each step.

    Returns:
        The dataset's folder, ``<data>/Task04_Hippocampus``.

    Raises:
        OptionError: there is no such task, or ``url`` is not an address.
        DownloadError: the archive cannot be downloaded, or is not the published one.
        ArchiveError: the archive is damaged or not safe to unpack.
        OutputError: the data folder cannot be written, has too little space, or contains something else of that name.
    """
    log = log or (lambda _: None)
    wanted = find_task(task)
    if url is not None and region is not None:
        raise OptionError(
            "--region chooses a public bucket, --url a mirror", remedy="use only one of them", code="E-OPTION-CONFLICT"
        )
    folder = Path(data) / wanted.folder
    part = PartFile(folder.with_name(f"{wanted.archive}.part"))
    if _exists(folder):
        part.remove()  # left over if the last call was killed at the very end
        log(f"{folder} exists already")
        return folder
    source = locate_archive(wanted, region=region or "us", url=url)
    writable_folder(folder.parent)
    with part.lock():
        if _exists(folder):  # another process finished it in the meantime
            part.remove()
            return folder
        for leftover in folder.parent.glob(f".partial-*-{wanted.folder}"):
            remove(leftover)
        if isinstance(source, Path):
            _unpack_local(source, wanted, folder, log)
        else:
            _download_and_unpack(source, part, wanted, folder, patience or Patience(), progress, log)
    return folder


def _exists(folder: Path) -> bool:
    if (folder / MANIFEST).is_file():
        return True
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputError(
            f"exists, but contains no {MANIFEST}", where=folder, remedy="move or remove it", code="E-OUTPUT-EXISTS"
        )
    return False


def _unpack_local(archive: Path, task: DecathlonTask, folder: Path, log: Log) -> None:
    """Check and unpack a local archive, which stays as it is."""
    _check_disk_space(folder, archive.stat().st_size, "to unpack it")
    log(f"checking {archive}")
    if (md5 := md5_of(archive)) != task.md5:
        raise DownloadError(
            _md5_message(md5, task),
            where=archive,
            remedy="download it again, or from another mirror",
            code="E-DOWNLOAD-CHECKSUM",
        )
    _unpack(archive, task, folder, log)


def _download_and_unpack(
    url: str,
    part: PartFile,
    task: DecathlonTask,
    folder: Path,
    patience: Patience,
    progress: ByteProgress | None,
    log: Log,
) -> None:
    """Download the missing bytes of the archive, check and unpack it; remove it at the end, or if it is damaged."""

    def check_size(size: int) -> None:
        _check_disk_space(folder, size - part.size + size, "to download and unpack it")

    log(f"{'resuming' if part.size else 'downloading'} {without_query(url)}")
    # Half of the space is needed for the unpacked files.
    limit_bytes = min(LARGEST, (shutil.disk_usage(folder.parent).free + part.size) // 2)
    download_file(
        url, part, patience=patience, check_size=check_size, limit_bytes=limit_bytes, progress=progress, log=log
    )
    log("checking the archive")
    if (md5 := part.md5()) != task.md5:
        part.remove()
        raise DownloadError(
            f"{_md5_message(md5, task)}; it was removed",
            where=without_query(url),
            remedy="run the same command again; if this happens again, use --url with the address of a mirror",
            code="E-DOWNLOAD-CHECKSUM",
        )
    try:
        _unpack(part.path, task, folder, log)
    except ArchiveError:
        part.remove()
        raise
    part.remove()


def _md5_message(md5: str, task: DecathlonTask) -> str:
    return f"is not the published {task.archive} (its MD5 is {md5}, not {task.md5})"


def _unpack(archive: Path, task: DecathlonTask, folder: Path, log: Log) -> None:
    log(f"unpacking to {folder}")
    with atomic_path(folder) as partial:
        # A plain tar file unpacks to no more than its own size, unless a sparse member says otherwise.
        limit = archive.stat().st_size
        unpack_tar(archive, partial, top=task.folder, limit_bytes=limit, needs=(MANIFEST,))


def _check_disk_space(folder: Path, n_bytes: int, needed_for: str) -> None:
    remedy = "free disk space, or choose a folder on another disk with --data"
    require_disk_space(folder.parent, n_bytes, needed_for=needed_for, remedy=remedy)
