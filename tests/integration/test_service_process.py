"""``decathlete serve`` as a process: it is killed, it is stopped, and many clients use it at once."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from decathlete.io.images import read_label
from service_support import JOBS, TOKEN, ServiceProcess, image_bytes, jobs_in_log, save_model, send, wait_for


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model")


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
        while True:
            with self._lock:
                seed = next(self._seeds, None)
            if seed is None:
                return
            content = image_bytes((12, 14, 16), seed=seed)
            while not self._send(content, seed):
                time.sleep(0.05)

    def _send(self, content: bytes, seed: int) -> bool:
        """Send an image; ``False``: the service was killed before it answered."""
        try:
            with httpx.Client(base_url=self._service.address, timeout=120) as client:
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
    with httpx.Client(base_url=service.address, timeout=300) as client:
        assert {wait_for(client, job)["state"] for job in jobs} == {"done"}
        return {job: client.get(f"{JOBS}/{job}/result").content for job in jobs}


def voxels(content: bytes, folder: Path) -> bytes:
    path = folder / "result.nii.gz"
    path.write_bytes(content)
    return read_label(path).array_ZYX.tobytes()


def kill_and_restart(model: Path, folder: Path, *, n_kills: int, n_uploads: int, n_clients: int) -> None:
    """Kill a service at random moments while clients upload; every accepted job is finished, once."""
    generator = random.Random(0)
    service = ServiceProcess(model, folder / "data")
    seen: dict[str, bytes] = {}
    with service:
        clients = Clients(service, n_clients=n_clients, n_uploads=n_uploads)
        for _ in range(n_kills):
            time.sleep(generator.uniform(0.0, 1.0))
            with httpx.Client(base_url=service.address, timeout=60) as client:
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
        assert service.stop() == 0
    finished = jobs_in_log(service.log, "done")
    assert len(finished) == len(set(finished))  # none was computed again after it was published
    assert not any((folder / "data" / "incoming").iterdir())
    assert {p.name for p in (folder / "data" / "jobs").iterdir()} >= set(clients.accepted)


def test_a_killed_service_finishes_what_it_accepted(model: Path, tmp_path: Path) -> None:
    kill_and_restart(model, tmp_path, n_kills=1, n_uploads=6, n_clients=3)


@pytest.mark.full
def test_a_service_killed_at_twenty_moments_finishes_every_job_once(model: Path, tmp_path: Path) -> None:
    kill_and_restart(model, tmp_path, n_kills=20, n_uploads=200, n_clients=4)


@pytest.mark.full
def test_sixteen_clients_send_two_hundred_images(model: Path, tmp_path: Path) -> None:
    with ServiceProcess(model, tmp_path / "data") as service:
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


def test_one_service_uses_a_folder_and_other_computers_need_a_token(model: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    with ServiceProcess(model, tmp_path / "data", "--token-file", str(token)) as first:
        assert httpx.get(f"{first.address}/api/v1/models").status_code == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.get(f"{first.address}/api/v1/models", headers=headers).json()[0]["name"] == "tiny"
        second = ServiceProcess(model, tmp_path / "data")
        with pytest.raises(AssertionError, match="E-OUTPUT-LOCKED"):
            second.start()
        with httpx.Client(base_url=first.address, headers=headers) as client:
            job = send(client, image_bytes()).json()["id"]
            with client.stream("GET", f"{JOBS}/{job}/events"):
                assert first.stop() == 0
    assert TOKEN not in first.log.read_text()
