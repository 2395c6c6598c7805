"""The DICOM node when something goes wrong: slow copies, other models, bad results, full disks, damaged slices."""

from __future__ import annotations

import copy
import errno
import logging
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pynetdicom
import pytest
import requests

from decathlete.errors import ImageError, InsufficientMemoryError, OutputError, ServiceError
from decathlete.serving.dicom_node.delivery import send_by_store
from decathlete.serving.dicom_node.node import MAX_STARTS, DicomNode
from decathlete.serving.dicom_node.settings import DicomNodeSettings, Peer
from dicom_node_support import Clock, Web, finish, segment, slices, states

PET_CT = ("CT", "PET")
FULL = OSError(errno.ENOSPC, "No space left on device")


class Failing:
    """Fails with the errors of a list, one for each call, and then segments."""

    def __init__(self, *problems: Exception) -> None:
        self.problems = list(problems)

    def __call__(self, sources: Sequence[Path], output: Path) -> Sequence[Path]:
        if self.problems:
            raise self.problems.pop(0)
        return segment(sources, output)


def files_of_series(node: DicomNode) -> list[Path]:
    return [path for path in (node.store.folder / "series").rglob("*") if path.is_file()]


def test_no_job_begins_while_a_series_is_copied(make_node: Any, web: Web, clock: Clock, tmp_path: Path) -> None:
    node = make_node()
    web.series = [slices(tmp_path, "ct")]
    seen: list[list[str]] = []

    def slowly(datasets: list[Any]) -> Iterator[Any]:
        for one in datasets:
            clock.now += 60
            node.compute_next()  # as another thread does
            seen.append(states(node))
            yield one

    web.on_copy = slowly
    node.poll()
    clock.now += 61
    assert node.poll()
    assert seen == [[], [], []]
    clock.now += 11
    finish(node)
    assert states(node) == ["sent"]


def test_a_series_is_quiet_from_the_end_of_its_copy(make_node: Any, web: Web, clock: Clock, tmp_path: Path) -> None:
    node = make_node()
    web.series = [slices(tmp_path, "ct")]

    def slowly(datasets: list[Any]) -> list[Any]:
        clock.now += 60
        return datasets

    web.on_copy = slowly
    node.poll()
    clock.now += 61
    assert node.poll()
    finish(node)
    assert states(node) == []
    clock.now += 11
    finish(node)
    assert states(node) == ["sent"]


def test_a_request_that_fails_is_not_repeated_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses: list[str] = []

    def fail(url: str, **_: Any) -> Any:
        addresses.append(url)
        raise ConnectionError

    node = DicomNode(DicomNodeSettings(data=tmp_path, dicomweb="http://127.0.0.1:1/x"), segment)
    assert node._archive
    monkeypatch.setattr(node._archive.client._session, "get", fail)
    assert not node.poll()
    assert len(addresses) == 1
    node.stop()


def test_a_copy_that_fails_leaves_nothing(make_node: Any, web: Web, clock: Clock, tmp_path: Path) -> None:
    node = make_node()
    (series,) = web.series = [slices(tmp_path, "ct")]
    web.on_copy = lambda datasets: [*datasets[:2], object()]  # cannot be written
    for _ in range(2):
        assert not node.poll()
        clock.now += 61
    assert node.store.count_instances(series[0].SeriesInstanceUID) == 0
    assert files_of_series(node) == []
    web.on_copy = list
    assert node.poll()
    clock.now += 11
    finish(node)
    assert states(node) == ["sent"]


def test_a_study_waits_until_all_its_series_are_copied(make_node: Any, web: Web, clock: Clock, tmp_path: Path) -> None:
    node = make_node(channels=PET_CT)
    web.series = [slices(tmp_path, "ct"), slices(tmp_path, "pet1", modality="PT")]
    seen: list[list[str]] = []

    def lose_pet(datasets: list[Any]) -> list[Any]:
        clock.now += 60
        node.compute_next()
        seen.append(states(node))
        if datasets[0].Modality == "PT":
            raise ConnectionError
        return datasets

    web.on_copy = lose_pet
    node.poll()
    clock.now += 61
    assert node.poll()  # of the CT
    clock.now += 61
    finish(node)
    assert (seen, states(node)) == ([[], []], [])
    web.on_copy = list
    assert node.poll()
    clock.now += 11
    finish(node)
    assert states(node) == ["sent"]


def test_another_model_segments_the_same_series(
    make_node: Any, add: Any, web: Web, clock: Clock, tmp_path: Path
) -> None:
    series = slices(tmp_path, "ct")
    for digest, n_jobs in (("a", 1), ("b", 2), ("a", 2)):
        node = make_node(digest=digest)
        add(node, series)
        clock.now += 11
        finish(node)
        assert states(node) == ["sent"] * n_jobs
        node.stop()
    assert len(web.delivered) == 2


def test_a_job_of_another_model_waits_for_it(make_node: Any, add: Any, clock: Clock, tmp_path: Path) -> None:
    node = make_node(digest="a")
    add(node, slices(tmp_path, "ct"))
    node.store.open_jobs(quiet_since=clock() + 1, busy=frozenset(), now=clock())
    node.stop()
    other = make_node(digest="b")
    clock.now += 11
    finish(other)
    assert states(other) == ["queued", "sent"]


def test_a_result_that_cannot_be_read_does_not_stop_the_others(
    make_node: Any, add: Any, web: Web, clock: Clock, tmp_path: Path
) -> None:
    node = make_node()
    for name in ("ct", "other"):
        add(node, slices(tmp_path, name))
    clock.now += 11
    while node.compute_next():
        pass
    first, _ = node.store.jobs()
    for file in (node.store.job_folder(first) / "results").iterdir():
        file.write_bytes(b"")
    finish(node)
    assert states(node) == ["computed", "sent"]
    shutil.rmtree(node.store.job_folder(first))
    clock.now += 11
    finish(node)
    assert [job.attempts for job in node.store.jobs()] == [2, 0]


def conflict() -> requests.HTTPError:
    response = requests.Response()
    response.status_code = 409
    return requests.HTTPError(response=response)


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_conflict_is_a_delivery_if_the_archive_has_the_object(
    is_stored: bool, make_node: Any, add: Any, web: Web, clock: Clock, tmp_path: Path
) -> None:
    node, series = make_node(), slices(tmp_path, "ct")
    add(node, series)
    clock.now += 11
    web.rejects = conflict()
    web.delivered = series if is_stored else []  # the result is the first slice
    finish(node)
    assert states(node) == ["sent" if is_stored else "computed"]


def test_an_answer_that_cannot_be_read_is_no_delivery_if_the_archive_lacks_the_object(
    make_node: Any, add: Any, web: Web, clock: Clock, tmp_path: Path
) -> None:
    node = make_node()
    add(node, slices(tmp_path, "ct"))
    clock.now += 11
    web.drops = True
    finish(node)
    assert states(node) == ["computed"]
    web.drops = False
    clock.now += 11
    finish(node)
    assert (states(node), len(web.delivered)) == (["sent"], 1)


def test_a_result_that_is_never_accepted_is_given_up_and_deleted(
    make_node: Any, add: Any, web: Web, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node(keep_seconds=100.0)
    add(node, slices(tmp_path, "ct"))
    clock.now += 11
    web.rejects = conflict()
    finish(node)
    (job,) = node.store.jobs()
    assert (job.state, node.store.job_folder(job).is_dir()) == ("computed", True)
    clock.now += 101
    assert node.deliver_next()
    (job,) = node.store.jobs()
    assert (job.state, job.reason) == (
        "failed",
        "its result was not accepted: the archive does not accept the object (HTTP status 409)",
    )
    assert not node.store.job_folder(job).exists()
    assert "its result is deleted" in caplog.text
    finish(node)
    assert (node.store.jobs(), files_of_series(node)) == ((), [])


def test_a_name_that_cannot_be_resolved_is_a_failed_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(pynetdicom.AE, "associate", fail)
    with pytest.raises(ServiceError, match="PACS cannot be reached"):
        send_by_store([], Peer(aet="PACS", host="pacs", port=104), "NODE")


def test_a_delivery_that_failed_very_often_is_tried_again(
    make_node: Any, add: Any, web: Web, clock: Clock, tmp_path: Path
) -> None:
    node = make_node()
    add(node, slices(tmp_path, "ct"))
    clock.now += 11
    node.compute_next()
    node.store._execute("UPDATE jobs SET attempts = 5000")
    web.fails = True
    assert node.deliver_next()
    assert not node.deliver_next()
    web.fails = False
    clock.now += 601
    finish(node)
    assert states(node) == ["sent"]


@pytest.mark.parametrize(
    "problem",
    [FULL, OutputError("cannot be written", code="E-DISK-FULL"), InsufficientMemoryError("out of memory")],
    ids=lambda problem: type(problem).__name__,
)
def test_a_computation_waits_for_disk_and_memory(
    make_node: Any, add: Any, clock: Clock, tmp_path: Path, problem: Exception
) -> None:
    node = make_node(Failing(*[problem] * (MAX_STARTS + 1)))
    add(node, slices(tmp_path, "ct"))
    clock.now += 11
    for n_tries in range(1, MAX_STARTS + 2):
        finish(node)
        (job,) = node.store.jobs()
        assert (job.state, job.starts, job.attempts) == ("queued", 0, n_tries)
        clock.now += 601
    finish(node)
    assert states(node) == ["sent"]


def test_a_disk_on_which_nothing_can_be_linked_is_waited_for(
    make_node: Any, add: Any, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise FULL

    node = make_node()
    add(node, slices(tmp_path, "ct"))
    clock.now += 11
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fail)
        finish(node)
    (job,) = node.store.jobs()
    assert (job.state, job.starts) == ("queued", 0)
    clock.now += 11
    finish(node)
    assert states(node) == ["sent"]


def test_a_computation_is_not_tried_longer_than_series_are_kept(
    make_node: Any, add: Any, clock: Clock, tmp_path: Path
) -> None:
    node = make_node(Failing(*[FULL] * 9), keep_seconds=100.0)
    add(node, slices(tmp_path, "ct"))
    clock.now += 11
    finish(node)
    clock.now += 101
    node.compute_next()
    assert states(node) == ["failed"]


def test_a_failed_job_is_computed_again_if_its_series_is_received_again(
    make_node: Any, add: Any, clock: Clock, tmp_path: Path
) -> None:
    series = slices(tmp_path, "ct")
    unusable = OutputError("lacks identifiers", code="E-OUTPUT-DICOM")
    node = make_node(Failing(unusable, ImageError("damaged")))
    add(node, series)
    for reason in ("E-OUTPUT-DICOM: OutputError", "E-IMAGE: ImageError"):
        clock.now += 11
        finish(node)
        clock.now += 1000
        finish(node)
        (job,) = node.store.jobs()
        assert (job.state, job.reason) == ("failed", reason)
        assert add(node, series) == 0
        finish(node)
        assert states(node) == ["failed"]  # not before it is complete
    clock.now += 11
    finish(node)
    assert states(node) == ["sent"]


def test_the_reason_of_a_job_is_logged(
    make_node: Any, add: Any, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node()
    add(node, slices(tmp_path, "mr", modality="MR", PatientName="Müller", SeriesDescription="of Müller"))
    clock.now += 11
    with caplog.at_level(logging.INFO):
        finish(node)
    assert "job 1: skipped (not what the model segments: series 3: MR, axial, 3 slices)" in caplog.text
    assert "Müller" not in caplog.text


@pytest.mark.parametrize("channels", [("CT",), PET_CT])
def test_a_series_with_a_slice_that_cannot_be_read_is_skipped(
    make_node: Any, add: Any, web: Web, clock: Clock, tmp_path: Path, channels: Sequence[str]
) -> None:
    node = make_node(channels=channels)
    node.poll()  # a study of the archive waits until its series are listed
    whole, pet = (
        slices(tmp_path, "ct", n_slices=4),
        slices(tmp_path, "pet1", modality="PT") if channels == PET_CT else [],
    )
    damaged = copy.deepcopy(whole[1])
    del damaged.Rows
    add(node, [whole[0], damaged, *whole[2:], *pet])
    clock.now += 11
    finish(node)
    (job,) = node.store.jobs()
    assert (job.state, job.reason) == ("skipped", "1 slice cannot be read")
    add(node, whole)  # sent again, this time whole
    clock.now += 11
    finish(node)
    assert (states(node), len(web.delivered)) == (["skipped", "sent"], 1)
