"""The DICOM node when room is short: files of finished series are deleted, and nothing is segmented twice for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from decathlete.cli.dicom_node_options import DicomNodeArguments
from decathlete.errors import ImageError, OptionError
from decathlete.serving.dicom_node.archive import MAX_COPY_STARTS
from decathlete.serving.dicom_node.node import DicomNode
from decathlete.serving.dicom_node.node_store import NodeStore
from decathlete.serving.settings import ServiceLimits
from dicom_node_support import Clock, Web, finish, poll_twice, segment, slices, states


@pytest.fixture
def add_whole(
    add: Callable[[DicomNode, Sequence[Any]], int], clock: Clock
) -> Callable[[DicomNode, Sequence[Any]], int]:
    """Store instances as if they had arrived now, and wait until their series is complete."""

    def store(node: DicomNode, datasets: Sequence[Any]) -> int:
        n_new = add(node, datasets)
        clock.now += 11
        return n_new

    return store


def files_of_series(node: DicomNode) -> list[Path]:
    return [path for path in (node.store.folder / "series").rglob("*") if path.is_file()]


def delete_finished_files(node: DicomNode) -> None:
    """Ask for all the room that there can be."""
    node.store.make_room(1, limit_bytes=1)


def test_files_of_finished_series_make_room_for_others(make_node: Any, web: Web, clock: Clock, tmp_path: Path) -> None:
    first, second = (slices(tmp_path, name, study=name) for name in ("one", "two"))
    limit = round(1.5 * sum(Path(one.filename).stat().st_size for one in first))
    node = make_node(max_bytes=limit)
    for number in (1, 2):
        web.series = [first, second][:number]
        poll_twice(node, clock)
        assert node.store.stored_bytes() <= limit
        finish(node)
        assert states(node) == ["sent"] * number
    assert len(files_of_series(node)) == len(second)
    poll_twice(node, clock)  # the first one is not copied again
    finish(node)
    assert (states(node), node.status().failed_copies) == (["sent", "sent"], ())


def test_a_series_that_is_not_finished_keeps_its_files(make_node: Any, add_whole: Any, tmp_path: Path) -> None:
    node = make_node()
    add_whole(node, slices(tmp_path, "ct"))
    delete_finished_files(node)
    node.compute_next()
    assert states(node) == ["computed"]
    delete_finished_files(node)
    assert len(files_of_series(node)) == 3


class FailingAtFirst:
    """A model that cannot segment the first images; it counts them all."""

    def __init__(self, n_failures: int) -> None:
        self.n_failures, self.n_images = n_failures, 0

    def __call__(self, sources: Sequence[Path], output: Path) -> Sequence[Path]:
        self.n_images += 1
        if self.n_images <= self.n_failures:
            raise ImageError("damaged")
        return segment(sources, output)


def test_files_of_failed_series_make_room_for_others(make_node: Any, web: Web, clock: Clock, tmp_path: Path) -> None:
    first, second = (slices(tmp_path, name, study=name) for name in ("one", "two"))
    limit = round(1.5 * sum(Path(one.filename).stat().st_size for one in first))
    model = FailingAtFirst(1)
    node = make_node(model, max_bytes=limit)
    for number, expected in ((1, ["failed"]), (2, ["failed", "sent"])):
        web.series = [first, second][:number]
        poll_twice(node, clock)
        finish(node)
        assert (states(node), node.status().failed_copies) == (expected, ())
        assert node.store.stored_bytes() <= limit
    poll_twice(node, clock)  # the first one is not copied again
    finish(node)
    assert (states(node), model.n_images) == (["failed", "sent"], 2)
    web.series[0] = slices(tmp_path, "one", n_slices=4, study="one")  # it has changed
    poll_twice(node, clock)
    finish(node)
    assert states(node) == ["failed", "sent", "sent"]


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_failed_series_that_arrives_again_keeps_its_files(
    make_node: Any, add: Any, clock: Clock, tmp_path: Path, is_deleted: bool
) -> None:
    node, series = make_node(FailingAtFirst(1)), slices(tmp_path, "ct")
    add(node, series)
    clock.now += 11
    finish(node)
    if is_deleted:
        delete_finished_files(node)
        assert files_of_series(node) == []
    assert add(node, series) == 0
    delete_finished_files(node)
    assert len(files_of_series(node)) == 3
    clock.now += 11
    finish(node)
    assert states(node) == ["sent"]


def test_a_failed_series_that_has_grown_since_makes_room(
    make_node: Any, add_whole: Any, clock: Clock, tmp_path: Path
) -> None:
    node, series = make_node(FailingAtFirst(2)), slices(tmp_path, "ct", n_slices=4)
    for part in (series[:3], series):
        add_whole(node, part)
        finish(node)
    assert states(node) == ["failed", "failed"]
    add_whole(node, series[:3])  # copies, of which only the job of the whole series is computed again
    finish(node)
    assert states(node) == ["failed", "sent"]
    delete_finished_files(node)
    assert files_of_series(node) == []


def test_nothing_is_deleted_for_room_that_there_cannot_be(make_node: Any, add_whole: Any, tmp_path: Path) -> None:
    node = make_node()
    add_whole(node, slices(tmp_path, "ct"))
    finish(node)
    assert not node.store.make_room(2, limit_bytes=1)
    assert not node.store.make_room(1 << 60, limit_bytes=1 << 61)  # a disk that others have filled
    assert len(files_of_series(node)) == 3
    assert node.store.make_room(1, limit_bytes=1)
    assert files_of_series(node) == []


def test_copies_of_deleted_files_start_no_job(make_node: Any, add_whole: Any, tmp_path: Path) -> None:
    node, series = make_node(), slices(tmp_path, "ct")
    add_whole(node, series)
    finish(node)
    delete_finished_files(node)
    assert (files_of_series(node), node.store.stored_bytes()) == ([], 0)
    node.stop()
    node = make_node()  # a restart
    assert add_whole(node, series) == 0
    finish(node)
    assert (states(node), len(files_of_series(node))) == (["sent"], 3)
    assert len(node.store.files(series[0].SeriesInstanceUID)) == 3


def test_late_slices_of_deleted_files_need_the_whole_series(make_node: Any, add_whole: Any, tmp_path: Path) -> None:
    node, series = make_node(), slices(tmp_path, "ct", n_slices=4)
    add_whole(node, series[:3])
    finish(node)
    delete_finished_files(node)
    add_whole(node, series[3:])
    finish(node)
    assert [(job.state, "send all of them again" in (job.reason or "")) for job in node.store.jobs()] == [
        ("sent", False),
        ("failed", True),
    ]
    add_whole(node, series)
    finish(node)
    assert states(node) == ["sent", "sent"]


def test_another_model_copies_what_was_deleted(make_node: Any, web: Web, clock: Clock, tmp_path: Path) -> None:
    web.series = [slices(tmp_path, "ct")]
    node = make_node()
    poll_twice(node, clock)
    finish(node)
    delete_finished_files(node)
    node.stop()
    node = make_node(digest="b")
    finish(node)
    assert states(node) == ["sent"]
    poll_twice(node, clock)
    finish(node)
    assert states(node) == ["sent", "sent"]


def test_a_copy_ends_at_the_size_that_is_allowed(make_node: Any, web: Web, clock: Clock, tmp_path: Path) -> None:
    web.series = [slices(tmp_path, "ct", n_slices=9)]
    arrived: list[Any] = []

    def arrive(datasets: Sequence[Any]) -> Iterator[Any]:
        for one in datasets:
            arrived.append(one)
            yield one

    web.on_copy = arrive  # type: ignore[assignment]
    node = make_node(image_bytes=2500)
    poll_twice(node, clock)
    (failed,) = node.status().failed_copies
    assert "larger than 2.5 kB" in failed.reason
    assert len(arrived) == 3
    assert (files_of_series(node), list((node.store.folder / "arriving").iterdir())) == ([], [])


def test_a_copy_that_ends_the_program_is_not_repeated(make_node: Any, web: Web, clock: Clock, tmp_path: Path) -> None:
    series = slices(tmp_path, "ct", n_slices=4)
    web.series = [series[:3]]
    with closing(NodeStore(tmp_path / "node")) as store:
        (tmp_path / "node" / "arriving" / "leftover").mkdir(parents=True)
        for _ in range(MAX_COPY_STARTS):
            store.begin_copy(series[0].SeriesInstanceUID, 3)  # and then it is killed
    node = make_node()
    assert not (tmp_path / "node" / "arriving").exists()
    poll_twice(node, clock)
    assert [failed.reason for failed in node.status().failed_copies] == ["its copy ended the program 3 times"]
    web.series = [series]  # it has changed
    poll_twice(node, clock)
    finish(node)
    assert states(node) == ["sent"]
    assert node.store.begin_copy("other", 1) == 1


def test_the_limits_are_options(tmp_path: Path) -> None:
    limits = ServiceLimits(image_bytes=7)
    for given, expected in ((None, 50 * 10**9), (0.5, 500_000_000)):
        arguments = DicomNodeArguments(dicomweb="http://127.0.0.1:1/x", dicom_max_storage=given)
        settings = arguments.to_settings(tmp_path, limits)
        assert settings
        assert (settings.max_bytes, settings.image_bytes) == (expected, 7)
    with pytest.raises(OptionError, match="--dicom-max-storage has no effect without --dicom-node or --dicomweb"):
        DicomNodeArguments(dicom_max_storage=1.0).to_settings(tmp_path, limits)
