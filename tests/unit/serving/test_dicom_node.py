"""The DICOM node over real associations on this computer: allow-list, quiet time, late slices, restarts, retries."""

from __future__ import annotations

import logging
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pynetdicom
import pytest
from pynetdicom import evt

from decathlete.core.files import TEMPORARY_PREFIX
from decathlete.errors import ImageError, OptionError
from decathlete.io.dicom_structures import read_structure_masks, referenced_series
from decathlete.io.images import read_image
from decathlete.serving.dicom_node.choice import SeriesChoice
from decathlete.serving.dicom_node.node import DicomNode
from decathlete.serving.dicom_node.settings import DicomNodeSettings, Peer, parse_listen
from dicom_node_support import DIGEST, Clock, FakeWeb, finish, poll_twice, segment_to_seg, states, use_web
from dicom_support import uid, write_series

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
CT = "1.2.840.10008.5.1.4.1.1.2"


class Archive:
    """A storage provider that keeps what it gets, and can refuse."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.status = 0x0000
        entity = pynetdicom.AE(ae_title="ARCHIVE")
        entity.add_supported_context(SEG)
        handlers = [(evt.EVT_C_STORE, self._store)]
        self.server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)

    @property
    def peer(self) -> Peer:
        return Peer(aet="ARCHIVE", host="127.0.0.1", port=self.server.socket.getsockname()[1])

    def _store(self, event: Any) -> int:
        if self.status == 0x0000:
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            self.received.append(dataset)
        return self.status


@pytest.fixture
def archive() -> Iterator[Archive]:
    one = Archive()
    yield one
    one.server.shutdown()


@pytest.fixture
def make_node(tmp_path: Path, archive: Archive, clock: Clock) -> Iterator[Callable[..., DicomNode]]:
    """A node that listens and whose steps the test makes itself."""
    nodes: list[DicomNode] = []

    def make(segment_: Any = segment_to_seg, *, channels: Sequence[str] = ("CT",), **changes: Any) -> DicomNode:
        fields = {"port": 0, "callers": ("SCANNER",), "send_to": archive.peer} | changes
        settings = DicomNodeSettings(data=tmp_path / "node", **fields)
        choice = SeriesChoice.of_model(channels, settings.series)
        node = DicomNode(settings, segment_, choice=choice, digests=(DIGEST,), clock=clock)
        if node._receiver is not None:
            node._receiver.start()
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.stop()


def datasets_of(folder: Path, name: str, *, n_slices: int = 5, **attributes: Any) -> list[Any]:
    """The slices of a series of noise, in their order; series of one study have the same grid."""
    voxels = np.random.default_rng(len(name)).normal(0, 99, (n_slices, 8, 9)).astype(np.int16)
    path = write_series(folder / name, voxels, series=name, **attributes)
    return sorted((pydicom.dcmread(p) for p in path.iterdir()), key=lambda d: d.InstanceNumber)


@pytest.fixture
def series(tmp_path: Path) -> list[Any]:
    return datasets_of(tmp_path, "series")


def send(node: DicomNode, datasets: Sequence[Any], *, caller: str = "SCANNER", called: str = "DECATHLETE") -> list[int]:
    """Send in one association; an association that is refused gives no statuses."""
    association = open_association(node, caller=caller, called=called)
    if not association.is_established:
        return []
    statuses = [association.send_c_store(dataset).Status for dataset in datasets]
    association.release()
    return statuses


def open_association(node: DicomNode, *, caller: str = "SCANNER", called: str = "DECATHLETE") -> Any:
    entity = pynetdicom.AE(ae_title=caller)
    entity.add_requested_context(CT, "1.2.840.10008.1.2.1")
    return entity.associate("127.0.0.1", node.port, ae_title=called)


def wait_until_closed(node: DicomNode) -> None:
    """Wait for the node to learn that an association was released."""
    for _ in range(500):
        if not node._receiver.busy_series():
            return
        time.sleep(0.02)
    raise AssertionError("the association is still open")


def test_a_series_is_segmented_when_it_is_complete(make_node: Any, archive: Archive, series: Any, clock: Clock) -> None:
    node = make_node()
    assert send(node, series) == [0] * 5
    clock.now += 9
    finish(node)
    assert states(node) == []
    clock.now += 1.5
    finish(node)
    assert states(node) == ["sent"]
    (result,) = archive.received
    assert result.SOPClassUID == SEG
    assert result.PatientID == "P1"
    assert result.DeviceSerialNumber == DIGEST
    assert len(result.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 5


def test_an_open_association_is_waited_for(make_node: Any, archive: Archive, series: Any, clock: Clock) -> None:
    node = make_node()
    association = open_association(node)
    assert association.send_c_store(series[0]).Status == 0
    clock.now += 100
    finish(node)
    assert states(node) == []
    for dataset in series[1:]:
        assert association.send_c_store(dataset).Status == 0
    association.release()
    clock.now += 11
    wait_until_closed(node)
    finish(node)
    assert len(archive.received) == 1


def test_late_slices_start_a_new_job_and_copies_do_not(
    make_node: Any, archive: Archive, series: Any, clock: Clock
) -> None:
    node = make_node()
    send(node, series[:4])
    clock.now += 11
    finish(node)
    send(node, series[:4])  # again
    clock.now += 11
    finish(node)
    assert states(node) == ["sent"]
    send(node, series[4:])
    clock.now += 11
    finish(node)
    assert states(node) == ["sent", "sent"]
    counts = [len(r.ReferencedSeriesSequence[0].ReferencedInstanceSequence) for r in archive.received]
    assert counts == [4, 5]
    assert archive.received[0].SOPInstanceUID != archive.received[1].SOPInstanceUID


def test_others_may_not_send(make_node: Any, series: Any) -> None:
    node = make_node()
    assert send(node, series, caller="STRANGER") == []
    assert send(node, series, called="OTHER") == []
    assert not (node.store.folder / "series").exists()


def test_an_instance_of_no_study_is_refused(make_node: Any, series: Any) -> None:
    node = make_node()
    for dataset in series:
        dataset.StudyInstanceUID = ""  # instances of several patients would be one study
    assert send(node, series) == [0xC000] * len(series)


def test_a_restart_loses_nothing_and_sends_nothing_twice(
    make_node: Any, archive: Archive, series: Any, clock: Clock
) -> None:
    node = make_node()
    send(node, series)
    node.stop()  # before the series was complete
    clock.now += 11
    node = make_node()
    node.compute_next()
    assert states(node) == ["computed"]
    node.stop()  # before the result was sent
    node = make_node()
    finish(node)
    node.stop()
    node = make_node()
    finish(node)
    assert states(node) == ["sent"]
    assert len(archive.received) == 1


def test_a_computation_that_was_killed_gives_the_same_object(
    make_node: Any, archive: Archive, series: Any, clock: Clock
) -> None:
    node = make_node()
    send(node, series)
    clock.now += 11
    node.compute_next()
    (first,) = (node.store.job_folder(node.store.jobs()[0]) / "results").iterdir()
    sop_uid = pydicom.dcmread(first).SOPInstanceUID
    node.store.finish(node.store.jobs()[0], "queued")  # as if it was killed before the state was stored
    scratch = first.parents[1] / f"{TEMPORARY_PREFIX}x"
    scratch.mkdir()
    assert node.compute_next()
    assert not scratch.exists()
    finish(node)
    assert [r.SOPInstanceUID for r in archive.received] == [sop_uid]


def test_results_are_sent_again_until_they_are_accepted(
    make_node: Any, archive: Archive, series: Any, clock: Clock
) -> None:
    node = make_node()
    archive.status = 0xA700
    send(node, series)
    clock.now += 11
    finish(node)
    assert (states(node), archive.received) == (["computed"], [])
    archive.status = 0x0000
    finish(node)
    assert states(node) == ["computed"]  # not yet
    clock.now += 11
    finish(node)
    assert (states(node), len(archive.received)) == (["sent"], 1)


def test_a_result_that_the_receiver_has_already_is_delivered(
    make_node: Any, archive: Archive, series: Any, clock: Clock
) -> None:
    node = make_node()
    archive.status = 0x0111  # it stored the object, and its answer was lost
    send(node, series)
    clock.now += 11
    finish(node)
    assert states(node) == ["sent"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pynetdicom leaves its socket open
def test_a_receiver_that_is_away_is_tried_again(make_node: Any, series: Any, clock: Clock) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        node = make_node(send_to=Peer(aet="AWAY", host="127.0.0.1", port=unused.getsockname()[1]))
        send(node, series)
        clock.now += 11
        finish(node)
        clock.now += 11
        finish(node)
    (job,) = node.store.jobs()
    assert (job.state, job.attempts) == ("computed", 2)


def test_series_of_other_kinds_and_failures_end_with_a_reason(make_node: Any, tmp_path: Path, clock: Clock) -> None:
    def fail(sources: Sequence[Path], output: Path) -> Sequence[Path]:
        raise ImageError("of Müller", where=sources[0], code="E-IMAGE-VALUES")

    node = make_node(fail)
    for modality in ("MR", "CT"):
        folder = write_series(tmp_path / modality, np.zeros((2, 4, 4), np.int16), series=modality, modality=modality)
        send(node, [pydicom.dcmread(p) for p in sorted(folder.iterdir())])
    clock.now += 11
    finish(node)
    skipped, failed = node.store.jobs()
    assert (skipped.state, failed.state) == ("skipped", "failed")
    assert "MR, axial, 2 slices" in (skipped.reason or "")
    assert failed.reason == "E-IMAGE-VALUES: ImageError"


def test_old_series_are_deleted_with_their_files(make_node: Any, series: Any, clock: Clock) -> None:
    node = make_node(keep_seconds=100.0)
    send(node, series)
    clock.now += 11
    finish(node)
    clock.now += 200
    finish(node)
    assert node.store.jobs() == ()
    assert node.store.stored_bytes() == 0
    assert list((node.store.folder / "series").iterdir()) == []


def test_instances_are_refused_when_there_is_no_room(make_node: Any, series: Any) -> None:
    node = make_node(max_bytes=3 * 1024)
    statuses = send(node, series)
    assert 0xA700 in statuses
    assert statuses[0] == 0


PET_CT = ("CT", "PET")


def counts_of_references(archive: Archive) -> list[int]:
    return [len(result.ReferencedSeriesSequence[0].ReferencedInstanceSequence) for result in archive.received]


def test_series_of_a_study_are_the_channels_of_a_model(
    make_node: Any, archive: Archive, clock: Clock, tmp_path: Path
) -> None:
    ct, pet = (datasets_of(tmp_path, name, modality=modality) for name, modality in (("ct", "CT"), ("pet1", "PT")))
    scout = datasets_of(tmp_path, "scout", n_slices=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    other_study = datasets_of(tmp_path, "other", study="other")
    node = make_node(channels=PET_CT)
    assert set(send(node, [*scout, *pet, *other_study])) == {0}
    clock.now += 11
    finish(node)
    assert states(node) == ["skipped", "skipped"]  # each lacks a channel
    assert all("fits the channel" in job.reason for job in node.store.jobs())
    send(node, ct)
    clock.now += 11
    finish(node)
    assert states(node) == ["skipped", "skipped", "sent"]
    (result,) = archive.received
    assert result.ReferencedSeriesSequence[0].SeriesInstanceUID == uid("series", "ct")
    pydicom.dcmwrite(tmp_path / "seg.dcm", result, enforce_file_format=True)
    images = [read_image(tmp_path / name) for name in ("ct", "pet1")]
    marked = np.zeros(images[0].geometry.shape_ZYX, bool)
    for mask in read_structure_masks(tmp_path / "seg.dcm", images[0].geometry, frozenset({1})):
        marked[mask.indices_ZYX] = True
    np.testing.assert_array_equal(marked, sum(image.array_CZYX[0] for image in images) > 0)


def test_late_slices_of_one_channel_start_a_new_job_and_other_series_do_not(
    make_node: Any, archive: Archive, clock: Clock, tmp_path: Path
) -> None:
    ct, pet = (datasets_of(tmp_path, name, modality=modality) for name, modality in (("ct", "CT"), ("pet1", "PT")))
    node = make_node(channels=PET_CT)
    send(node, [*ct[:4], *pet[:4]])
    clock.now += 11
    finish(node)
    node.stop()
    node = make_node(channels=PET_CT)
    send(node, [*ct[4:], *pet[4:]])
    clock.now += 11
    finish(node)
    assert (states(node), counts_of_references(archive)) == (["sent", "sent"], [4, 5])
    send(node, datasets_of(tmp_path, "scout", n_slices=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    send(node, datasets_of(tmp_path, "thin", n_slices=2))  # fewer slices than the CT that was segmented
    clock.now += 11
    finish(node)
    assert (states(node), counts_of_references(archive)) == (["sent", "sent", "skipped"], [4, 5])
    assert node.store.jobs()[-1].reason == "job 2 segmented the same series"


def test_a_study_is_waited_for_while_one_of_its_series_arrives(
    make_node: Any, archive: Archive, clock: Clock, tmp_path: Path
) -> None:
    ct, pet = (datasets_of(tmp_path, name, modality=modality) for name, modality in (("ct", "CT"), ("pet1", "PT")))
    node = make_node(channels=PET_CT)
    send(node, pet)
    association = open_association(node)
    assert association.send_c_store(ct[0]).Status == 0
    clock.now += 100
    finish(node)
    assert states(node) == []
    for dataset in ct[1:]:
        assert association.send_c_store(dataset).Status == 0
    association.release()
    wait_until_closed(node)
    clock.now += 11
    finish(node)
    assert states(node) == ["sent"]


def test_rules_choose_among_the_series_of_a_study(
    make_node: Any, archive: Archive, clock: Clock, tmp_path: Path
) -> None:
    names = ("t1", "t1_again", "flair")
    parts = [datasets_of(tmp_path, name, modality="MR", SeriesDescription=f"AX {name}") for name in names]
    node = make_node(channels=("T1", "FLAIR"), series=("T1=description:*t1",))
    send(node, [dataset for part in parts for dataset in part])
    clock.now += 11
    finish(node)
    assert states(node) == ["sent"]
    assert archive.received[0].ReferencedSeriesSequence[0].SeriesInstanceUID == uid("series", "t1")
    node.stop()
    shutil.rmtree(tmp_path / "node")
    node = make_node(channels=("T1", "FLAIR"))  # by the names, both T1 series fit
    send(node, [dataset for part in parts for dataset in part])
    clock.now += 11
    finish(node)
    (job,) = node.store.jobs()
    assert job.state == "skipped"
    assert "several series of a study fit the channel T1" in job.reason
    assert "AX" not in job.reason  # a description may name a patient
    with pytest.raises(OptionError, match="names no channel"):
        make_node(channels=("T1", "FLAIR"), series=("T2=modality:MR",))


WEB = "http://127.0.0.1:1/dicom-web"


def test_an_archive_is_polled_and_its_series_are_segmented_once(
    make_node: Any, series: Any, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node(port=None, dicomweb=WEB, callers=(), send_to=None)
    web = FakeWeb(series)
    use_web(node, web)
    assert not node.poll()  # the series may be growing
    clock.now += 61
    assert node.poll()
    clock.now += 11
    node.compute_next()
    web.fails = True
    node.deliver_next()
    assert states(node) == ["computed"]
    web.fails = False
    clock.now += 11
    finish(node)
    (result,) = (one for one in web.datasets if one.Modality == "SEG")
    assert result.StudyInstanceUID == uid("study", "study")
    pydicom.dcmwrite(tmp_path / "seg.dcm", result, enforce_file_format=True)
    assert referenced_series(tmp_path / "seg.dcm") == {uid("series", "series")}
    node.stop()
    shutil.rmtree(tmp_path / "node")  # as another node with the same model
    other = make_node(port=None, dicomweb=WEB, callers=(), send_to=None)
    use_web(other, web)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            clock.now += 61
            assert not other.poll()
    assert caplog.text.count("series of the archive that were segmented before: 1") == 1


def test_an_archive_is_polled_for_the_channels_of_a_study(make_node: Any, clock: Clock, tmp_path: Path) -> None:
    ct, pet = (datasets_of(tmp_path, name, modality=modality) for name, modality in (("ct", "CT"), ("pet1", "PT")))
    node = make_node(port=None, dicomweb=WEB, callers=(), send_to=None, channels=PET_CT)
    web = FakeWeb([*ct[:4], *pet[:4], *datasets_of(tmp_path, "alone", study="other")])
    use_web(node, web)
    poll_twice(node, clock)
    finish(node)
    assert sorted(states(node)) == ["sent", "skipped"]
    web.datasets += [ct[4], pet[4]]  # slices that came late
    poll_twice(node, clock)
    finish(node)
    assert sorted(states(node)) == ["sent", "sent", "skipped"]
    assert [len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) for seg in web.segmentations] == [4, 5]
    node.stop()
    shutil.rmtree(tmp_path / "node")  # as another node with the same model
    other = make_node(port=None, dicomweb=WEB, callers=(), send_to=None, channels=PET_CT)
    use_web(other, web)
    poll_twice(other, clock)
    finish(other)
    assert sorted(states(other)) == ["skipped"]  # the study with one series; the other one was segmented
    assert len(web.segmentations) == 2


@pytest.mark.parametrize(
    ("text", "parse"),
    [("DECATHLETE", parse_listen), ("A:99999", parse_listen), ("A@host", Peer.parse), ("A@b c:1", Peer.parse)],
)
def test_addresses_are_checked(text: str, parse: Any) -> None:
    with pytest.raises(OptionError) as caught:
        parse(text)
    assert caught.value.code == "E-OPTION-SYNTAX"


def test_a_node_without_callers_or_receiver_is_refused(tmp_path: Path) -> None:
    peer = Peer(aet="A", host="h", port=1)
    for changes, said in (
        ({"port": 1, "send_to": peer}, "no caller"),
        ({"port": 1, "callers": ("A",)}, "no receiver"),
        ({}, "neither listens nor polls"),
        ({"dicomweb": "ftp://x"}, "is not an address"),
    ):
        with pytest.raises(OptionError, match=said):
            DicomNodeSettings(data=tmp_path, **changes)  # type: ignore[arg-type]
