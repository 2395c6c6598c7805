"""A real Triton Inference Server: it serves what ``export triton`` wrote, and a wrong model is found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest

from decathlete.errors import DecathleteError, TritonError
from decathlete.export.triton_options import TritonSettings
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.serving.triton.benchmark import TritonBenchmarkOptions, triton_benchmark
from decathlete.serving.triton.benchmark_files import write_benchmark
from decathlete.serving.triton.client import ClientOptions, InferenceRequest, TritonClient
from decathlete.serving.triton.installed_server import find_server
from decathlete.serving.triton.load import LoadOptions
from decathlete.serving.triton.server import (
    TritonServerOptions,
    free_ports,
    running_server,
    wait_until_ready,
)
from decathlete.serving.triton.verify import TritonVerifyOptions, triton_verify
from decathlete.workflows.export_triton import export_triton
from factories import make_oblique_geometry, make_test_plan, make_volumes

pytestmark = pytest.mark.full
PLAN = make_test_plan(3)
XYZ = [2, 1, 0, 3]


@dataclass(frozen=True)
class Served:
    model: Path
    images: Path
    clients: tuple[ClientOptions, ...]


def save_model(folder: Path, seed: int) -> Path:
    networks = [build_network(PLAN.network, seed=seed)]
    return ModelBundle.save(folder, TrainedMember(plan=PLAN, networks=networks)).folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("triton")
    try:
        server = find_server(Path(os.environ.get("DECATHLETE_TRITON", ".venv-triton")))
    except DecathleteError as problem:
        pytest.skip(problem.problem)
    model, wrong = save_model(folder / "m", 0), save_model(folder / "wrong", 9)
    repository = folder / "repository"
    settings = TritonSettings(name="right", engine="torch", warmup=1, preferred_batch_sizes=(2, 4))
    export_triton(model, repository, settings=settings)
    script = TritonSettings(name="script", models="network", format="torchscript-script", dynamic_shapes=True)
    export_triton(model, repository, settings=script)
    export_triton(wrong, repository, settings=TritonSettings(name="wrong", models="network", format="openvino"))
    images = folder / "images"
    images.mkdir()
    for number, shape in enumerate([(14, 18, 20), (17, 16, 15)]):
        image, _ = make_volumes(shape, seed=number)
        affine = make_oblique_geometry(shape, (1.2, 0.9, 0.9)).matrix[:, XYZ]
        nibabel.save(nibabel.Nifti1Image(image[0].T, affine), images / f"c{number}.nii.gz")
    http, grpc, metrics = free_ports(3)
    options = TritonServerOptions(http_port=http, grpc_port=grpc, metrics_port=metrics)
    with running_server(
        repository, options=options, server=server, environment=os.environ, log=folder / "log"
    ) as process:
        wait_until_ready(process, options, timeout_s=900)
        clients = (
            ClientOptions(protocol="http", address=f"127.0.0.1:{http}"),
            ClientOptions(protocol="grpc", address=f"127.0.0.1:{grpc}"),
        )
        yield Served(model, images, clients)


@pytest.mark.parametrize("name", ["right", "script"])
@pytest.mark.parametrize("send", ["volume", "file"])
def test_the_server_computes_what_the_model_computes(served: Served, name: str, send: str) -> None:
    models = "both" if name == "right" else "network"
    options = TritonVerifyOptions(name=name, models=models, send_as=send, clients=served.clients)
    report = triton_verify(served.model, inputs=served.images, options=options)
    assert report.problems == ()
    assert len(report.models) == (4 if name == "right" else 2)


def test_a_wrong_model_is_found(served: Served) -> None:
    options = TritonVerifyOptions(name="wrong", models="network", clients=served.clients)
    report = triton_verify(served.model, inputs=served.images, options=options)
    assert any("logit difference" in problem for problem in report.problems)


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


@pytest.mark.parametrize("shared_memory", [False, True])
@pytest.mark.parametrize("kind", ["network", "pipeline"])
def test_a_benchmark_measures_client_and_server(served: Served, kind: str, shared_memory: bool, tmp_path: Path) -> None:
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
