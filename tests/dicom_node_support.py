"""A DICOM node in tests: time that only tests move, an archive without a network, and a model that copies a slice."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from decathlete.core.labels import LabelSet
from decathlete.inference.output.dicom import write_dicom_result
from decathlete.inference.output.provenance import ModelUse, RecordedSettings
from decathlete.io.images import read_image
from decathlete.serving.dicom_node.choice import SeriesChoice
from decathlete.serving.dicom_node.instance_files import StagedInstance, read_uids
from decathlete.serving.dicom_node.node import DicomNode
from decathlete.serving.dicom_node.node_store import NodeStore
from decathlete.serving.dicom_node.settings import DicomNodeSettings
from dicom_support import write_series

MakeNode = Callable[..., DicomNode]
DIGEST = "cd" * 32
USE = ModelUse(digest=DIGEST, dataset="T", dims=3, weights="final", engine="torch", precision="fp32")
SETTINGS = RecordedSettings(models=(USE,), tta=False, overlap=0.5, blend="gaussian")


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

    def download(self, _study: str, series_uid: str, folder: Path, *, check: Callable[[int], object]) -> Iterator[Path]:
        datasets = self.on_copy(next(one for one in self.series if one[0].SeriesInstanceUID == series_uid))
        return write_files(datasets, folder, check)

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


class FakeWeb:
    """A DICOMweb client in front of a list of datasets."""

    def __init__(self, datasets: Sequence[Any]) -> None:
        self.datasets = list(datasets)
        self.fails = False

    @property
    def segmentations(self) -> list[Any]:
        return [one for one in self.datasets if one.Modality == "SEG"]

    def search_for_series(self, study: str | None = None, *, search_filters: Any, **paging: Any) -> list[Any]:
        if self.fails:
            raise ConnectionError
        found: dict[str, Any] = {}
        for one in self.datasets:
            if one.Modality == search_filters["Modality"] and study in (None, one.StudyInstanceUID):
                n = sum(o.SeriesInstanceUID == one.SeriesInstanceUID for o in self.datasets)
                found[one.SeriesInstanceUID] = {
                    "0020000D": {"Value": [str(one.StudyInstanceUID)]},
                    "0020000E": {"Value": [str(one.SeriesInstanceUID)]},
                    "00201209": {"Value": [n]},
                }
        return list(found.values())[paging.get("offset", 0) :]

    def download(self, _study: str, series: str, folder: Path, *, check: Callable[[int], object]) -> Iterator[Path]:
        return write_files([one for one in self.datasets if one.SeriesInstanceUID == series], folder, check)

    def retrieve_series_metadata(self, _study: str, series: str) -> list[Any]:
        return [one.to_json_dict() for one in self.datasets if one.SeriesInstanceUID == series]

    def store_instances(self, datasets: Sequence[Any]) -> Any:
        if self.fails:
            raise ConnectionError
        self.datasets += datasets
        return pydicom.Dataset()


def segment(sources: Sequence[Path], output: Path) -> Sequence[Path]:
    """Write an object: the first slice."""
    path = output / f"{len(list(output.iterdir()))}.dcm"
    shutil.copyfile(min(sources[0].iterdir()), path)
    return (path,)


def segment_to_seg(sources: Sequence[Path], output: Path) -> Sequence[Path]:
    """Write a SEG object that marks where the sum of all channels is positive."""
    label = (sum(read_image(source).array_CZYX[0] for source in sources) > 0).astype(np.uint8)
    path = output / f"{len(list(output.iterdir()))}.seg.dcm"
    labels = LabelSet.from_names(["liver"])
    write_dicom_result(path, "dicom-seg", label, labels=labels, source=sources[0], settings=SETTINGS)
    return (path,)


def slices(folder: Path, name: str, *, n_slices: int = 3, **attributes: Any) -> list[Any]:
    """The slices of a series of the study that all series have, in their order."""
    path = write_series(folder / name, np.full((n_slices, 4, 5), len(name), np.int16), series=name, **attributes)
    return sorted((pydicom.dcmread(p) for p in path.iterdir()), key=lambda d: d.InstanceNumber)


@contextmanager
def polling_nodes(folder: Path, clock: Clock, web: Web) -> Iterator[MakeNode]:
    """Make nodes that poll an archive and whose steps the test makes itself; they are stopped at the end."""
    nodes: list[DicomNode] = []

    def make(
        segment_: Any = segment, *, channels: Sequence[str] = ("CT",), digest: str = "a", **changes: Any
    ) -> DicomNode:
        settings = DicomNodeSettings(data=folder, dicomweb="http://127.0.0.1:1/x", **changes)
        choice = SeriesChoice.of_model(channels)
        node = DicomNode(settings, segment_, choice=choice, digests=(digest * 64,), clock=clock)
        use_web(node, web)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.stop()


def use_web(node: DicomNode, web: Any) -> None:
    """Let a node poll an archive without a network."""
    assert node._archive
    node._archive.client, node._archive.download = web, web.download


def write_files(datasets: Iterable[Any], folder: Path, check: Callable[[int], object]) -> Iterator[Path]:
    """Write datasets to files as a download does."""
    for number, dataset in enumerate(datasets):
        content = content_of(dataset)
        check(len(content))
        path = folder / str(number)
        path.write_bytes(content)
        yield path


def content_of(dataset: Any) -> bytes:
    """The bytes of a file with a dataset."""
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def store_datasets(store: NodeStore, datasets: Sequence[Any], *, now: float, origin: Any = "web") -> int:
    """Store instances as a node does that has received them; the number of new ones."""
    with store.arriving() as folder:
        paths = write_files(datasets, folder, check=lambda _: None)
        return store.register([StagedInstance.of_file(one, read_uids(one), origin=origin) for one in paths], now=now)


def poll_twice(node: DicomNode, clock: Clock) -> None:
    """Find series, see that they do not grow, copy them, and wait until they are complete."""
    for _ in range(2):
        clock.now += 61
        node.poll()
    clock.now += 11


def finish(node: DicomNode) -> None:
    while node.compute_next() or node.deliver_next():
        pass


def states(node: DicomNode) -> list[str]:
    return [job.state for job in node.store.jobs()]
