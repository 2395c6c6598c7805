"""A server of ``--studies`` that does not answer: only the requests that need it wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from decathlete.io.images import write_label
from decathlete.serving.http.app import create_app
from decathlete.serving.monai_label.image_sources import FolderImages
from decathlete.serving.service import Service
from factories import make_oblique_geometry
from service_support import JOBS, image_bytes, save_model, send, service_client, settings_for, wait_for, wait_until

SHAPE = (8, 8, 8)
N_EACH = 8


class SlowImages(FolderImages):
    """Images of a server that answers only when the test lets it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.answers = threading.Event()

    def _images(self) -> dict[str, tuple[Path, ...]]:
        assert self.answers.wait(600)  # against a test that hangs
        return super()._images()


def test_requests_that_wait_for_an_archive_do_not_stop_others(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "case.nii.gz").write_bytes(image_bytes(SHAPE))
    write_label(tmp_path / "label.nii.gz", np.ones(SHAPE, np.uint8), make_oblique_geometry(SHAPE))
    label = (tmp_path / "label.nii.gz").read_bytes()
    settings = settings_for(save_model(tmp_path / "model"), tmp_path / "data", studies=str(tmp_path / "studies"))
    service = Service(settings)
    app = create_app(settings, service)
    datastore, archive = app.state.datastore, SlowImages(tmp_path / "studies")
    datastore._source = archive
    image = {"image": "case"}

    def requests_of(client: httpx.Client, number: int) -> list[Callable[[], httpx.Response]]:
        return [
            lambda: client.get("/info/"),
            lambda: client.get("/datastore/image", params=image),
            lambda: client.get("/datastore/image/info", params=image),
            lambda: client.put("/datastore/label", params=image, files={"label": ("a.nii.gz", label)}),
            lambda: client.put(
                "/datastore/", params={"image": f"new {number}"}, files={"file": ("a.nii.gz", image_bytes(SHAPE))}
            ),
            lambda: client.post("/infer/tiny", params=image | {"output": "json"}),
        ]

    with service_client(settings, app=app) as client, ThreadPoolExecutor(100) as viewers:
        job_id = wait_for(client, send(client, image_bytes(SHAPE, suffix=".nrrd"), name="a.nrrd").json()["id"])["id"]
        archive.answers.set()
        client.put("/datastore/", params={"image": "added"}, files={"file": ("a.nii.gz", image_bytes(SHAPE))})
        archive.answers.clear()
        waiting = [viewers.submit(one) for number in range(N_EACH) for one in requests_of(client, number)]
        try:
            wait_until(lambda: datastore.threads.statistics().tasks_waiting == len(waiting) - 8)
            for path in ("/api/v1/models", f"{JOBS}/{job_id}/input", f"{JOBS}/{job_id}/result"):
                assert client.get(path, timeout=60).status_code == 200  # it would wait without an end
            assert client.delete("/datastore/", params={"id": "added"}, timeout=60).status_code == 200
        finally:
            archive.answers.set()
        assert {one.result().status_code for one in waiting} == {200}
