"""DICOM over HTTP: results as DICOM objects, and warnings about what an upload contains and is not used."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest

from decathlete.inference.output.provenance import PredictionRecord
from decathlete.io.images import read_label
from decathlete.serving.private_log import private_logging
from decathlete.serving.results import RECORD_FILE
from decathlete.serving.service import Service
from decathlete.serving.settings import ServiceSettings
from decathlete.workflows.predict import predict
from dicom_support import PATIENT, paint_structures, uid, write_series
from service_support import FP32, JOBS, save_model, send, service_client, settings_for, wait_for

VOXELS = np.random.default_rng(0).normal(0, 300, (9, 18, 20)).astype(np.int16)
LOCALIZER = "not used: 1 file (a localizer)"
OTHER_SIZE = "not used: 2 files (slices of another direction or size than the other 9 of their series)"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model", seed=1)  # finds both classes


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A series with all identifiers; one beside a localizer, with slices of another size."""
    folder = tmp_path_factory.mktemp("studies")
    write_series(folder / "plain", VOXELS)
    write_series(folder / "mixed", VOXELS, SeriesDescription=PATIENT)
    write_series(folder / "mixed", VOXELS[:1], series="scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(folder / "mixed", VOXELS[:2, :9], series="part", SeriesInstanceUID=uid("series", "series"))
    return folder


@pytest.fixture(scope="module")
def settings(model: Path, studies: Path, tmp_path_factory: pytest.TempPathFactory) -> ServiceSettings:
    return settings_for(model, tmp_path_factory.mktemp("service") / "data", studies=str(studies))


@pytest.fixture(scope="module")
def service(settings: ServiceSettings) -> Service:
    return Service(settings)


@pytest.fixture(scope="module")
def client(settings: ServiceSettings, service: Service) -> Iterator[httpx.Client]:
    with service_client(settings, service) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected_ZYX(model: Path, studies: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    (predicted,) = predict(model, studies / "plain", tmp_path_factory.mktemp("predicted"), options=FP32)
    label_ZYX = read_label(predicted.path).array_ZYX
    assert set(np.unique(label_ZYX)) == {0, 1, 2}
    return label_ZYX


def zip_of(series: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for path in series.iterdir():
            packed.write(path, f"{PATIENT}/{path.name}")
    return stream.getvalue()


@pytest.mark.parametrize("format_", ["dicom-seg", "rtstruct"])
def test_a_result_is_a_dicom_object_of_the_label_map(client, studies, expected_ZYX, tmp_path, format_) -> None:
    series = studies / "plain"
    status = wait_for(client, send(client, zip_of(series), name="a.zip").json()["id"])
    assert status["formats"] == ["nifti", "dicom-seg", "rtstruct"]
    answer = client.get(f"{JOBS}/{status['id']}/result", params={"format": format_})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom"), answer.text
    (tmp_path / "object.dcm").write_bytes(answer.content)
    np.testing.assert_array_equal(paint_structures(tmp_path / "object.dcm", series), expected_ZYX)
    made = pydicom.dcmread(tmp_path / "object.dcm")
    assert (made.PatientName, made.StudyInstanceUID) == (PATIENT, uid("study", "study"))
    again = client.get(f"{JOBS}/{status['id']}/result", params={"format": format_})
    assert again.content == answer.content


@pytest.mark.parametrize("is_session", [True, False], ids=["session", "datastore"])
def test_viewers_get_a_segmentation_object(client, studies, expected_ZYX, tmp_path, is_session) -> None:
    series, query = studies / "plain", {"image": "plain"}
    if is_session:
        files = [("files", (path.name, path.read_bytes())) for path in series.iterdir()]
        query = {"session_id": client.put("/session/", files=files).json()["session_id"]}
    answer = client.post("/infer/tiny", params=query | {"output": "dicom_seg"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom"), answer.text
    (tmp_path / "object.dcm").write_bytes(answer.content)
    np.testing.assert_array_equal(paint_structures(tmp_path / "object.dcm", series), expected_ZYX)


def test_what_an_upload_contains_and_is_not_used_is_a_warning_of_its_job(
    client, service, studies, expected_ZYX, tmp_path
) -> None:
    with service.models.use("tiny"):  # so that the job is not finished
        job_id = send(client, zip_of(studies / "mixed"), name="a.zip").json()["id"]
        assert set(client.get(f"{JOBS}/{job_id}").json()["warnings"]) == {LOCALIZER, OTHER_SIZE}
    status = wait_for(client, job_id)
    assert (status["state"], set(status["warnings"])) == ("done", {LOCALIZER, OTHER_SIZE})
    (tmp_path / "result.nii.gz").write_bytes(client.get(f"{JOBS}/{job_id}/result").content)
    np.testing.assert_array_equal(read_label(tmp_path / "result.nii.gz").array_ZYX, expected_ZYX)
    report = client.get(f"{JOBS}/{job_id}/report").text
    assert all(text in report for text in (LOCALIZER, OTHER_SIZE))
    record = PredictionRecord.load(service.storage.result_folder(job_id) / RECORD_FILE)
    assert set(record.warnings) == {LOCALIZER, OTHER_SIZE}


def test_viewers_are_told_what_is_not_used(client) -> None:
    answer = client.post("/infer/tiny", params={"image": "mixed", "output": "json"})
    assert set(answer.json()["warnings"]) == {LOCALIZER, OTHER_SIZE}


def test_a_warning_of_the_reader_is_one_of_the_job_whoever_reads_the_image_before(
    client, service, studies, tmp_path
) -> None:
    series = write_series(tmp_path / "uneven", VOXELS)
    path = series / "56_series.dcm"  # the last slice
    slice_ = pydicom.dcmread(path)
    slice_.ImagePositionPatient[2] += 0.1
    slice_.save_as(path)
    with private_logging():
        with service.models.use("tiny"):  # so that the job is not finished
            job_id = send(client, zip_of(series), name="a.zip").json()["id"]
            assert client.get(f"{JOBS}/{job_id}/input").status_code == 200
        (warning,) = wait_for(client, job_id)["warnings"]
    assert warning.startswith("channel_0000: slices are not quite evenly spaced: usually 2")
