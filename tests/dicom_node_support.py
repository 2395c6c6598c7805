"""A DICOM node in tests: time that only tests move, an archive without a network, and a model that copies a slice."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from decathlete.serving.dicom_node.node import DicomNode
from dicom_support import write_series


class Clock:
    """Time that only tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Web:
    """A DICOMweb client in front of lists of datasets, one for each series."""

    def __init__(self) -> None:
        self.series: list[list[Any]] = []
        self.delivered: list[Any] = []
        self.fails = False
        """Whether the archive cannot be reached."""
        self.rejects: Exception | None = None
        """What an archive answers that rejects objects."""
        self.drops = False
        """Whether the archive stores nothing, and says so in a form that the client does not understand."""
        self.on_copy: Callable[[list[Any]], Any] = list

    def search_for_series(self, *_: Any, search_filters: Any, **__: Any) -> list[Any]:
        if self.fails:
            raise ConnectionError
        return [
            {
                "0020000D": {"Value": [str(one[0].StudyInstanceUID)]},
                "0020000E": {"Value": [str(one[0].SeriesInstanceUID)]},
                "00201209": {"Value": [len(one)]},
            }
            for one in self.series
            if one[0].Modality == search_filters["Modality"]
        ]

    def iter_series(self, _study: str, series_uid: str, **_: Any) -> Any:
        return self.on_copy(next(one for one in self.series if one[0].SeriesInstanceUID == series_uid))

    def store_instances(self, datasets: Sequence[Any]) -> Any:
        if self.fails:
            raise ConnectionError
        if self.rejects is not None:
            raise self.rejects
        if not self.drops:
            self.delivered += datasets
        return pydicom.Dataset()

    def search_for_instances(self, study_uid: str, *, search_filters: Any) -> list[Any]:
        uids = [str(one.SOPInstanceUID) for one in self.delivered if one.StudyInstanceUID == study_uid]
        return [{"00080018": {"Value": [uid]}} for uid in uids if uid == search_filters["SOPInstanceUID"]]


def segment(sources: Sequence[Path], output: Path) -> Sequence[Path]:
    """Write an object: the first slice."""
    path = output / f"{len(list(output.iterdir()))}.dcm"
    shutil.copyfile(min(sources[0].iterdir()), path)
    return (path,)


def slices(folder: Path, name: str, *, n_slices: int = 3, **attributes: Any) -> list[Any]:
    """The slices of a series of the study that all series have, in their order."""
    path = write_series(folder / name, np.full((n_slices, 4, 5), len(name), np.int16), series=name, **attributes)
    return sorted((pydicom.dcmread(p) for p in path.iterdir()), key=lambda d: d.InstanceNumber)


def finish(node: DicomNode) -> None:
    while node.compute_next() or node.deliver_next():
        pass


def states(node: DicomNode) -> list[str]:
    return [job.state for job in node.store.jobs()]
