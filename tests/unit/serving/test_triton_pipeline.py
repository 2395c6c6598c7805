"""The pipeline in Triton's Python backend gives what ``Predictor`` gives."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from decathlete.core.geometry import Geometry
from decathlete.inference.predict import Predictor
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.serving.triton.pipeline_model import PipelineModel
from dicom_support import write_series
from factories import make_oblique_geometry, make_test_plan, make_volumes
from triton_support import FakeBackend, FakeRequest

PLAN = make_test_plan(3)
XYZ = [2, 1, 0, 3]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    networks = [build_network(PLAN.network, seed=0)]
    return ModelBundle.save(tmp_path / "1" / "bundle", TrainedMember(plan=PLAN, networks=networks)).folder


@pytest.fixture
def pipeline(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> PipelineModel:
    return start(bundle, monkeypatch, engine="torch", precision="fp32")


def start(bundle: Path, monkeypatch: pytest.MonkeyPatch, **texts: str) -> PipelineModel:
    """A pipeline with these parameters in its configuration."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", FakeBackend)
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
    return model


def test_the_engine_has_the_settings_of_the_configuration(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    model = start(bundle, monkeypatch, engine="onnx", engine_settings='{"threads": 2}', precision="fp32")
    (used,) = model._cases.predictor.settings.models
    assert (used.engine, used.engine_settings) == ("onnx", {"threads": 2})


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
        "E-IMAGE-DAMAGED: input file: is truncated": FakeRequest(file=np.zeros((1, 100), np.uint8)),
        "no grid": FakeRequest(volume=image[None], affine=np.zeros((1, 4, 4))),
        "one image": FakeRequest(volume=np.stack([image, image]), affine=np.stack([np.eye(4)] * 2)),
    }
    *errors, answer = pipeline.execute([*bad.values(), good])
    for said, response in zip(bad, errors, strict=True):
        assert said in response.error.message
        assert response.error.code == FakeBackend.TritonError.INVALID_ARG
    assert answer.outputs["label"].shape == (1, 12, 12, 12)
