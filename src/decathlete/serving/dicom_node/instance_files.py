"""Files of the instances of a DICOM node. Their names contain nothing of an identifier."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from decathlete.core.files import file_digest, remove, sync_path, temporary_folder, translate_os_error
from decathlete.io.dicom_reading import read_dicom
from decathlete.serving.dicom_node.node_job import Origin

_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


@dataclass(frozen=True, kw_only=True)
class InstanceUids:
    """Identifiers of an instance, its series and its study."""

    sop_uid: str
    series_uid: str
    study_uid: str


def read_uids(path: Path) -> InstanceUids:
    """Read the identifiers of an instance, and nothing else of its file.

    Raises:
        Exception: of pydicom, in many kinds: it is not DICOM, or lacks one of them.
    """
    dataset = read_dicom(path, specific_tags=list(_UIDS), stop_before_pixels=True)
    sop_uid, series_uid, study_uid = (str(dataset[name].value).strip() for name in _UIDS)
    return InstanceUids(sop_uid=sop_uid, series_uid=series_uid, study_uid=study_uid)


@dataclass(frozen=True, kw_only=True)
class StoredInstance(InstanceUids):
    """What the database contains of an instance.

    Attributes:
        digest: of the content.
        file: path below the folder of all series.
        n_bytes: size of the content.
    """

    digest: str
    file: str
    n_bytes: int
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class StagedInstance:
    """An instance whose file is on the disk, but not among those of its series yet."""

    row: StoredInstance
    path: Path

    @classmethod
    def of_file(cls, path: Path, uids: InstanceUids, *, origin: Origin) -> Self:
        """Describe the file of an instance that arrived."""
        digest = file_digest(path)
        file = f"{_name(uids.series_uid)}/{_name(uids.sop_uid)}-{digest[:8]}.dcm"
        row = StoredInstance(**asdict(uids), digest=digest, file=file, n_bytes=path.stat().st_size, origin=origin)
        return cls(row=row, path=path)


class InstanceFiles:
    """A folder of all series; each is a folder of its instances. Instances that arrive are written beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._arriving = folder, folder.with_name("arriving")
        remove(self._arriving)  # of a killed process

    def path(self, file: str) -> Path:
        """Return the path of the file of an instance."""
        return self._folder / file

    @contextmanager
    def arriving(self) -> Iterator[Path]:
        """Provide a folder for instances while they arrive; what was not moved to its series is removed at the end.

        Raises:
            OutputError: the disk cannot be written.
        """
        with translate_os_error("cannot be written", where=self._arriving, remedy="free disk space"):
            self._arriving.mkdir(parents=True, exist_ok=True)
        with temporary_folder(self._arriving) as folder:
            yield folder

    def sync(self, staged: Iterable[StagedInstance]) -> None:
        """Return when the content of instances is on the disk; for many of them, a slow disk takes a minute.

        Raises:
            OutputError: the disk cannot be written.
        """
        for one in staged:
            with translate_os_error("cannot be written", where=self.path(one.row.file), remedy="free disk space"):
                sync_path(one.path)

    def move(self, staged: Iterable[StagedInstance]) -> None:
        """Move instances to their series; their new names are on the disk when this returns.

        Raises:
            OutputError: the disk cannot be written.
        """
        targets = {self.path(one.row.file): one.path for one in staged}
        with translate_os_error("cannot be written", where=self._folder, remedy="free disk space"):
            for target, source in targets.items():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, target)
            for folder in dict.fromkeys(target.parent for target in targets):
                sync_path(folder)
            if targets:
                sync_path(self._folder)  # it contains the names of the folders

    def remove(self, files: Iterable[str]) -> None:
        """Remove instances, and the folders of series of which none is left."""
        for file in files:
            remove(self.path(file))
            with suppress(OSError):  # other instances of the series are in it
                self.path(file).parent.rmdir()

    def remove_unknown(self, known: Collection[str]) -> None:
        """Remove all files but the known ones: what a killed process wrote and did not record."""
        found = (path.relative_to(self._folder).as_posix() for path in self._folder.rglob("*") if path.is_file())
        self.remove([file for file in found if file not in known])

    def remove_series(self, series_uid: str) -> None:
        """Remove all instances of a series."""
        remove(self._folder / _name(series_uid))


@contextmanager
def linked_files(files: Sequence[Path], folder: Path) -> Iterator[Path]:
    """Provide a folder with links to files, and remove it at the end."""
    remove(folder)
    folder.mkdir(parents=True)
    try:
        for file in files:
            os.link(file, folder / file.name)
        yield folder
    finally:
        remove(folder)


def _name(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:24]
