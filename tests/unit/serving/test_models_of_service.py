"""Models are loaded once, and unloaded when memory is short."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from decathlete.errors import ModelError, OptionError, ServiceError
from decathlete.inference.options import PredictOptions
from decathlete.inference.predict import Predictor
from decathlete.serving.inputs import ReceivedFile
from decathlete.serving.jobs import Job, JobStore
from decathlete.serving.model_cache import ModelCache, load_predictor, stored_bytes
from decathlete.serving.service import Service
from decathlete.serving.settings import ModelSource
from service_support import FP32, image_bytes, save_model, settings_for, wait_until


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    return [save_model(root / f"m{i}" / "model", seed=i, dataset=f"Data {i}").parent for i in range(3)]


def sources(folders: list[Path]) -> list[ModelSource]:
    return [ModelSource(folder=folder) for folder in folders]


def test_every_model_is_described_and_loaded_once(folders: list[Path]) -> None:
    cache = ModelCache(sources(folders), FP32)
    for _ in range(2):
        for name in cache.infos:
            with cache.use(name) as predictor:
                assert predictor.settings.models[0].digest == cache.info(name).digest
    assert cache.n_loads == 3
    info = cache.info("Data_1")
    assert [(label.name, label.value) for label in info.labels] == [("c1", 1), ("c2", 2)]
    assert (info.channels, info.dimension, len({label.color for label in info.labels})) == (("channel0",), 3, 2)
    with pytest.raises(ServiceError, match="Data_0, Data_1, Data_2"):
        cache.info("other")


def test_the_least_recently_used_model_is_unloaded(folders: list[Path]) -> None:
    two = 2 * max(stored_bytes(folder) for folder in folders) + 10
    cache = ModelCache(sources(folders), FP32, limit_bytes=two)
    assert cache.loaded_names == ["Data_1", "Data_2"]
    with cache.use("Data_1"):
        pass
    with cache.use("Data_0"):
        assert cache.loaded_names == ["Data_1", "Data_0"]
    assert cache.loaded_bytes <= two
    assert cache.n_loads == 4


def test_what_cannot_work_is_found_at_the_start(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--model-memory is 10 bytes"):
        ModelCache(sources(folders), FP32, limit_bytes=10)
    with pytest.raises(OptionError, match="two models are called"):
        ModelCache([ModelSource(folder=folder, name="a") for folder in folders], FP32)
    with pytest.raises(ModelError):
        ModelCache([ModelSource(folder=tmp_path / "missing")], FP32)


def test_a_model_that_was_replaced_is_not_used(folders: list[Path]) -> None:
    def load(folder: Path, options: PredictOptions) -> Predictor:
        n_loads.append(folder)
        return load_predictor(folders[2] if len(n_loads) > 2 else folder, options)

    n_loads: list[Path] = []
    one = max(stored_bytes(folder) for folder in folders) + 10
    cache = ModelCache(sources(folders[:2]), FP32, limit_bytes=one, load=load)
    with pytest.raises(ModelError, match="was replaced"), cache.use("Data_0"):
        pass


@pytest.fixture
def service(folders: list[Path], tmp_path: Path) -> Iterator[Service]:
    one = Service(settings_for(folders[0], tmp_path / "data", limits={"job_seconds": 60.0}))
    one.start()
    yield one
    one.stop()


def submit(service: Service) -> Job:
    with service.storage.upload_folder() as folder:
        (folder / "0").write_bytes(image_bytes())
        files = [ReceivedFile(path=folder / "0", name="image.nii.gz", field="files")]
        return service.submit(files, folder, model="tiny")


def test_waiting_for_a_model_counts_for_no_time_limit(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("decathlete.serving.worker.time", SimpleNamespace(monotonic=lambda: now[0]))
    with service.models.use("tiny"):  # as the DICOM node does
        job = submit(service)
        wait_until(lambda: service.worker.running is not None)
        now[0] += 3600
    wait_until(lambda: service.job(job.id).is_finished)
    assert service.job(job.id).state == "done"


def test_a_kill_while_a_job_waits_for_a_model_is_no_start_of_the_job(service: Service) -> None:
    with service.models.use("tiny"):
        job = submit(service)
        wait_until(lambda: service.worker.running is not None)
        restarted = JobStore(service.storage.database)  # what a service would find that starts now
        found = restarted.get(job.id)
        restarted.close()
        assert found
        assert (found.state, found.starts) == ("running", 0)
    wait_until(lambda: service.job(job.id).is_finished)
    assert (service.job(job.id).state, service.job(job.id).starts) == ("done", 1)


def test_a_job_that_waits_for_a_model_can_be_deleted(service: Service) -> None:
    with service.models.use("tiny"):
        job = submit(service)
        wait_until(lambda: service.worker.running is not None)
        service.delete(job.id)
        wait_until(lambda: service.worker.running is None)
    assert not service.storage.job_folder(job.id).exists()


def test_a_service_ends_while_a_job_waits_for_a_model(service: Service) -> None:
    with service.models.use("tiny"):
        job = submit(service)
        wait_until(lambda: service.worker.running is not None)
        ending = threading.Thread(target=service.stop, daemon=True)
        ending.start()
        wait_until(lambda: not ending.is_alive())
    store = JobStore(service.storage.database)
    kept = store.get(job.id)
    store.close()
    assert kept
    assert (kept.state, kept.starts) == ("queued", 0)
