"""``decathlete serve`` as a process: it is killed, it is stopped, and many clients use it at once."""

from __future__ import annotations

import random
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from decathlete.core.locks import locked_folder
from decathlete.errors import OptionError, OutputError
from decathlete.io.images import read_label
from decathlete.serving.http.server import HttpServer, serve
from service_support import (
    JOBS,
    Launcher,
    ServiceProcess,
    image_bytes,
    jobs_in_log,
    save_model,
    send,
    settings_for,
    wait_for,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    started = Launcher()
    yield started
    started.close()


class Clients:
    """Clients that upload small images one after another, each in a thread, through restarts of the service.

    Args:
        n_clients: threads.
        n_uploads: of all together.
    """

    def __init__(self, service: ServiceProcess, *, n_clients: int, n_uploads: int) -> None:
        self.accepted: dict[str, int] = {}
        """Job -> seed of its image, of all uploads that were answered with 202."""
        self.refused: list[str] = []
        self._service, self._seeds = service, iter(range(n_uploads))
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(n_clients)
        self._work = [self._pool.submit(self._upload) for _ in range(n_clients)]

    @property
    def done(self) -> bool:
        return all(work.done() for work in self._work)

    def join(self) -> None:
        for work in self._work:
            work.result()
        self._pool.shutdown()

    def _upload(self) -> None:
        with httpx.Client(base_url=self._service.address, timeout=600) as client:
            while True:
                with self._lock:
                    seed = next(self._seeds, None)
                if seed is None:
                    return
                content = image_bytes((12, 14, 16), seed=seed)
                while not self._send(client, content, seed):
                    time.sleep(0.2)

    def _send(self, client: httpx.Client, content: bytes, seed: int) -> bool:
        """Send an image; ``False``: the service was killed before it answered."""
        try:
            answer = send(client, content)
        except httpx.TransportError:
            return False
        with self._lock:
            if answer.status_code == 202:
                self.accepted[answer.json()["id"]] = seed
            else:
                self.refused.append(answer.text)
        return True


def results_of(service: ServiceProcess, jobs: Sequence[str]) -> dict[str, bytes]:
    with httpx.Client(base_url=service.address, timeout=600) as client:
        assert {wait_for(client, job)["state"] for job in jobs} == {"done"}
        return {job: client.get(f"{JOBS}/{job}/result").content for job in jobs}


def voxels(content: bytes, folder: Path) -> bytes:
    path = folder / "result.nii.gz"
    path.write_bytes(content)
    return read_label(path).array_ZYX.tobytes()


def kill_and_restart(
    launcher: Launcher, model: Path, folder: Path, *, n_kills: int, n_uploads: int, n_clients: int
) -> None:
    """Kill a service at random moments while clients upload; every accepted job is finished, once."""
    generator = random.Random(0)
    service = ServiceProcess(launcher, model, folder / "data")
    seen: dict[str, bytes] = {}
    with service:
        clients = Clients(service, n_clients=n_clients, n_uploads=n_uploads)
        for _ in range(n_kills):
            time.sleep(generator.uniform(0.0, 1.0))
            with httpx.Client(base_url=service.address, timeout=600) as client:
                for job in list(clients.accepted):
                    if job not in seen and client.get(f"{JOBS}/{job}").json()["state"] == "done":
                        seen[job] = client.get(f"{JOBS}/{job}/result").content
            service.kill()
            service.start()
        clients.join()
        results = results_of(service, list(clients.accepted))
        assert clients.refused == []
        assert {job: results[job] for job in seen} == seen  # what was published did not change
        for job, seed in clients.accepted.items():
            twin = next(other for other, other_seed in clients.accepted.items() if other_seed == seed)
            assert voxels(results[job], folder) == voxels(results[twin], folder)
        with httpx.stream("GET", f"{service.address}{JOBS}/{next(iter(results))}/events", timeout=600):
            assert service.stop() == 0
    finished = jobs_in_log(service.log, "done")
    assert len(finished) == len(set(finished))  # none was computed again after it was published
    assert not any((folder / "data" / "incoming").iterdir())
    assert {p.name for p in (folder / "data" / "jobs").iterdir()} >= set(clients.accepted)


@pytest.mark.full
def test_a_killed_service_finishes_what_it_accepted(launcher: Launcher, model: Path, tmp_path: Path) -> None:
    kill_and_restart(launcher, model, tmp_path, n_kills=1, n_uploads=6, n_clients=3)


def test_one_service_uses_a_folder(model: Path, tmp_path: Path) -> None:
    settings = settings_for(model, tmp_path / "data", port=0)
    with ThreadPoolExecutor(1) as other, locked_folder(settings.data), pytest.raises(OutputError) as refused:
        other.submit(serve, settings).result()
    assert refused.value.code == "E-OUTPUT-LOCKED"


def test_an_address_in_use_is_an_error_before_any_model_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = settings_for(tmp_path / "missing", tmp_path / "data", port=other.getsockname()[1])
        with pytest.raises(OptionError, match="cannot listen at"):
            serve(settings)


def test_the_address_is_announced_when_it_accepts_connections() -> None:
    connected: list[bool] = []

    def connect() -> None:
        with socket.create_connection(listener.getsockname()):
            connected.append(True)
        server.should_exit = True

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(FastAPI(), log_config=None)
        server = HttpServer(config, SimpleNamespace(stopping=threading.Event()), on_start=connect)  # type: ignore[arg-type]
        server.run(sockets=[listener])
    assert connected == [True]


@pytest.mark.full
def test_a_service_killed_at_twenty_moments_finishes_every_job_once(
    launcher: Launcher, model: Path, tmp_path: Path
) -> None:
    kill_and_restart(launcher, model, tmp_path, n_kills=20, n_uploads=200, n_clients=4)


@pytest.mark.full
def test_sixteen_clients_send_two_hundred_images(launcher: Launcher, model: Path, tmp_path: Path) -> None:
    with ServiceProcess(launcher, model, tmp_path / "data") as service:
        clients = Clients(service, n_clients=16, n_uploads=200)
        clients.join()
        assert (len(clients.accepted), clients.refused) == (200, [])
        assert len(results_of(service, list(clients.accepted))) == 200
        assert service.stop() == 0
    database = sqlite3.connect(tmp_path / "data" / "jobs.sqlite")
    rows = database.execute("SELECT number, starts FROM jobs ORDER BY finished").fetchall()
    database.close()
    assert [number for number, _ in rows] == sorted(number for number, _ in rows)  # nobody is overtaken
    assert {starts for _, starts in rows} == {1}
