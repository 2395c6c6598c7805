"""The pipeline in Triton's Python backend gives what ``Predictor`` gives."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

from decathlete.core.geometry import Geometry
from decathlete.inference.predict import Predictor
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.serving.triton.pipeline_model import PipelineModel
from dicom_support import write_enhanced, write_series
from factories import make_oblique_geometry, make_test_plan, make_volumes
from triton_support import FakeBackend, FakeLogger, FakeRequest, FakeResponse

PLAN = make_test_plan(3)
XYZ = [2, 1, 0, 3]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    networks = [build_network(PLAN.network, seed=0)]
    return ModelBundle.save(tmp_path / "1" / "bundle", TrainedMember(plan=PLAN, networks=networks)).folder


@pytest.fixture
def start(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., PipelineModel]]:
    """Starts a pipeline with these parameters in its configuration."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", FakeBackend)
    monkeypatch.setattr(FakeLogger, "warnings", [])
    started: list[PipelineModel] = []

    def start_one(**texts: str) -> PipelineModel:
        model = PipelineModel()
        parameters = {name: {"string_value": text} for name, text in texts.items()}
        model.initialize(
            {
                "model_config": json.dumps({"parameters": parameters}),
                "model_repository": str(bundle.parents[1]),
                "model_version": "1",
                "model_instance_kind": "CPU",
                "model_instance_device_id": "0",
            }
        )
        started.append(model)
        return model

    yield start_one
    for model in started:
        model.finalize()


@pytest.fixture
def pipeline(start: Callable[..., PipelineModel]) -> PipelineModel:
    return start(engine="torch", precision="fp32")


def test_the_engine_has_the_settings_of_the_configuration(start: Callable[..., PipelineModel]) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    model = start(engine="onnx", engine_settings='{"threads": 2}', precision="fp32")
    (used,) = model._cases.predictor.settings.models
    assert (used.engine, used.engine_settings) == ("onnx", {"threads": 2})


def test_a_pipeline_for_any_device_starts_on_a_cpu(start: Callable[..., PipelineModel]) -> None:
    model = start(engine="torch", precision="fp16")
    (used,) = model._cases.predictor.settings.models
    assert used.precision == "fp32"
    assert FakeLogger.warnings == ["the pipeline computes in fp32: fp16 is not for CPUs"]


def volume_request(shape: tuple[int, int, int], geometry: Geometry, **more: str) -> tuple[np.ndarray, FakeRequest]:
    image, _ = make_volumes(shape, seed=shape[0])
    return image, FakeRequest(volume=image[None], affine=geometry.matrix[:, XYZ][None], **more)


def test_requests_of_several_sizes_get_their_own_label_maps(pipeline: PipelineModel, bundle: Path) -> None:
    predictor = Predictor.load(bundle, engine="torch", precision="fp32", device="cpu")
    geometries = [make_oblique_geometry(shape, (1.0, 0.8, 0.8)) for shape in ((12, 18, 16), (20, 17, 15))]
    asked = [volume_request(geometry.shape_ZYX, geometry) for geometry in geometries]
    responses = pipeline.execute([request for _, request in asked])
    for (image, _), geometry, response in zip(asked, geometries, responses, strict=True):
        expected = predictor.predict(image, geometry=geometry)
        assert response.error is None
        np.testing.assert_array_equal(response.outputs["label"][0], expected.label_ZYX)
        np.testing.assert_allclose(response.outputs["label_affine"][0], geometry.matrix[:, XYZ])
        report = json.loads(response.outputs["report"].tobytes())
        assert report["volumes_ml"] == expected.volumes_ml
        assert list(response.outputs["volumes_ml"][0]) == list(expected.volumes_ml.values())
        assert "probabilities" not in response.outputs


def test_probabilities_come_on_request(pipeline: PipelineModel) -> None:
    _, request = volume_request((12, 12, 12), Geometry.plain((12, 12, 12)), parameters='{"probabilities": true}')
    (response,) = pipeline.execute([request])
    np.testing.assert_allclose(response.outputs["probabilities"][0].sum(axis=0), 1, atol=1e-5)


def test_the_bytes_of_a_file_are_an_image(pipeline: PipelineModel, bundle: Path, tmp_path: Path) -> None:
    image, _ = make_volumes((12, 14, 16))
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(image[0].T, np.diag([0.9, 1, 1, 1])), path)
    (response,) = pipeline.execute([FakeRequest(file=np.frombuffer(path.read_bytes(), np.uint8)[None])])
    expected = Predictor.load(bundle, engine="torch", precision="fp32", device="cpu").predict(path)
    np.testing.assert_array_equal(response.outputs["label"][0], expected.label_ZYX)


def send_file(pipeline: PipelineModel, path: Path) -> FakeResponse:
    (response,) = pipeline.execute([FakeRequest(file=np.frombuffer(path.read_bytes(), np.uint8)[None])])
    return response


def zip_folder(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder))


SLICES = np.random.default_rng(0).normal(50, 20, (12, 16, 18)).astype(np.int16)


def test_a_dicom_file_of_many_frames_is_an_image(pipeline: PipelineModel, bundle: Path, tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "a.dcm", SLICES[:11])
    expected = Predictor.load(bundle, engine="torch", precision="fp32", device="cpu").predict(path)
    response = send_file(pipeline, path)
    assert response.error is None
    np.testing.assert_array_equal(response.outputs["label"][0], expected.label_ZYX)
    np.testing.assert_allclose(response.outputs["label_affine"][0], expected.geometry.matrix[:, XYZ])


def test_of_a_zip_of_several_series_the_one_of_the_model_is_chosen(
    pipeline: PipelineModel, bundle: Path, tmp_path: Path
) -> None:
    series = write_series(tmp_path / "study" / "Doe" / "ct", SLICES, series="ct")
    expected = Predictor.load(bundle, engine="torch", precision="fp32", device="cpu").predict(series)
    localizer = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "series": "scout"}
    write_series(tmp_path / "study" / "Doe" / "scout", SLICES[:1], **localizer)
    response = send_file(pipeline, zip_folder(tmp_path / "study"))
    assert response.error is None
    np.testing.assert_array_equal(response.outputs["label"][0], expected.label_ZYX)
    (warning,) = json.loads(response.outputs["report"].tobytes())["warnings"]
    assert warning == "input file: not used: series_0001/00012.dcm (a localizer)"


def test_a_zip_of_several_images_is_an_error(pipeline: PipelineModel, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_series(tmp_path / "study" / name, SLICES, series=name)
    response = send_file(pipeline, zip_folder(tmp_path / "study"))
    assert "input file: the upload contains 2 images" in response.error.message


def test_a_file_of_a_large_image_is_rejected_by_its_header(
    pipeline: PipelineModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decathlete.serving.triton.pipeline_model.UNPACKED_BYTES", 4 * 12**3 - 1)
    nibabel.save(nibabel.Nifti1Image(np.zeros((12, 12, 12), np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    content = np.frombuffer((tmp_path / "a.nii.gz").read_bytes(), np.uint8)[None]
    (response,) = pipeline.execute([FakeRequest(file=content)])
    assert "input file: the image needs 6.9 kB" in response.error.message


def test_a_zip_of_a_large_series_is_rejected_by_its_headers(
    pipeline: PipelineModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decathlete.serving.triton.pipeline_model.UNPACKED_BYTES", 60_000)  # its files are smaller
    series = write_series(tmp_path / "series", np.zeros((12, 40, 40), np.int16))
    archive = shutil.make_archive(str(tmp_path / "a"), "zip", series)
    content = np.frombuffer(Path(archive).read_bytes(), np.uint8)[None]
    (response,) = pipeline.execute([FakeRequest(file=content)])
    assert "input file: the image needs 76.8 kB" in response.error.message


def test_a_bad_request_is_an_error_and_others_are_answered(pipeline: PipelineModel) -> None:
    image, good = volume_request((12, 12, 12), Geometry.plain((12, 12, 12)))
    bad = {
        "either": FakeRequest(volume=image[None]),
        "E-IMAGE-NOT-FOUND: input file: the upload contains no image of a known kind": FakeRequest(
            file=np.zeros((1, 100), np.uint8)
        ),
        "no grid": FakeRequest(volume=image[None], affine=np.zeros((1, 4, 4))),
        "one image": FakeRequest(volume=np.stack([image, image]), affine=np.stack([np.eye(4)] * 2)),
    }
    *errors, answer = pipeline.execute([*bad.values(), good])
    for said, response in zip(bad, errors, strict=True):
        assert said in response.error.message
        assert response.error.code == FakeBackend.TritonError.INVALID_ARG
    assert answer.outputs["label"].shape == (1, 12, 12, 12)
