"""Files of a service: uploads under way, inputs and results of jobs. Names from outside are never used as paths.

===========================  =============================================================================
``jobs.sqlite``              the queue
``incoming/RANDOM``          an upload under way; removed at the next start if the service is killed
``jobs/ID/input/``           the image: one file, or one file or DICOM folder for each channel
``jobs/ID/reading.json``     how the image is read, if the service was started with options of that
``jobs/ID/result/``          label map and record; appears whole
===========================  =============================================================================
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from decathlete.core.files import TEMPORARY_PREFIX, move_synced, remove, translate_os_error
from decathlete.core.geometry import Triple
from decathlete.core.schema import Schema
from decathlete.core.sizes import require_disk_space
from decathlete.errors import ServiceError
from decathlete.io.format_settings import ImageFormats, changed_settings, format_settings
from decathlete.io.reading import Reading

RESERVED_BYTES = 100_000_000
"""Bytes that uploads leave free on the disk, for the database and for the results of jobs that were accepted."""

_READING = "reading.json"
_REMEDY = "free disk space, or start the service with another --data"
_PIECE_BYTES = 1 << 20


class _StoredReading(Schema):
    """How the image of a job is read: spacing (z, y, x in mm), and settings of formats by the format's name."""

    has_checksum = True

    spacing: Triple | None = None
    image_formats: ImageFormats = {}


def make_private_folder(folder: Path) -> None:
    """Create a folder that only its user can read, since it is for images of patients; an existing one becomes so.

    Raises:
        OSError: it cannot be created, or belongs to another user.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)


def require_room(folder: Path, n_bytes: int) -> None:
    """Check that :data:`RESERVED_BYTES` stay free when ``n_bytes`` of an upload, or of a copy of it, are written.

    Others write, too, so call it for the whole, and again for each piece.

    Raises:
        OutputError: the disk is too full.
    """
    require_disk_space(folder, n_bytes + RESERVED_BYTES, needed_for="for the upload", remedy=_REMEDY)


def copy_file(source: Path, target: Path) -> Path:
    """Copy a file to a new one, which is returned; :data:`RESERVED_BYTES` of the disk stay free.

    Raises:
        OutputError: the disk is too full.
    """
    require_room(target.parent, source.stat().st_size)
    with (
        source.open("rb") as stream,
        translate_os_error("cannot be written", where=target, remedy=_REMEDY),
        target.open("xb") as copy,
    ):
        while piece := stream.read(_PIECE_BYTES):
            require_room(target.parent, len(piece))
            copy.write(piece)
    return target


class Storage:
    """The folder of a service; the caller holds its lock.

    Args:
        root: folder of the service; it exists.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self._jobs = root / "jobs"
        with translate_os_error("cannot be written", where=root, remedy=_REMEDY):
            for folder in (self.incoming, self._jobs):
                make_private_folder(folder)

    @property
    def database(self) -> Path:
        """File of the queue."""
        return self.root / "jobs.sqlite"

    def job_folder(self, job_id: str) -> Path:
        """Folder of all files of a job."""
        return self._jobs / job_id

    def input_paths(self, job_id: str) -> list[Path]:
        """Return the image of a job: a file or DICOM folder for each channel, or a single one with all."""
        return sorted((self.job_folder(job_id) / "input").iterdir())

    def reading_of(self, job_id: str) -> Reading:
        """Return how the image of a job is read.

        Raises:
            ServiceError: the file that says so is damaged.
        """
        path = self.job_folder(job_id) / _READING
        if not path.is_file():
            return Reading()
        stored = _StoredReading.load(path, error=ServiceError)
        return Reading(spacing=stored.spacing, formats=format_settings(stored.image_formats))

    def result_folder(self, job_id: str) -> Path:
        """Folder of the finished result of a job."""
        return self.job_folder(job_id) / "result"

    @contextmanager
    def upload_folder(self) -> Iterator[Path]:
        """Provide a folder for an upload; what is left of it at the end is removed."""
        folder = self.incoming / secrets.token_hex(8)
        try:
            with translate_os_error("cannot be written", where=self.incoming, remedy=_REMEDY):
                folder.mkdir(mode=0o700)
            yield folder
        finally:
            remove(folder)

    def accept(self, image: Path, job_id: str, reading: Reading = Reading()) -> None:
        """Move the folder of an image to a new job; it is durable when this returns.

        Args:
            reading: how the image is read, also after the service was started with other options.
        """
        whole = image.parent / f"job-{job_id}"
        with translate_os_error("cannot be written", where=self.root, remedy=_REMEDY):
            whole.mkdir(mode=0o700)
            image.rename(whole / "input")
            if reading != Reading():
                formats = changed_settings(reading.formats)
                _StoredReading(spacing=reading.spacing, image_formats=formats).save(whole / _READING)
            move_synced(whole, self.job_folder(job_id))

    def publish(self, result: Path, job_id: str) -> None:
        """Move a finished result to its place, durably; an unpublished one of a killed service is replaced."""
        with translate_os_error("cannot be written", where=self.root, remedy=_REMEDY):
            remove(self.result_folder(job_id))
            move_synced(result, self.result_folder(job_id))

    def remove(self, job_id: str) -> None:
        """Remove all files of a job."""
        remove(self.job_folder(job_id))

    def clean(self, job_ids: set[str]) -> None:
        """Remove what a killed service left: uploads, files of jobs that are not in the queue, unfinished files."""
        for leftover in self.incoming.iterdir():
            remove(leftover)
        for folder in self._jobs.iterdir():
            if folder.name not in job_ids:
                remove(folder)
            for leftover in [*folder.glob(f"{TEMPORARY_PREFIX}*"), *folder.glob(f"*/{TEMPORARY_PREFIX}*")]:
                remove(leftover)
