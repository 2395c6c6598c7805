"""The service over HTTP: what is sent, what comes back, what is deleted, what is rejected."""

from __future__ import annotations

import errno
import io
import json
import logging
import socket
import threading
import warnings
import zipfile
from asyncio import _get_running_loop
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image as Pillow

from decathlete.core.files import TEMPORARY_PREFIX
from decathlete.core.labels import LabelSet
from decathlete.inference.predict import Predictor
from decathlete.io.images import read_image, read_label, write_image, write_volume
from decathlete.serving.http.app import create_app
from decathlete.serving.model_cache import load_predictor
from decathlete.serving.private_log import private_logging
from decathlete.serving.service import Service
from decathlete.serving.settings import ModelSource, ServiceSettings
from decathlete.serving.storage import RESERVED_BYTES
from decathlete.serving.worker import MAX_STARTS
from decathlete.workflows.predict import predict
from factories import make_oblique_geometry
from service_support import (
    FP32,
    JOBS,
    TOKEN,
    Hostile,
    dicom_series,
    hostile_requests,
    image_bytes,
    save_model,
    send,
    service_client,
    settings_for,
    wait_for,
    wait_until,
)

LIMIT = 300_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def settings(model: Path, tmp_path: Path) -> ServiceSettings:
    return settings_for(model, tmp_path / "data")


def files_in(folder: Path) -> list[str]:
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "sqlite" not in p.name]


class Gate:
    """Predictors that wait in the middle of a computation until the test lets them go on."""

    def __init__(self) -> None:
        self.computing, self.open = threading.Event(), threading.Event()

    def load(self, folder: Path, options: Any) -> Predictor:
        predictor = load_predictor(folder, options)
        compute = predictor.compute

        def wait_and_compute(prepared: Any, *, progress: Any, **arguments: Any) -> Any:
            progress(0.5)
            self.computing.set()
            while not self.open.wait(0.01):
                progress(0.5)
            return compute(prepared, progress=progress, **arguments)

        predictor.compute = wait_and_compute  # type: ignore[method-assign]
        return predictor


@contextmanager
def gated(settings: ServiceSettings) -> Iterator[tuple[httpx.Client, Service, Gate]]:
    gate = Gate()
    service = Service(settings, load=gate.load)
    try:
        with service_client(settings, service) as client:
            yield client, service, gate
    finally:
        gate.open.set()


def test_the_result_is_what_predict_writes(settings: ServiceSettings, model: Path, tmp_path: Path) -> None:
    (tmp_path / "image.nii.gz").write_bytes(image_bytes())
    (predicted,) = predict(model, tmp_path / "image.nii.gz", tmp_path / "predicted", options=FP32)
    with service_client(settings) as client:
        accepted = send(client, image_bytes())
        assert (accepted.status_code, accepted.json()["state"], accepted.json()["position"]) == (202, "queued", 1)
        status = wait_for(client, accepted.json()["id"])
        assert (status["state"], status["progress"], status["input_kind"]) == ("done", 1.0, "nifti")
        assert status["volumes_ml"] == predicted.record.volumes_ml
        job = f"{JOBS}/{status['id']}"
        (tmp_path / "result.nii.gz").write_bytes(client.get(f"{job}/result").content)
        (tmp_path / "input.nii.gz").write_bytes(client.get(f"{job}/input").content)
        report = client.get(f"{job}/report").text
    result, expected = read_label(tmp_path / "result.nii.gz"), read_label(predicted.path)
    np.testing.assert_array_equal(result.array_ZYX, expected.array_ZYX)
    assert result.geometry.differences(expected.geometry) == []
    np.testing.assert_array_equal(
        read_image(tmp_path / "input.nii.gz").array_CZYX, read_image(tmp_path / "image.nii.gz").array_CZYX
    )
    assert "Research use only" in report
    assert predicted.record.label_digest in report


def test_a_result_keeps_the_labels_of_its_own_model(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with gated(settings_for(model, data)) as (client, _, gate):
        job = f"{JOBS}/{send(client, image_bytes()).json()['id']}"
        assert client.get(job).json()["labels"] == []  # there is no result yet
        gate.open.set()
        status = wait_for(client, job.rsplit("/", 1)[1])
        (offered,) = client.get("/api/v1/models").json()
    assert [(label["name"], label["value"]) for label in status["labels"]] == [("c1", 1), ("c2", 2)]
    assert status["labels"] == offered["labels"]
    other = save_model(tmp_path / "other", labels=LabelSet.from_names(["c2", "liver"]))
    for name in ("tiny", "another"):  # another model of the same name; the name is not offered any more
        settings = settings_for(other, data, models=(ModelSource(folder=other, name=name),))
        with service_client(settings) as client:
            assert client.get(job).json() == status
            with client.stream("GET", f"{job}/events") as events:
                (event,) = (line for line in events.iter_lines() if line.startswith("data: "))
            assert json.loads(event.removeprefix("data: ")) == status


@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_a_result_without_its_labels_can_be_seen_and_deleted(settings: ServiceSettings, content: bytes | None) -> None:
    with service_client(settings) as client:
        job_id = wait_for(client, send(client, image_bytes()).json()["id"])["id"]
        stored = settings.data / "jobs" / job_id / "result" / "structures.json"
        stored.unlink()
        if content is not None:
            stored.write_bytes(content)
        status = client.get(f"{JOBS}/{job_id}").json()
        assert (status["state"], status["labels"], list(status["voxels"])) == ("done", [], ["c1", "c2"])
        assert client.delete(f"{JOBS}/{job_id}").json()["state"] == "done"
        assert files_in(settings.data) == []


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_other_formats_and_forms_give_the_same(settings: ServiceSettings, tmp_path: Path, suffix: str) -> None:
    kinds = {".nii": "nifti", ".nrrd": "nrrd", ".mha": "metaimage"}
    content, zipped = image_bytes(suffix=suffix), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as packed:
        packed.writestr(f"JOHN DOE/scan{suffix}", content)
    with service_client(settings) as client:
        form = client.post(JOBS, params={"model": "tiny"}, files={"files": (f"Jane{suffix}", content)})
        answers = [send(client, content, name=""), form, send(client, zipped.getvalue(), name="x.zip")]
        done = [wait_for(client, answer.json()["id"]) for answer in answers]
        assert {(d["state"], d["input_kind"]) for d in done} == {("done", kinds[suffix])}
        assert len({client.get(f"{JOBS}/{d['id']}/result").content for d in done}) == 1
        shown = client.get(f"{JOBS}/{done[2]['id']}/input").content
    (tmp_path / "shown.nii.gz").write_bytes(shown)
    (tmp_path / f"sent{suffix}").write_bytes(content)
    sent, seen = read_image(tmp_path / f"sent{suffix}"), read_image(tmp_path / "shown.nii.gz")
    np.testing.assert_array_equal(seen.array_CZYX, sent.array_CZYX)
    assert seen.geometry.differences(sent.geometry) == []
    assert not [name for name in files_in(settings.data) if "DOE" in name or "Jane" in name]


def test_a_picture_has_voxels_and_no_volumes(settings: ServiceSettings) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 18), dtype=np.uint8)
    content = io.BytesIO()
    Pillow.fromarray(pixels).save(content, format="png")
    with service_client(settings) as client:
        status = wait_for(client, send(client, content.getvalue(), name="a.png").json()["id"])
        assert status["volumes_ml"] == {}
        assert list(status["voxels"]) == ["c1", "c2"]
        report = client.get(f"{JOBS}/{status['id']}/report").text
        assert "Voxels" in report
        assert "mL" not in report
        assert f'<td class="n">{max(status["voxels"].values())}\n</td>' in report


def test_a_dicom_series_is_a_form_or_a_zip_file(settings: ServiceSettings, model: Path, tmp_path: Path) -> None:
    series, zipped = dicom_series(tmp_path / "series"), io.BytesIO()
    (predicted,) = predict(model, series, tmp_path / "predicted", options=FP32)
    with zipfile.ZipFile(zipped, "w") as packed:
        for path in series.iterdir():
            packed.write(path, f"Doe Jane/CT/{path.name}")
        packed.writestr("Doe Jane/DICOMDIR", b"a directory")
    form = [("files", (f"Doe Jane/{path.name}", path.read_bytes())) for path in series.iterdir()]
    with service_client(settings) as client:
        answers = [
            client.post(JOBS, params={"model": "tiny"}, files=form),
            send(client, zipped.getvalue(), name="a.zip"),
        ]
        for answer in answers:
            status = wait_for(client, answer.json()["id"])
            assert (status["state"], status["input_kind"]) == ("done", "dicom")
            assert status["volumes_ml"] == predicted.record.volumes_ml
            (tmp_path / "shown.nii.gz").write_bytes(client.get(f"{JOBS}/{status['id']}/input").content)
            (tmp_path / "result.nii.gz").write_bytes(client.get(f"{JOBS}/{status['id']}/result").content)
            shown, sent = read_image(tmp_path / "shown.nii.gz"), read_image(series)
            np.testing.assert_array_equal(shown.array_CZYX, sent.array_CZYX)
            result, expected = read_label(tmp_path / "result.nii.gz"), read_label(predicted.path)
            np.testing.assert_array_equal(result.array_ZYX, expected.array_ZYX)
            assert result.geometry.differences(expected.geometry) == []
        refused = client.get(f"{JOBS}/{status['id']}/result", params={"format": "dicom-seg"})  # no frame of reference
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "E-OUTPUT-DICOM")
        assert not [name for name in files_in(settings.data) if "Doe" in name]


def test_formats_of_dicom_need_dicom(settings: ServiceSettings) -> None:
    with service_client(settings) as client:
        status = wait_for(client, send(client, image_bytes()).json()["id"])
        assert status["formats"] == ["nifti"]
        for name in ("dicom-seg", "rtstruct", "../input"):
            answer = client.get(f"{JOBS}/{status['id']}/result", params={"format": name})
            assert (answer.status_code, answer.json()["error"]["code"]) == (422, "E-SERVICE-REQUEST")


def test_channels_are_several_files(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", n_channels=2)
    geometry = make_oblique_geometry((12, 16, 14))
    image = np.random.default_rng(0).normal(50, 9, (2, 12, 16, 14)).astype(np.float32)
    for channel in (0, 1):
        write_image(tmp_path / f"c{channel}.nii.gz", image[channel][None], geometry)
    contents = [(tmp_path / f"c{channel}.nii.gz").read_bytes() for channel in (0, 1)]
    with service_client(settings_for(model, tmp_path / "data")) as client:
        numbered = [("files", (f"ID_000{i}.nii.gz", contents[i])) for i in (1, 0)]
        by_order = [
            ("files", (name, content)) for name, content in zip(("t1.nii.gz", "t2.nii.gz"), contents, strict=True)
        ]
        for form in (numbered, by_order):
            status = wait_for(client, client.post(JOBS, params={"model": "tiny"}, files=form).json()["id"])
            assert status["state"] == "done"
            for channel in (0, 1):
                path = tmp_path / "shown.nii.gz"
                path.write_bytes(client.get(f"{JOBS}/{status['id']}/input", params={"channel": channel}).content)
                np.testing.assert_array_equal(read_image(path).array_CZYX[0], image[channel])
        one = send(client, contents[0])
        assert (one.status_code, one.json()["error"]["code"]) == (422, "E-IMAGE-CHANNELS")


def test_events_tell_every_change(settings: ServiceSettings) -> None:
    with gated(settings) as (client, _, gate):
        first, second = send(client, image_bytes()).json()["id"], send(client, image_bytes(seed=1)).json()["id"]
        gate.computing.wait()
        assert client.get(f"{JOBS}/{second}").json()["position"] == 1
        running = client.get(f"{JOBS}/{first}").json()
        assert (running["state"], running["progress"], running["position"]) == ("running", 0.525, 0)
        assert client.get(f"{JOBS}/{first}/result").json()["error"]["code"] == "E-SERVICE-STATE"
        states = []
        with client.stream("GET", f"{JOBS}/{second}/events") as events:
            assert events.headers["x-accel-buffering"] == "no"
            for line in events.iter_lines():
                if line.startswith("data: "):
                    states.append(json.loads(line.removeprefix("data: "))["state"])
                    gate.open.set()
        assert (states[0], states[-1]) == ("queued", "done")


@pytest.mark.parametrize("which", ["running", "queued"])
def test_a_deleted_job_leaves_nothing(settings: ServiceSettings, which: str) -> None:
    with gated(settings) as (client, service, gate):
        jobs = [send(client, image_bytes()).json()["id"] for _ in range(2)]
        gate.computing.wait()
        deleted = jobs[0] if which == "running" else jobs[1]
        with client.stream("GET", f"{JOBS}/{deleted}/events") as events:
            lines = (line for line in events.iter_lines() if line.startswith("data"))
            next(lines)
            assert client.delete(f"{JOBS}/{deleted}").json()["state"] == "cancelled"
            assert json.loads([*lines][-1].removeprefix("data: "))["state"] == "cancelled"
        gate.open.set()
        other = wait_for(client, (set(jobs) - {deleted}).pop())
        assert other["state"] == "done"
        assert client.get(f"{JOBS}/{deleted}").status_code == 404
        assert client.delete(f"{JOBS}/{deleted}").status_code == 404
        assert not [name for name in files_in(settings.data) if deleted in name]
        client.delete(f"{JOBS}/{other['id']}")
        assert files_in(settings.data) == []
        database = service.storage.database.read_bytes()
    assert b"Jane" not in database


def test_old_jobs_are_deleted(settings: ServiceSettings) -> None:
    now = [1000.0]
    service = Service(settings, clock=lambda: now[0])
    with service_client(settings, service) as client:
        job = wait_for(client, send(client, image_bytes()).json()["id"])
        assert job["expires"] == 1000.0 + 7 * 86400
        assert service.delete_expired() == 0
        now[0] += 7 * 86400
        assert service.delete_expired() == 1
        assert client.get(f"{JOBS}/{job['id']}").status_code == 404
        assert files_in(settings.data) == []


def test_a_restart_finishes_what_was_accepted_once(settings: ServiceSettings) -> None:
    with gated(settings) as (client, _, gate):
        jobs = [send(client, image_bytes(seed=seed)).json()["id"] for seed in range(3)]
        gate.computing.wait()
    (settings.data / "incoming" / "cut").mkdir()
    (settings.data / "incoming" / "cut" / "0").write_bytes(b"half of an upload")
    (settings.data / "jobs" / ("f" * 32)).mkdir()
    unfinished = settings.data / "jobs" / jobs[0] / f"{TEMPORARY_PREFIX}x"
    unfinished.mkdir()
    (unfinished / "logits").write_bytes(b"of a killed computation")
    with service_client(settings) as client:
        assert [wait_for(client, job)["state"] for job in jobs] == ["done"] * 3
        results = {job: client.get(f"{JOBS}/{job}/result").content for job in jobs}
    left = [name for name in files_in(settings.data) if "cut" in name or "f" * 32 in name or "logits" in name]
    assert not left
    with service_client(settings) as client:
        assert {job: client.get(f"{JOBS}/{job}/result").content for job in jobs} == results


def test_a_job_is_computed_however_often_the_service_ends_in_order(settings: ServiceSettings) -> None:
    with gated(settings) as (client, _, gate):
        job = send(client, image_bytes()).json()["id"]
        gate.computing.wait()
    for _ in range(MAX_STARTS):
        with gated(settings) as (_, _, gate):
            gate.computing.wait()
    with service_client(settings) as client:
        assert wait_for(client, job)["state"] == "done"


def test_uploads_leave_room_for_the_queue(settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    content, free = image_bytes(), [0]
    room = RESERVED_BYTES + len(content)
    monkeypatch.setattr("decathlete.core.sizes.free_disk_bytes", lambda _: free[0])
    with service_client(settings) as client:
        for free[0], status in ((room - 1, 507), (room, 202)):
            answers = [send(client, content), client.post(JOBS, params={"model": "tiny"}, content=iter([content]))]
            assert {answer.status_code for answer in answers} == {status}
    assert len(list((settings.data / "jobs").iterdir())) == 2


def test_unpacking_leaves_the_same_room(settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    content, packed, free = image_bytes(suffix=".nii"), io.BytesIO(), [0]
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.nii", content)
    assert len(packed.getvalue()) < len(content)
    room = RESERVED_BYTES + len(content)
    monkeypatch.setattr("decathlete.core.sizes.free_disk_bytes", lambda _: free[0])
    with service_client(settings) as client:
        for free[0], status in ((room - 1, 507), (room, 202)):
            assert send(client, packed.getvalue(), name="a.zip").status_code == status
    assert not any((settings.data / "incoming").iterdir())


@pytest.mark.parametrize(
    ("problem", "status", "code"),
    [
        (OSError(errno.ENOSPC, "full"), 507, "E-DISK-FULL"),
        (MemoryError(), 413, "E-MEMORY"),
        (OSError(), 500, "E-SERVICE"),
    ],
    ids=lambda value: str(value),
)
def test_a_lack_of_room_is_no_unexpected_error(
    settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch, problem: Exception, status: int, code: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise problem

    monkeypatch.setattr("decathlete.serving.service.make_image", fail)
    with service_client(settings) as client:
        answer = send(client, image_bytes())
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("is_computed", [True, False], ids=["computed", "waits for its model"])
def test_only_a_computation_that_ends_the_process_counts(settings: ServiceSettings, is_computed: bool) -> None:
    with gated(settings) as (client, service, gate):
        job = send(client, image_bytes()).json()["id"]
        gate.computing.wait()
    service = Service(settings)
    for _ in range(MAX_STARTS):
        service.store.requeue_running()
        service.store.take_next()
        if is_computed:
            service.store.count_start(job)
    with service_client(settings, service) as client:
        error = wait_for(client, job)["error"]
    assert (error and error["code"]) == ("E-SERVICE-CRASH" if is_computed else None)


def test_results_stay_those_of_the_model_that_made_them(settings: ServiceSettings, model: Path, tmp_path: Path) -> None:
    with service_client(settings) as client:
        (info,) = client.get("/api/v1/models").json()
        job = wait_for(client, send(client, image_bytes()).json()["id"])["id"]
    other = save_model(tmp_path / "other", seed=1, n_channels=2)
    with service_client(settings_for(other, settings.data)) as client:  # under the same name
        assert client.get("/api/v1/models").json()[0]["digest"] != info["digest"]
        assert info["digest"] in client.get(f"{JOBS}/{job}/report").text
        assert client.get(f"{JOBS}/{job}/input").status_code == 200
    renamed = (ModelSource(folder=model, name="renamed"),)
    with service_client(settings_for(model, settings.data, models=renamed)) as client:
        assert client.get(f"{JOBS}/{job}/result").status_code == 200


def test_what_is_made_of_a_deleted_job_does_not_stay(
    settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete_and_write(path: Path, *image: Any) -> None:
        service.delete(job)  # as another request does meanwhile
        path.parent.mkdir(parents=True)
        write_volume(path, *image)

    monkeypatch.setattr("decathlete.serving.viewing.write_volume", delete_and_write)
    service = Service(settings)
    with service_client(settings, service) as client:
        job = wait_for(client, send(client, image_bytes(suffix=".nrrd"), name="a.nrrd").json()["id"])["id"]
        answer = client.get(f"{JOBS}/{job}/input")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "E-SERVICE-JOB")
    assert files_in(settings.data) == []


def test_too_much_is_refused_and_later_accepted(model: Path, tmp_path: Path) -> None:
    settings = settings_for(model, tmp_path / "data", limits={"waiting_jobs": 1, "image_bytes": 400_000})
    with gated(settings) as (client, _, gate):
        first = send(client, image_bytes())
        gate.computing.wait()
        waiting, refused = send(client, image_bytes()), send(client, image_bytes())
        assert [a.status_code for a in (first, waiting, refused)] == [202, 202, 429]
        assert (refused.json()["error"]["code"], refused.headers["retry-after"]) == ("E-SERVICE-BUSY", "10")
        gate.open.set()
        wait_for(client, waiting.json()["id"])
        large = send(client, image_bytes((60, 60, 60)))
        assert (large.status_code, large.json()["error"]["code"]) == (413, "E-SERVICE-SIZE")
        assert send(client, image_bytes()).status_code == 202


def test_other_users_of_the_computer_cannot_read_images_and_results(settings: ServiceSettings) -> None:
    for name in ("incoming", "jobs", "sessions", "datastore"):  # as an earlier version made them
        (settings.data / name).mkdir()
        (settings.data / name).chmod(0o755)
    (settings.data / "jobs.sqlite").touch()
    (settings.data / "jobs.sqlite").chmod(0o644)
    service = Service(settings)
    create_app(settings, service)
    assert {path.name: path.stat().st_mode & 0o077 for path in settings.data.iterdir()} == dict.fromkeys(
        (path.name for path in settings.data.iterdir()), 0
    )
    service.store.close()


@pytest.mark.parametrize(
    ("name", "code"), [("tiny", "E-SERVICE-TIME"), ("other", "E-SERVICE-MODEL")], ids=["too slow", "rejected"]
)
def test_a_sender_that_sends_nothing_more_is_answered(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str
) -> None:
    monkeypatch.setattr("decathlete.serving.http.uploads._DRAIN_S", 0.05)
    settings = settings_for(model, tmp_path / "data", limits={"upload_seconds": 0.05})
    with (
        service_client(settings) as client,
        socket.create_connection((client.base_url.host, client.base_url.port or 0)) as raw,
    ):
        raw.settimeout(600)  # against tests that hang
        head = f"POST {JOBS}?model={name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
        raw.sendall(head.encode() + b"the beginning")
        answer = b"".join(iter(lambda: raw.recv(1 << 16), b""))  # until the service closes the connection
        assert code.encode() in answer
        assert b"connection: close" in answer.lower()
        assert not files_in(settings.data / "incoming")


def test_uploads_that_wait_to_be_read_do_not_stop_other_requests(settings: ServiceSettings) -> None:
    n_uploads, content, service = 45, image_bytes((8, 8, 8)), Service(settings)  # more than there are threads
    with service_client(settings, service) as client, ThreadPoolExecutor(n_uploads) as senders:
        with service.image_lock:
            answers = [senders.submit(send, client, content) for _ in range(n_uploads)]
            received = n_uploads * len(content)
            wait_until(lambda: f"decathlete_upload_bytes_total {float(received)}" in service.metrics.text().decode())
            assert client.get("/api/v1/models", timeout=60).status_code == 200
        assert {answer.result().status_code for answer in answers} == {202}


def test_images_that_wait_to_be_converted_do_not_stop_other_requests(settings: ServiceSettings) -> None:
    n_requests, service = 45, Service(settings)  # more than there are threads
    with service_client(settings, service) as client, ThreadPoolExecutor(n_requests) as viewers:
        answer = send(client, image_bytes((8, 8, 8), suffix=".nrrd"), name="a.nrrd")
        job = f"{JOBS}/{wait_for(client, answer.json()['id'])['id']}"
        with service.image_lock:
            shown = [viewers.submit(client.get, f"{job}/input") for _ in range(n_requests)]
            wait_until(lambda: service.image_threads.statistics().tasks_waiting == n_requests - 2)
            assert client.get("/api/v1/models", timeout=60).status_code == 200
            assert client.get(f"{job}/result", timeout=60).status_code == 200
        assert {one.result().status_code for one in shown} == {200}


def test_the_event_loop_waits_for_no_file_and_no_database(
    settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_event_loop: list[str] = []

    def watch(place: str) -> None:
        original = resolve_name(place)

        def watched(*args: Any, **kwargs: Any) -> Any:
            if _get_running_loop() is not None:
                on_event_loop.append(place)
            return original(*args, **kwargs)

        monkeypatch.setattr(place, watched)

    for place in ("serving.storage.remove", "serving.jobs.JobStore._query", "serving.jobs.JobStore.delete"):
        watch(f"decathlete.{place}")
    with service_client(settings) as client:
        on_event_loop.clear()  # of the start
        assert send(client, b"no image").status_code == 422
        status = wait_for(client, send(client, image_bytes((8, 8, 8))).json()["id"])
        for part in ("", "/input", "/result", "/report", "/events"):
            assert client.get(f"{JOBS}/{status['id']}{part}").status_code == 200
        client.delete(f"{JOBS}/{status['id']}")
        for form in ("image", "json", "all"):
            file = {"file": ("a.nii.gz", image_bytes((8, 8, 8)))}
            assert client.post("/infer/tiny", params={"output": form}, files=file).status_code == 200
        assert client.get("/metrics").status_code == 200
    assert on_event_loop == []


def test_a_job_that_takes_too_long_ends(model: Path, tmp_path: Path) -> None:
    settings = settings_for(model, tmp_path / "data", limits={"job_seconds": 0.0})
    with service_client(settings) as client:
        status = wait_for(client, send(client, image_bytes()).json()["id"])
        assert (status["state"], status["error"]["code"]) == ("failed", "E-SERVICE-TIME")
        result = client.get(f"{JOBS}/{status['id']}/result")
        assert (result.status_code, result.json()["error"]["code"]) == (409, "E-SERVICE-STATE")


def test_a_failed_computation_does_not_stop_the_others(settings: ServiceSettings) -> None:
    def load(folder: Path, options: Any) -> Predictor:
        predictor = load_predictor(folder, options)
        prepare, n_calls = predictor.prepare, []

        def fail_first(image: Any, **names: str) -> Any:
            n_calls.append(1)
            if len(n_calls) == 1:
                raise ValueError("of the patient Jane Doe")
            return prepare(image, **names)

        predictor.prepare = fail_first  # type: ignore[method-assign]
        return predictor

    with service_client(settings, Service(settings, load=load)) as client:
        failed = wait_for(client, send(client, image_bytes()).json()["id"])
        assert (failed["state"], failed["error"]["code"]) == ("failed", "E-SERVICE")
        assert "Jane" not in failed["error"]["message"]
        assert wait_for(client, send(client, image_bytes()).json()["id"])["state"] == "done"


@pytest.fixture(scope="module")
def protected(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Path]]:
    data = tmp_path_factory.mktemp("protected") / "data"
    limits = {"upload_bytes": LIMIT, "image_bytes": 50_000_000}
    settings = settings_for(
        model,
        data,
        token=TOKEN,
        limits=limits,
        allow_origins=("https://viewer.example.org",),
        allow_hosts=("seg.example",),
    )
    with service_client(settings) as client:
        yield client, data


HOSTILE = hostile_requests(upload_limit=LIMIT)


def test_there_are_enough_hostile_requests() -> None:
    assert len({case.name for case in HOSTILE}) == len(HOSTILE) >= 60


@pytest.mark.parametrize("case", HOSTILE, ids=[case.name for case in HOSTILE])
def test_hostile_requests_get_a_clear_answer(protected: tuple[httpx.Client, Path], case: Hostile) -> None:
    client, data = protected
    answer = client.request(**case.request())
    assert answer.status_code in case.status, answer.text
    error = answer.json()["error"]
    assert error["code"].startswith(case.code)
    assert error["message"]
    assert str(data) not in answer.text
    assert files_in(data) == []
    assert client.get("/health/ready").status_code == 200


def test_the_token_opens_and_a_cookie_stands_for_it(protected: tuple[httpx.Client, Path]) -> None:
    client, _ = protected
    assert client.get("/api/v1/models").status_code == 200
    login = client.post("/api/v1/login", json={"token": TOKEN}, headers={"Authorization": ""})
    cookie = login.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/"))
    assert TOKEN not in cookie
    address = str(client.base_url)
    with httpx.Client(base_url=address, cookies=login.cookies) as with_cookie:
        assert with_cookie.get("/api/v1/models").status_code == 200
        assert with_cookie.get("/metrics").text.count("decathlete_jobs") > 1
    name, _, value = cookie.split(";")[0].partition("=")
    forged = f"{int(value.split('.')[0]) + 1}.{value.split('.')[1]}"
    with httpx.Client(base_url=address, cookies={name: forged}) as with_forged:
        assert with_forged.get("/api/v1/models").status_code == 401


def test_other_sites_need_permission(protected: tuple[httpx.Client, Path]) -> None:
    client, _ = protected
    allowed = client.get("/api/v1/models", headers={"Origin": "https://viewer.example.org"})
    assert allowed.headers["access-control-allow-origin"] == "https://viewer.example.org"
    asked = {"Origin": "https://viewer.example.org", "Access-Control-Request-Method": "POST"}
    preflight = client.options(JOBS, headers=asked | {"Access-Control-Request-Headers": "authorization"})
    assert preflight.status_code == 200
    same = client.get("/api/v1/models", headers={"Origin": "https://seg.example", "Host": "seg.example"})
    assert (same.status_code, "access-control-allow-origin" in same.headers) == (200, False)


def test_the_pages_of_the_api_need_no_other_site(protected: tuple[httpx.Client, Path]) -> None:
    client, _ = protected
    page = client.get("/docs", headers={"Authorization": ""})
    assert page.status_code == 200
    assert "<script" not in page.text
    assert page.text.count("http://") == page.text.count("http://127.0.0.1:8080")
    assert "https://" not in page.text
    described = client.get("/openapi.json").json()["paths"]
    assert {f"{JOBS}/{{job_id}}/result", JOBS, "/api/v1/models", "/metrics"} <= set(described)
    assert all(path in page.text for path in described)
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    label = schemas["JobStatus"]["properties"]["labels"]["items"]["$ref"].rsplit("/", 1)[-1]
    assert list(schemas[label]["properties"]) == ["name", "value", "color"]
    assert "array of LabelBody" in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'self'")


def test_a_sender_who_goes_away_leaves_nothing(protected: tuple[httpx.Client, Path]) -> None:
    client, data = protected
    port = client.base_url.port
    assert port
    head = f"POST {JOBS}?model=tiny HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    for length in ("Content-Length: 200000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n20000\r\n"):
        with socket.create_connection(("127.0.0.1", port)) as sender:
            sender.sendall((head + length).encode() + b"x" * 5000)
            wait_until(lambda: any((data / "incoming").iterdir()))
        wait_until(lambda: not any((data / "incoming").iterdir()))
    assert files_in(data) == []


def test_a_body_of_unknown_length_is_limited(protected: tuple[httpx.Client, Path]) -> None:
    client, data = protected

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b"\0" * 20_000

    for url in (f"{JOBS}?model=tiny", "/api/v1/login"):
        answer = client.post(url, content=pieces())
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "E-SERVICE-SIZE")
    assert files_in(data) == []


def test_logs_name_jobs_and_no_patients(settings: ServiceSettings, caplog: pytest.LogCaptureFixture) -> None:
    root = logging.getLogger()
    caplog.set_level(logging.INFO)
    with private_logging(), service_client(settings) as client:
        assert caplog.handler in root.handlers
        job = wait_for(client, send(client, image_bytes(), name="Doe%5EJane.nii.gz").json()["id"])
        send(client, b"nothing", name="Doe^Jane.nii.gz")
        logging.getLogger("decathlete.io.images").warning("the image of Doe^Jane is odd")
        logging.getLogger("pydicom").warning("Doe^Jane")
    assert "Doe" not in caplog.text
    assert f"job {job['id']}: done" in caplog.text


def test_warnings_of_python_are_not_shown_while_a_service_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_, **__: shown.append(str(message)))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with private_logging():
            warnings.warn("Invalid value for VR CS: 'Doe^Jane'", stacklevel=1)
        warnings.warn("later", stacklevel=1)
    assert shown == ["later"]


def test_warnings_about_the_image_belong_to_its_job(settings: ServiceSettings) -> None:
    def load(folder: Path, options: Any) -> Predictor:
        predictor = load_predictor(folder, options)
        prepare = predictor.prepare

        def warn(image: Any, **names: str) -> Any:
            logging.getLogger("decathlete.io.dicom_grid").warning("%s: slices are uneven", settings.data / "jobs")
            return prepare(image, **names)

        predictor.prepare = warn  # type: ignore[method-assign]
        return predictor

    with private_logging(), service_client(settings, Service(settings, load=load)) as client:
        assert wait_for(client, send(client, image_bytes()).json()["id"])["warnings"] == ["jobs: slices are uneven"]


@pytest.mark.full
def test_several_models_share_the_memory(tmp_path: Path) -> None:
    models = [save_model(tmp_path / name, seed=seed, dataset=name) for seed, name in enumerate(("One", "Two"))]
    sources = tuple(ModelSource(folder=folder) for folder in models)
    limit = max(sum(p.stat().st_size for p in m.rglob("*") if p.is_file()) for m in models) + 10
    settings = settings_for(models[0], tmp_path / "data", models=sources, model_memory_bytes=limit)
    with service_client(settings) as client:
        listed = client.get("/api/v1/models").json()
        assert [m["name"] for m in listed] == ["One", "Two"]
        jobs = [send(client, image_bytes(), model=name).json()["id"] for name in ("One", "Two", "Two", "One")]
        done = [wait_for(client, job) for job in jobs]
        assert {d["state"] for d in done} == {"done"}
        results = [client.get(f"{JOBS}/{job}/result").content for job in jobs]
        assert results[0] == results[3] != results[1] == results[2]
        assert "decathlete_models_loaded 1.0" in client.get("/metrics").text
