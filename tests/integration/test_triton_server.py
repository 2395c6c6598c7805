"""A real Triton Inference Server: it serves what ``export triton`` wrote, and a wrong model is found."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from decathlete.core.documents import parse_json
from decathlete.errors import TritonError
from decathlete.export.triton_options import TritonSettings
from decathlete.inference.predict import Predictor
from decathlete.serving.triton.benchmark import TritonBenchmarkOptions, triton_benchmark
from decathlete.serving.triton.benchmark_files import write_benchmark
from decathlete.serving.triton.client import TritonClient
from decathlete.serving.triton.comparison import file_inputs
from decathlete.serving.triton.load import LoadOptions
from decathlete.serving.triton.protocol import ClientOptions, InferenceRequest
from decathlete.serving.triton.verify import Thresholds, TritonVerifyOptions, triton_verify
from decathlete.workflows.export_triton import export_triton
from dicom_support import write_enhanced, write_series
from factories import make_volumes
from triton_server_support import XYZ, require_server, save_images, save_model, serving

pytestmark = pytest.mark.full


@dataclass(frozen=True)
class Served:
    model: Path
    images: Path
    clients: tuple[ClientOptions, ClientOptions]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("triton")
    server = require_server()
    model, wrong = save_model(folder / "m", 0), save_model(folder / "wrong", 9)
    repository = folder / "repository"
    settings = TritonSettings(name="right", engine="torch", warmup=1, preferred_batch_sizes=(2, 4))
    export_triton(model, repository, settings=settings)
    script = TritonSettings(name="script", models="network", format="torchscript-script", dynamic_shapes=True)
    export_triton(model, repository, settings=script)
    half = TritonSettings(name="half", precision="fp16", engine="torch")  # its pipeline computes in fp32 on a CPU
    export_triton(model, repository, settings=half)
    brain = TritonSettings(name="brain", models="network", format="openvino", precision="bf16")
    export_triton(model, repository, settings=brain)
    export_triton(wrong, repository, settings=TritonSettings(name="wrong", format="openvino", engine="torch"))
    images = save_images(folder / "images", 20)
    with serving(repository, server, folder / "log") as clients:
        yield Served(model, images, clients)


@pytest.mark.parametrize(("name", "send"), [("right", "volume"), ("right", "file"), ("script", "volume")])
def test_the_server_computes_what_the_model_computes(served: Served, name: str, send: str) -> None:
    models = "both" if name == "right" else "network"
    options = TritonVerifyOptions(name=name, models=models, send_as=send, clients=served.clients)
    with TritonClient.connect(served.clients[1]) as client:
        before = client.statistics("right_pipeline")
        report = triton_verify(served.model, inputs=served.images, options=options)
        spent = client.statistics("right_pipeline").since(before)
    assert report.problems == ()
    assert len(report.models) == (4 if name == "right" else 2)
    if models == "both":
        assert spent.inferences == 2 * 20
        assert spent.executions < spent.inferences  # the server has batched images


@pytest.mark.parametrize("kind", ["zip", "frames"])
def test_dicom_is_segmented_as_by_predict(served: Served, kind: str, tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(50, 20, (13, 16, 18)).astype(np.int16)
    if kind == "zip":
        image = write_series(tmp_path / "study" / "ct", voxels, series="ct")
        localizer = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "series": "scout"}
        write_series(tmp_path / "study" / "scout", voxels[:1], **localizer)
        file = Path(shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "study"))
    else:
        image = file = write_enhanced(tmp_path / "a.dcm", voxels)
    expected = Predictor.load(served.model, engine="torch", precision="fp32", device="cpu").predict(image)
    for options in served.clients:
        with TritonClient.connect(options) as client:
            answer = client.infer(InferenceRequest(model="right_pipeline", inputs=file_inputs(file)))
        assert (answer["label"][0] != expected.label_ZYX).mean() < 1e-3
        np.testing.assert_allclose(answer["label_affine"][0], expected.geometry.matrix[:, XYZ], atol=1e-6)
        warnings = parse_json(answer["report"].tobytes().decode())["warnings"]
        assert any("localizer" in text for text in warnings) == (kind == "zip")


def test_models_in_low_precision_are_served(served: Served) -> None:
    for name, limit in (("half", 0.02), ("brain", 0.05)):
        thresholds = Thresholds(logits=limit, changed=0.1, margin=0.2, dice=0.9)
        options = TritonVerifyOptions(
            name=name, models="both" if name == "half" else "network", cases=2, thresholds=thresholds,
            clients=served.clients,
        )  # fmt: skip
        assert triton_verify(served.model, inputs=served.images, options=options).problems == ()


def test_a_wrong_model_is_found(served: Served) -> None:
    options = TritonVerifyOptions(name="wrong", cases=3, clients=served.clients)
    report = triton_verify(served.model, inputs=served.images, options=options)
    for protocol in ("http", "grpc"):
        of_network = [problem for problem in report.problems if f"wrong_network over {protocol}" in problem]
        assert any("logit difference" in problem for problem in of_network)
        of_pipeline = [problem for problem in report.problems if f"wrong_pipeline over {protocol}" in problem]
        assert any("Dice" in problem for problem in of_pipeline)


@pytest.mark.parametrize("place", [0, 1])
def test_bad_requests_are_rejected_and_the_server_stays(served: Served, place: int) -> None:
    with TritonClient.connect(served.clients[place]) as client:
        for inputs in (
            {"windows": np.zeros((1, 1, 16, 16), np.float32)},
            {"windows": np.zeros((9, 1, 16, 16, 16), np.float32)},
            {"volume": np.zeros((1, 1, 4, 4, 4), np.float32)},
        ):
            name = "right_pipeline" if "volume" in inputs else "right_network"
            with pytest.raises(TritonError) as problem:
                client.infer(InferenceRequest(model=name, inputs=inputs))
            assert problem.value.code == "E-TRITON-REQUEST"
        assert client.metadata("right_pipeline").is_pipeline


def test_probabilities_come_on_request(served: Served) -> None:
    image, _ = make_volumes((12, 12, 12))
    inputs = {"volume": image[None], "affine": np.eye(4)[None]}
    with TritonClient.connect(served.clients[1]) as client:
        asked = client.infer(
            InferenceRequest(model="right_pipeline", inputs=inputs, parameters={"probabilities": True})
        )
        plain = client.infer(InferenceRequest(model="right_pipeline", inputs=inputs))
    np.testing.assert_allclose(asked["probabilities"][0].sum(axis=0), 1, atol=1e-5)
    assert "probabilities" not in plain
    np.testing.assert_array_equal(asked["label"], plain["label"])


@pytest.mark.parametrize("shared_memory", ["none", "system"])
@pytest.mark.parametrize("kind", ["network", "pipeline"])
def test_a_benchmark_measures_client_and_server(served: Served, kind: str, shared_memory: str, tmp_path: Path) -> None:
    report = triton_benchmark(
        served.model,
        options=TritonBenchmarkOptions(
            name="right",
            kind=kind,
            client=served.clients[1],
            batch_sizes=(2,) if kind == "network" else None,
            clients=(2,),
            shared_memory=shared_memory,
            load=LoadOptions(warmup=1, window_s=0.5, max_windows=2),
        ),
    )
    assert [row.mode for row in report.rows] == (["offline", "online"] if kind == "network" else ["online"])
    for row in report.rows:
        assert row.requests > 0
        assert row.infer_ms > 0
        assert row.latency_ms.p50 <= row.latency_ms.p99
    files = write_benchmark(report, tmp_path / "b")
    assert [path.suffix for path in files] == [".json", ".csv", ".md", ".png"]
    assert all(path.stat().st_size for path in files)


def test_nothing_is_left_in_shared_memory() -> None:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        pytest.skip("this system has no /dev/shm")
    assert not list(folder.glob(f"decathlete-{os.getpid()}-*"))
