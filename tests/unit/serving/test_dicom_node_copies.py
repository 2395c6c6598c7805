"""The DICOM node and its archive: one bad series or study stops no other, and a killed copy is continued."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import requests

from decathlete.serving.dicom_node.node import DicomNode
from dicom_node_support import Clock, MakeNode, Web, finish, slices, states, use_web


def poll(node: DicomNode, clock: Clock, *, n_times: int = 1) -> None:
    for _ in range(n_times):
        clock.now += 61
        node.poll()


def http_error(status: int) -> Exception:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status} Server Error for url: https://archive/studies/1.2.3", response=response)


class BadSeries:
    """Fails to copy one series, and counts the attempts."""

    def __init__(self, web: Web, bad: list[Any], problem: Exception) -> None:
        self.n_attempts = 0
        self._bad, self._problem = bad, problem
        web.on_copy = self

    def __call__(self, datasets: list[Any]) -> list[Any]:
        if datasets is not self._bad:
            return list(datasets)
        self.n_attempts += 1
        raise self._problem


def test_a_series_that_cannot_be_copied_stops_no_other(
    make_node: MakeNode, web: Web, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    web.series = [slices(tmp_path, name, study=name) for name in ("bad", "good", "fine")]
    bad = BadSeries(web, web.series[0], http_error(500))
    node = make_node()
    with caplog.at_level(logging.INFO):
        poll(node, clock, n_times=2)
        clock.now += 11
        finish(node)
        assert (states(node), len(web.delivered)) == (["sent", "sent"], 2)
        poll(node, clock, n_times=60)
    (failed,) = node.status().failed_copies
    assert (failed.reason, failed.attempts, bad.n_attempts) == ("HTTP status 500", 9, 9)  # waits of 10, 20, ... 2560 s
    assert caplog.text.count("could not be copied from the archive (HTTP status 500)") == 1
    assert "1.2.3" not in caplog.text
    web.on_copy = list
    poll(node, clock, n_times=30)
    clock.now += 11
    finish(node)
    assert (states(node), node.status().failed_copies) == (["sent"] * 3, ())
    assert node.status().jobs == {"sent": 3}


def test_waits_are_at_most_one_hour_and_end_when_the_series_changes(
    make_node: MakeNode, web: Web, clock: Clock, tmp_path: Path
) -> None:
    (series,) = web.series = [slices(tmp_path, "ct")]
    bad = BadSeries(web, series, ConnectionError())
    node = make_node()
    poll(node, clock, n_times=400)
    before = bad.n_attempts
    poll(node, clock, n_times=60)
    assert bad.n_attempts - before == 1
    series.append(slices(tmp_path, "ct", n_slices=4)[-1])
    poll(node, clock, n_times=2)
    assert bad.n_attempts - before == 2
    web.series = []
    poll(node, clock)
    assert node.status().failed_copies == ()  # it is no longer in the archive


def test_a_study_that_the_archive_cannot_describe_stops_no_other(
    make_node: MakeNode, web: Web, clock: Clock, tmp_path: Path
) -> None:
    web.series = [slices(tmp_path, name, study=name) for name in ("bad", "good")]
    search, bad_study = web.search_for_series, web.series[0][0].StudyInstanceUID

    def search_or_fail(*study: str, **arguments: Any) -> Any:
        if bad_study in study:
            raise http_error(400)
        return search(*study, **arguments)

    web.search_for_series = search_or_fail  # type: ignore[method-assign]
    node = make_node()
    poll(node, clock, n_times=2)
    clock.now += 11
    finish(node)
    assert states(node) == ["sent"]
    assert [failed.reason for failed in node.status().failed_copies] == ["HTTP status 400"]


def test_a_part_of_a_series_is_not_segmented(make_node: MakeNode, web: Web, clock: Clock, tmp_path: Path) -> None:
    web.series = [slices(tmp_path, "ct")]
    web.on_copy = lambda datasets: datasets[:-1]
    node = make_node()
    poll(node, clock, n_times=3)
    clock.now += 11
    finish(node)
    assert states(node) == []
    assert [failed.reason for failed in node.status().failed_copies] == ["the archive sent 2 of 3 instances"]


def test_a_series_without_room_stops_no_other(make_node: MakeNode, web: Web, clock: Clock, tmp_path: Path) -> None:
    web.series = [slices(tmp_path, "large", n_slices=9), slices(tmp_path, "ct")]
    node = make_node(max_bytes=5000)
    poll(node, clock, n_times=2)
    clock.now += 11
    finish(node)
    assert states(node) == ["sent"]
    assert node.store.stored_bytes() <= 5000
    assert ["no room" in failed.reason for failed in node.status().failed_copies] == [True]
    files = [path for path in (tmp_path / "node" / "series").rglob("*") if path.is_file()]
    assert len(files) == 3


@pytest.mark.parametrize("entry", [{}, {"0020000D": {"Value": ["1.2"]}, "0020000E": {"Value": ["1.3"]}}])
def test_an_entry_without_identifiers_or_size_stops_no_other(
    make_node: MakeNode, web: Web, clock: Clock, tmp_path: Path, entry: Any
) -> None:
    web.series = [slices(tmp_path, "ct")]
    search = web.search_for_series
    web.search_for_series = lambda *study, **k: [entry] * (not study) + search(*study, **k)  # type: ignore[method-assign]
    node = make_node()
    poll(node, clock, n_times=2)
    clock.now += 11
    finish(node)
    assert states(node) == ["sent"]


def test_an_archive_that_is_away_is_reported_once(
    make_node: MakeNode, web: Web, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    web.series, web.fails = [slices(tmp_path, "ct")], True
    node = make_node()
    with caplog.at_level(logging.INFO):
        poll(node, clock, n_times=3)
        assert node.status().archive_problem == "ConnectionError"
        web.fails = False
        poll(node, clock, n_times=2)
    assert node.status().archive_problem is None
    assert caplog.text.count("the archive could not be queried (ConnectionError)") == 1
    assert caplog.text.count("the archive can be queried again") == 1
    clock.now += 11
    finish(node)
    assert states(node) == ["sent"]


class Killed(BaseException):
    """Ends a step as a kill does: nothing is cleaned up."""


@pytest.mark.parametrize("lost", [False, True], ids=["between two series", "within a series"])
def test_a_study_whose_copy_was_killed_is_segmented_once_and_whole(
    make_node: MakeNode, web: Web, clock: Clock, tmp_path: Path, lost: bool
) -> None:
    ct, pet = slices(tmp_path, "ct"), slices(tmp_path, "pet1", modality="PT")
    again = slices(tmp_path, "scan", n_slices=2)  # a shorter CT, so that the study would fit without the longer one
    web.series = [again, pet, ct]
    node = make_node(channels=("CT", "PET"))

    def kill(datasets: list[Any]) -> list[Any]:
        if datasets is ct:
            raise Killed
        return list(datasets)

    web.on_copy = kill
    poll(node, clock)
    clock.now += 61
    with pytest.raises(Killed):
        node.poll()
    if lost:  # files that the database does not know
        orphan = tmp_path / "node" / "series" / "0" / "slice.dcm"
        orphan.parent.mkdir()
        orphan.write_bytes(b"of a patient")
    restarted = make_node(channels=("CT", "PET"))
    assert not lost or not orphan.parent.exists()
    web.on_copy = list
    clock.now += 1000
    finish(restarted)
    assert states(restarted) == []  # the study is not whole, and nothing but the archive knows it
    for _ in range(3):
        poll(restarted, clock)
        finish(restarted)
    clock.now += 11
    finish(restarted)
    assert (states(restarted), len(web.delivered)) == (["sent"], 1)
    assert restarted.store.count_instances(ct[0].SeriesInstanceUID) == 3


def test_a_study_with_a_series_that_cannot_be_copied_waits_and_others_do_not(
    make_node: MakeNode, web: Web, clock: Clock, tmp_path: Path
) -> None:
    def study(name: str) -> list[list[Any]]:
        return [slices(tmp_path, f"{name}-{m}", study=name, modality=m) for m in ("CT", "PT")]

    web.series = [*study("bad"), *study("good")]
    BadSeries(web, web.series[1], http_error(500))
    node = make_node(channels=("CT", "PET"))
    for _ in range(4):
        poll(node, clock)
        clock.now += 11
        finish(node)
    assert (states(node), len(web.delivered)) == (["sent"], 1)
    web.on_copy = list
    for _ in range(20):
        poll(node, clock)
    clock.now += 11
    finish(node)
    assert states(node) == ["sent", "sent"]


class PagingWeb(Web):
    """An archive that answers with pages of its own size, or ignores the offset."""

    def __init__(self, page: int, *, ignores_offset: bool) -> None:
        super().__init__()
        self.n_requests = 0
        self._page, self._ignores_offset = page, ignores_offset

    def search_for_series(self, *_: Any, search_filters: Any, **paging: Any) -> list[Any]:
        self.n_requests += 1
        assert self.n_requests < 50, "it is polled for ever"
        found = super().search_for_series(search_filters=search_filters)
        first = 0 if self._ignores_offset else paging.get("offset", 0)
        return found[first : first + self._page]


@pytest.mark.parametrize(("page", "ignores_offset"), [(2, False), (100, True)])
def test_all_pages_of_an_archive_are_read(
    make_node: MakeNode, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int, ignores_offset: bool
) -> None:
    monkeypatch.setattr("decathlete.serving.dicom_node.archive_search._PAGE", 3)
    web = PagingWeb(page, ignores_offset=ignores_offset)
    web.series = [slices(tmp_path, name, n_slices=1) for name in "abcde"]
    node = make_node()
    use_web(node, web)
    poll(node, clock, n_times=2)
    assert node.store.count_instances(web.series[-1][0].SeriesInstanceUID) == 1
    assert node.status().archive_problem is None


def test_the_end_of_a_node_ends_a_query(make_node: MakeNode, clock: Clock, tmp_path: Path) -> None:
    web = PagingWeb(1, ignores_offset=False)
    web.series = [slices(tmp_path, name, n_slices=1) for name in "abcde"]
    node = make_node()
    use_web(node, web)
    node._stopping.set()
    poll(node, clock)
    assert (web.n_requests, node.status().archive_problem) == (0, None)
