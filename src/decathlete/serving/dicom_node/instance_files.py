"""Files of the instances of a DICOM node. Their names contain nothing of an identifier."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from decathlete.core.files import atomic_path, move_synced, remove, temporary_folder, translate_os_error
from decathlete.serving.dicom_node.node_job import Instance, Origin


@dataclass(frozen=True, kw_only=True)
class StoredInstance:
    """An instance without its content.

    Attributes:
        digest: of the content.
        file: path below the folder of all series.
        n_bytes: size of the content.
    """

    sop_uid: str
    series_uid: str
    study_uid: str
    digest: str
    file: str
    n_bytes: int
    origin: Origin

    @classmethod
    def of(cls, instance: Instance) -> Self:
        """Return what the database contains of an instance."""
        digest = hashlib.sha256(instance.content).hexdigest()
        return cls(
            sop_uid=instance.sop_uid,
            series_uid=instance.series_uid,
            study_uid=instance.study_uid,
            digest=digest,
            file=f"{_name(instance.series_uid)}/{_name(instance.sop_uid)}-{digest[:8]}.dcm",
            n_bytes=len(instance.content),
            origin=instance.origin,
        )


@dataclass(frozen=True, kw_only=True)
class StagedInstance:
    """An instance whose file is on the disk, but not among those of its series yet."""

    row: StoredInstance
    path: Path


class InstanceFiles:
    """A folder of all series; each is a folder of its instances. Instances that arrive are written beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._arriving = folder, folder.with_name("arriving")
        remove(self._arriving)  # of a killed process

    def path(self, file: str) -> Path:
        """Return the path of the file of an instance."""
        return self._folder / file

    @contextmanager
    def staged(self, instances: Iterable[Instance]) -> Iterator[tuple[StagedInstance, ...]]:
        """Write instances while they arrive; what was not moved to its series is removed at the end.

        Raises:
            OutputError: the disk cannot be written.
        """
        with translate_os_error("cannot be written", where=self._arriving, remedy="free disk space"):
            self._arriving.mkdir(parents=True, exist_ok=True)
        with temporary_folder(self._arriving) as folder:
            yield tuple(_stage(one, folder / f"{number}.dcm") for number, one in enumerate(instances))

    def move(self, staged: StagedInstance) -> None:
        """Move an instance to its series; its file is on the disk when this returns.

        Raises:
            OutputError: the disk cannot be written.
        """
        target = self.path(staged.row.file)
        with translate_os_error("cannot be written", where=target, remedy="free disk space"):
            target.parent.mkdir(parents=True, exist_ok=True)
            move_synced(staged.path, target)

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


def _stage(instance: Instance, path: Path) -> StagedInstance:
    with atomic_path(path) as partial:
        partial.write_bytes(instance.content)
    return StagedInstance(row=StoredInstance.of(instance), path=path)


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
