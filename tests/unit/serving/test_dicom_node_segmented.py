"""The DICOM node and series that were segmented before: the SEG objects of the archive tell, also a new node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from decathlete.serving.dicom_node.choice import SeriesChoice
from decathlete.serving.dicom_node.node import DicomNode
from decathlete.serving.dicom_node.settings import DicomNodeSettings
from dicom_node_support import DIGEST, Clock, FakeWeb, finish, poll_twice, segment_to_seg, slices, states, use_web
from dicom_support import SAGITTAL, uid, write_enhanced

PET_CT = ("CT", "PET")


@pytest.fixture
def web() -> FakeWeb:
    return FakeWeb([])


@pytest.fixture
def make_node(tmp_path: Path, clock: Clock, web: FakeWeb) -> Iterator[Callable[..., DicomNode]]:
    """Nodes with folders of their own, which know nothing of one another."""
    nodes: list[DicomNode] = []

    def make(*, channels: Sequence[str] = ("CT",), **changes: Any) -> DicomNode:
        settings = DicomNodeSettings(data=tmp_path / f"node {len(nodes)}", dicomweb="http://127.0.0.1:1/x", **changes)
        choice = SeriesChoice.of_model(channels)
        nodes.append(DicomNode(settings, segment_to_seg, choice=choice, digests=(DIGEST,), clock=clock))
        use_web(nodes[-1], web)
        return nodes[-1]

    yield make
    for node in nodes:
        node.stop()


def work(node: DicomNode, clock: Clock) -> None:
    """Copy what is new and complete, segment it, and send the results."""
    poll_twice(node, clock)
    finish(node)


def is_idle(node: DicomNode, clock: Clock) -> bool:
    """Whether a node that stores nothing copies nothing, either."""
    work(node, clock)
    return states(node) == [] and node.store.is_empty() and node.status().failed_copies == ()


def scout_in(series: str, folder: Path) -> list[Any]:
    """Two sagittal slices with the identifier of another series."""
    return slices(
        folder, f"scout of {series}", n_slices=2, orientation=SAGITTAL, SeriesInstanceUID=uid("series", series)
    )


def n_referenced(web: FakeWeb) -> list[int]:
    return [len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) for seg in web.segmentations]


def test_a_series_with_a_scout_is_segmented_once_for_each_state(
    make_node: Any, web: FakeWeb, clock: Clock, tmp_path: Path
) -> None:
    ct = slices(tmp_path, "ct", n_slices=6)
    web.datasets = [*ct[:5], *scout_in("ct", tmp_path)]
    node = make_node(keep_seconds=1000.0)
    work(node, clock)
    assert (states(node), n_referenced(web)) == (["sent"], [5])
    clock.now += 1000
    finish(node)
    assert is_idle(node, clock)  # it has deleted everything
    assert is_idle(make_node(), clock)
    web.datasets.append(ct[5])  # a late slice of the volume
    work(node, clock)
    assert (states(node), n_referenced(web)) == (["sent"], [5, 6])
    web.datasets += slices(tmp_path, "sc2", n_slices=1, orientation=SAGITTAL, SeriesInstanceUID=uid("series", "ct"))
    assert is_idle(make_node(), clock)  # a late slice beside the volume


def test_multi_frame_files_of_one_series_are_segmented_once(
    make_node: Any, web: FakeWeb, clock: Clock, tmp_path: Path
) -> None:
    for name in ("a.dcm", "b.dcm"):
        web.datasets.append(pydicom.dcmread(write_enhanced(tmp_path / name, np.full((4, 5, 6), 9, np.int16))))
        web.datasets[-1].SeriesInstanceUID = uid("series", "both")
    node = make_node()
    work(node, clock)
    assert states(node) == ["sent"]
    made = [seg.SOPInstanceUID for seg in web.segmentations]
    assert (n_referenced(web), len(set(made))) == ([1, 1], 2)
    assert is_idle(make_node(), clock)
    web.datasets = [one for one in web.datasets if one.SOPInstanceUID != made[0]]  # one of two results is lost
    other = make_node()
    work(other, clock)
    assert states(other) == ["sent"]
    assert {seg.SOPInstanceUID for seg in web.segmentations} == set(made)


@pytest.mark.parametrize("has_scout", [False, True])
def test_a_study_is_segmented_once_for_each_choice_of_series(
    make_node: Any, web: FakeWeb, clock: Clock, tmp_path: Path, has_scout: bool
) -> None:
    ct, pet = slices(tmp_path, "ct"), slices(tmp_path, "pet1", modality="PT")
    web.datasets = [*ct, *pet, *(scout_in("ct", tmp_path) if has_scout else [])]
    node = make_node(channels=PET_CT)
    work(node, clock)
    assert (states(node), n_referenced(web)) == (["sent"], [3])
    assert is_idle(make_node(channels=PET_CT), clock)
    for name, modality in (("long ct", "CT"), ("long pet", "PT")):
        web.datasets += slices(tmp_path, name, n_slices=5, modality=modality)
    other = make_node(channels=PET_CT)
    work(other, clock)
    assert (states(other), n_referenced(web)) == (["sent"], [3, 5])
    assert is_idle(make_node(channels=PET_CT), clock)
    web.datasets += slices(tmp_path, "again", n_slices=5)  # now no choice is clear, and nothing can be segmented
    assert is_idle(make_node(channels=PET_CT), clock)


def test_late_slices_of_two_channels_may_arrive_one_after_the_other(
    make_node: Any, web: FakeWeb, clock: Clock, tmp_path: Path
) -> None:
    ct, pet = slices(tmp_path, "ct", n_slices=5), slices(tmp_path, "pet1", n_slices=5, modality="PT")
    web.datasets = [*ct[:4], *pet[:4]]
    nodes = [make_node(channels=PET_CT), make_node(channels=PET_CT)]
    work(nodes[0], clock)
    assert is_idle(nodes[1], clock)
    web.datasets.append(pet[4])
    for node in nodes:
        work(node, clock)  # nothing can be segmented: the channels have different grids
    assert n_referenced(web) == [4]
    web.datasets.append(ct[4])
    work(nodes[1], clock)
    assert (states(nodes[1]), n_referenced(web)) == (["sent"], [4, 5])
    work(nodes[0], clock)
    assert states(nodes[0]) == ["sent"]


@pytest.mark.parametrize("missing", ["instances", "attributes"])
def test_a_series_that_the_archive_does_not_describe_gets_the_same_result_again(
    make_node: Any, web: FakeWeb, clock: Clock, tmp_path: Path, missing: str
) -> None:
    web.datasets = [*slices(tmp_path, "ct"), *scout_in("ct", tmp_path)]
    work(make_node(), clock)
    describe, series_uid = web.retrieve_series_metadata, uid("series", "ct")

    def describe_little(study: str, series: str) -> list[Any]:
        found = describe(study, series)
        if series != series_uid:
            return found
        return found[:2] if missing == "instances" else [{"00080018": one["00080018"]} for one in found]

    web.retrieve_series_metadata = describe_little  # type: ignore[method-assign]
    node = make_node()
    work(node, clock)
    assert states(node) == ["sent"]
    assert len({seg.SOPInstanceUID for seg in web.segmentations}) == 1


class PagingWeb(FakeWeb):
    """An archive that lists two series at a time."""

    def search_for_series(self, study: str | None = None, **arguments: Any) -> list[Any]:
        return super().search_for_series(study, **arguments)[:2]


def test_the_result_may_be_on_a_later_page_of_the_archive(make_node: Any, clock: Clock, tmp_path: Path) -> None:
    web = PagingWeb([])
    for number in range(3):  # of other programs
        other = pydicom.Dataset()
        other.StudyInstanceUID, other.Modality = uid("study", "study"), "SEG"
        other.SeriesInstanceUID, other.SOPInstanceUID = uid("other", number), uid("object", number)
        web.datasets.append(other)
    web.datasets += slices(tmp_path, "ct")
    for expected in (["sent"], []):
        node = make_node()
        use_web(node, web)
        work(node, clock)
        assert states(node) == expected
