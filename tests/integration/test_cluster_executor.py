"""Work on a Dask cluster of several processes: workers that die, cases that kill them, and clusters of no use."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import psutil
import pytest

import cluster_support as support
from cluster_support import Cluster, Item, run_cluster, tries, wait_until
from decathlete.cluster.connection import connect_cluster
from decathlete.cluster.executor import DaskExecutor
from decathlete.core.parallel import TaskNeeds, map_cases
from decathlete.errors import ClusterError

pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with run_cluster(tmp_path_factory.mktemp("dask")) as running:
        yield running


@pytest.fixture
def executor(cluster: Cluster) -> Iterator[DaskExecutor]:
    with connect_cluster(cluster.address, connect_within_s=120, workers_within_s=120) as connected:
        yield connected


def items(folder: Path, n: int) -> dict[str, Item]:
    return {f"case {i}": Item(number=i, folder=folder) for i in range(n)}


@pytest.mark.parametrize("function", [support.fail_at_7, support.bug])
def test_failures_and_messages_are_those_of_threads(
    executor: DaskExecutor, tmp_path: Path, caplog: pytest.LogCaptureFixture, function: Callable[[Item], int]
) -> None:
    cases = items(tmp_path, 9)
    local = {o.case_id: (o.value, o.error) for o in map_cases(function, cases, workers=2)}
    messages = sorted(caplog.messages)
    caplog.clear()
    assert {o.case_id: (o.value, o.error) for o in map_cases(function, cases, workers=executor)} == local
    assert sorted(caplog.messages) == messages


def test_calls_are_counted_that_the_workers_make_at_a_time(executor: DaskExecutor) -> None:
    assert executor.count_at_once(TaskNeeds(at_once=1, own_process=True)) == 2
    assert executor.count_at_once(TaskNeeds(device="cuda")) == 0


def test_the_workers_are_free_again_after_an_aborted_map(executor: DaskExecutor, tmp_path: Path) -> None:
    def abort() -> None:
        for outcome in executor.map(support.square_slowly, items(tmp_path, 9)):
            raise ZeroDivisionError(outcome.case_id)

    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="case"):
            abort()
    assert len(list(executor.map(support.square, items(tmp_path, 4)))) == 4


@pytest.mark.parametrize("seed", [pytest.param(0, marks=pytest.mark.full), 1])
def test_workers_killed_at_random_change_nothing(
    cluster: Cluster, executor: DaskExecutor, tmp_path: Path, seed: int
) -> None:
    draw, over, killed = random.Random(seed), threading.Event(), []

    def kill() -> None:
        for _ in range(2):
            wait_until(lambda: over.is_set() or bool(list(tmp_path.glob("*.tries"))))
            if over.wait(draw.uniform(0.1, 1.0)):
                return
            killed.append(cluster.kill_worker())
            wait_until(lambda: over.is_set() or len(cluster.worker_pids()) == 2)

    thread = threading.Thread(target=kill)
    thread.start()
    outcomes = list(executor.map(support.square_slowly, items(tmp_path, 24)))
    over.set()
    thread.join()
    assert killed
    assert {o.case_id: o.value for o in outcomes} == {f"case {i}": i**2 for i in range(24)}
    assert len(outcomes) == 24
    assert sum(len(tries(tmp_path, i)) for i in range(24)) <= 24 + len(killed), "only cases of killed workers"


def test_a_case_that_kills_every_worker_fails_alone_after_three(executor: DaskExecutor, tmp_path: Path) -> None:
    outcomes = {o.case_id: o for o in executor.map(support.kill_worker_at_7, items(tmp_path, 12))}
    failed = outcomes.pop("case 7")
    assert failed.cause is not None
    assert failed.cause.code == "E-CLUSTER-CRASH"
    assert str(failed.error).startswith("3 workers died while they processed it")
    assert len(set(tries(tmp_path, 7))) == len(tries(tmp_path, 7)) == 3, "each by another process"
    assert {o.value for o in outcomes.values()} == {i**2 for i in range(12) if i != 7}


def test_a_task_of_its_own_process_stops_with_the_command(executor: DaskExecutor, tmp_path: Path) -> None:
    work = executor.map(support.sleep_long, items(tmp_path, 1), needs=TaskNeeds(at_once=1, own_process=True))

    def run() -> None:
        with suppress(Exception):  # the connection is closed under it
            next(work)

    thread = threading.Thread(target=run)
    trace = tmp_path / "0.tries"
    thread.start()
    wait_until(lambda: trace.exists() and bool(trace.read_text()))
    child = int(trace.read_text())
    executor.client.close()  # as at the end of the command, and as the scheduler does when the command dies
    wait_until(lambda: not psutil.pid_exists(child))
    thread.join()


def test_work_that_no_worker_can_do_is_rejected(executor: DaskExecutor, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no worker offers MEMORY=1,GPU=1") as raised:
        list(executor.map(support.square, items(tmp_path, 1), needs=TaskNeeds(device="cuda", resources={"MEMORY": 1})))
    assert raised.value.code == "E-CLUSTER-WORKERS"


def test_shared_storage_passes_and_nothing_is_left(executor: DaskExecutor, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("read")
    (tmp_path / "out").mkdir()
    executor.require_shared(reads=[tmp_path / "in", tmp_path], writes=[tmp_path / "out"])
    assert list((tmp_path / "out").iterdir()) == []


def write_preload(folder: Path, code: str) -> str:
    """Write code that a worker runs at its start."""
    path = folder / "preload.py"
    path.write_text(code)
    return f"--preload={path}"


def test_workers_of_another_version_are_rejected(tmp_path: Path) -> None:
    preload = write_preload(tmp_path, "import decathlete.version\ndecathlete.version.__version__ = '0.0.1'\n")
    with (
        run_cluster(tmp_path, n_workers=1, options=[preload]) as cluster,
        pytest.raises(ClusterError, match=r"decathlete 0\.0\.1 there") as raised,
        connect_cluster(cluster.address, connect_within_s=120, workers_within_s=120),
    ):
        pass
    assert raised.value.code == "E-CLUSTER-VERSION"


def test_workers_with_other_files_are_rejected(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "image").write_text("read")
    preload = write_preload(
        tmp_path,
        "import pathlib, decathlete.cluster.storage as storage\n"
        "storage.VISIBLE_WITHIN_S = 0\n"
        f"storage.Path = lambda path: pathlib.Path(str(path).replace({str(here)!r}, {str(there)!r}))\n",
    )
    with (
        run_cluster(tmp_path, n_workers=1, options=[preload]) as cluster,
        connect_cluster(cluster.address, connect_within_s=120, workers_within_s=120) as executor,
    ):
        for paths in ({"reads": [here / "image"]}, {"writes": [here]}):
            with pytest.raises(ClusterError, match="does not share the storage") as raised:
                executor.require_shared(**paths)
            assert raised.value.code == "E-CLUSTER-STORAGE"
            assert str(here) in str(raised.value)
    assert list(here.iterdir()) == [here / "image"], "no probe is left"


def test_a_scheduler_without_workers(tmp_path: Path) -> None:
    with (
        run_cluster(tmp_path, n_workers=0) as cluster,
        pytest.raises(ClusterError, match="no worker is connected") as raised,
        connect_cluster(cluster.address, connect_within_s=120, workers_within_s=0.5),
    ):
        pass
    assert raised.value.code == "E-CLUSTER-WORKERS"


def test_all_workers_gone_for_too_long(tmp_path: Path) -> None:
    with (
        run_cluster(tmp_path, n_workers=1) as cluster,
        connect_cluster(cluster.address, connect_within_s=120, workers_within_s=120) as connected,
    ):
        clock = count(step=101).__next__  # each look at the workers is 101 s after the last one
        executor = DaskExecutor(connected.client, clock=clock)
        work = executor.map(support.square, items(tmp_path, 200))
        next(work)
        for pid in [*cluster.worker_pids(), *(nanny.pid for nanny in cluster.nannies)]:
            os.kill(pid, 9)
        with pytest.raises(ClusterError, match="all workers were lost, and none has returned for 300 s"):
            list(work)
