"""``triton verify`` passes on the right network and fails on a wrong one; lost connections are retried."""

from __future__ import annotations

import http.server
import sys
import sysconfig
import threading
from itertools import chain, count
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.errors import OptionError, TritonError
from decathlete.inference.predict import Predictor
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.serving.triton import backend_folder
from decathlete.serving.triton.benchmark import BenchmarkReport, TritonBenchmarkOptions, triton_benchmark
from decathlete.serving.triton.benchmark_files import to_markdown
from decathlete.serving.triton.client import TritonClient
from decathlete.serving.triton.installed_server import ServerInstallation
from decathlete.serving.triton.load import ClosedLoop, LoadOptions
from decathlete.serving.triton.pipeline_model import image_of, report_of
from decathlete.serving.triton.protocol import ClientOptions, InferenceRequest
from decathlete.serving.triton.server import TritonServerOptions, read_configs, server_environment
from decathlete.serving.triton.verify import Thresholds, TritonVerifyOptions, VerificationReport, triton_verify
from factories import make_test_plan, make_volumes
from guards import HANG_S
from triton_support import Compute, fake_server

pytest.importorskip("tritonclient.http")
PLAN = make_test_plan(3)


def network(seed: int) -> Compute:
    net = build_network(PLAN.network, seed=seed).eval()

    def compute(windows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return net(torch.from_numpy(windows.copy())).numpy()

    return compute


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for number in range(2):
        image, _ = make_volumes((14 + number, 18, 20), seed=number)
        (tmp_path / "images").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(image[0].T, np.eye(4)), tmp_path / "images" / f"c{number}.nii.gz")
    networks = [build_network(PLAN.network, seed=0)]
    return ModelBundle.save(tmp_path / "m", TrainedMember(plan=PLAN, networks=networks)).folder


def verify(model: Path, address: str, *more: str):
    images = model.parent / "images"
    arguments = ["--http", address, "--protocol", "http", "--models", "network", "--input", str(images), *more]
    return CliRunner().invoke(app, ["triton", "verify", str(model), *arguments])


def test_the_right_network_passes_and_is_dumped(model: Path, tmp_path: Path) -> None:
    with fake_server(network(0), fail_first=2) as address:
        done = verify(model, address, "--dump", str(tmp_path / "dump"))
    assert done.exit_code == 0, done.output
    assert "Test_network" in done.output
    assert "0 of" in done.output
    with np.load(sorted((tmp_path / "dump" / "Test_network" / "http" / "c0").iterdir())[0]) as first:
        np.testing.assert_allclose(first["model"], first["server"], atol=1e-4)


@pytest.mark.parametrize("content", [b"<html>", b"{}", b"[]"])
def test_another_program_at_the_address_is_no_triton(model: Path, content: bytes) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        done = verify(model, f"127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
    assert isinstance(done.exception, TritonError)
    assert done.exception.code == "E-TRITON-SERVER"
    assert "not one of Triton Inference Server" in str(done.exception)


def test_a_wrong_network_fails(model: Path) -> None:
    with fake_server(network(7)) as address:
        done = verify(model, address)
    assert isinstance(done.exception, TritonError)
    assert done.exception.code == "E-TRITON-VERIFY"
    assert "logit difference" in str(done.exception)
    assert "Dice of c1" in str(done.exception)


def test_a_module_that_a_server_names_is_not_imported(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_a_stranger.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(TritonClient, "parameters", lambda *_: {"engine": "of_a_stranger:Engine"})
    with fake_server(network(0)) as address:
        done = verify(model, address, "--models", "pipeline", "--retries", "0")
    assert isinstance(done.exception, OptionError), done.exception
    assert "is not imported here" in str(done.exception)
    assert not (tmp_path / "ran").exists()


def test_of_many_problems_the_first_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = VerificationReport(thresholds=Thresholds(), models=(), problems=tuple(f"p{n}" for n in range(100)))
    monkeypatch.setattr("decathlete.serving.triton.verify.triton_verify", lambda *_, **__: report)
    done = CliRunner().invoke(app, ["triton", "verify", str(tmp_path), "--json"])
    assert "p0\n" in str(done.exception)
    assert "p99" not in str(done.exception)
    assert "and 88 more" in str(done.exception)
    assert '"p99"' in done.stdout


def test_no_server_and_a_missing_model_are_named(model: Path) -> None:
    with fake_server(network(0)) as address:
        done = verify(model, address, "--retries", "0")
        with TritonClient.connect(ClientOptions(protocol="http", address=address)) as client:
            with pytest.raises(TritonError, match="unknown model") as rejected:
                client.metadata("other")
            assert rejected.value.code == "E-TRITON-REQUEST"
    assert done.exit_code == 0
    done = verify(model, address, "--retries", "0")
    assert isinstance(done.exception, TritonError)
    assert done.exception.code == "E-TRITON-SERVER"


def test_answers_come_in_the_order_of_the_requests() -> None:
    windows = [np.full((1, 1, 2, 2, 2), value, np.float32) for value in range(20)]
    requests = [InferenceRequest(model="a_network", inputs={"windows": value}) for value in windows]
    with (
        fake_server(lambda values: values + 1) as address,
        TritonClient.connect(ClientOptions(protocol="http", address=address, at_once=3)) as client,
    ):
        answers = [outputs["logits"].flat[0] for outputs in client.infer_all(requests)]
    assert answers == [value + 1 for value in range(20)]


class PipelineOfPredictor(TritonClient):
    """Computes a pipeline here; each answer waits until as many requests as allowed are under way."""

    module_name = "tritonclient.http"

    def __init__(self, options: ClientOptions, predictor: Predictor) -> None:
        super().__init__(options)
        self._predictor, self._lock = predictor, threading.Lock()
        self._all_under_way = threading.Barrier(options.at_once, timeout=HANG_S)

    def _infer(self, request: InferenceRequest) -> dict[str, np.ndarray]:
        self._all_under_way.wait()
        image = image_of(request.inputs["volume"][0], request.inputs["affine"][0])
        with self._lock:
            prediction = self._predictor.predict(image.array_CZYX, geometry=image.geometry)
        report = np.frombuffer(report_of(prediction).encode(), np.uint8)
        outputs = {"label": prediction.label_ZYX, "label_affine": request.inputs["affine"][0], "report": report}
        return {name: value[None] for name, value in outputs.items()}

    def _config(self, model: str) -> dict[str, Any]:
        return {"parameters": {"engine": {"string_value": "torch"}}}

    def close(self) -> None:
        pass

    _metadata = _statistics = _register = _unregister = _config  # not asked


def test_several_images_are_under_way_at_a_time(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, they would wait for each other until the time limit."""
    predictor = Predictor.load(model, engine="torch", precision="fp32", device="cpu")
    monkeypatch.setattr(TritonClient, "connect", lambda options: PipelineOfPredictor(options, predictor))
    for number in (2, 3):
        image, _ = make_volumes((13, 16 + number, 18), seed=number)
        nibabel.save(nibabel.Nifti1Image(image[0].T, np.eye(4)), tmp_path / "images" / f"c{number}.nii.gz")
    options = TritonVerifyOptions(models="pipeline", clients=(ClientOptions(at_once=2),), dump=tmp_path / "dump")
    done: list[str] = []
    report = triton_verify(
        model, inputs=tmp_path / "images", options=options, progress=lambda _, __, case_id: done.append(case_id)
    )
    assert report.problems == ()
    assert done == ["c0", "c1", "c2", "c3"]
    for case_id in done:
        with np.load(tmp_path / "dump" / "Test_pipeline" / "grpc" / case_id / "case.npz") as case:
            np.testing.assert_array_equal(case["label"], case["served_label"])


def spent(inferences: int, seconds: float) -> dict[str, Any]:
    return {
        "inference_count": inferences,
        "execution_count": inferences,
        "inference_stats": {"compute_infer": {"ns": round(1e9 * seconds)}},
    }


def benchmark(model: Path, **server: Any) -> BenchmarkReport:
    """Measure against a server whose first window, which does not count, had 1000 inferences of 1 s."""
    statistics = chain([spent(0, 0.0)], (spent(1000 + n, 1000 + 0.001 * n) for n in count()))
    load = LoadOptions(warmup=1, window_s=0.01, stability=-1.0, max_windows=4)
    with fake_server(network(0), statistics=statistics, **server) as address:
        client = ClientOptions(protocol="http", address=address)
        options = TritonBenchmarkOptions(client=client, batch_sizes=(1,), clients=(), load=load)
        return triton_benchmark(model, options=options)


def test_all_figures_of_a_row_are_of_the_same_windows(model: Path) -> None:
    (row,) = benchmark(model).rows
    assert row.infer_ms == pytest.approx(1.0)
    assert row.mean_batch == 1


def test_published_figures_are_beside_those_of_a_server_with_a_gpu(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = benchmark(model, kind="KIND_GPU")
    lines = to_markdown(report).splitlines()
    measured = f"{report.rows[0].inferences_per_s:.4g}"
    assert f"| this server | 1 x 16 x 16 x 16 | {measured} | - | - |" in lines
    assert "| A100, FP16 | 4 x 128 x 128 x 128 | 26.1 | 38 | 48.8 |" in lines
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a GPU of the client computes nothing
    assert "A100" not in to_markdown(benchmark(model))


def test_load_is_measured_until_the_windows_are_over() -> None:
    sent: list[int] = []
    options = LoadOptions(warmup=1, window_s=0.01, stability=-1.0, max_windows=4)  # never stable
    found = ClosedLoop([lambda: sent.append(0), lambda: sent.append(1)]).measure(options)
    assert {*sent} == {0, 1}
    assert found.requests_per_s > 0
    assert not found.stable

    def fail() -> None:
        raise TritonError("gone")

    with pytest.raises(TritonError, match="gone"):
        ClosedLoop([fail]).measure(options)


def test_a_server_is_not_started_with_options_that_do_not_fit(tmp_path: Path) -> None:
    for options in ({"load": ("a",)}, {"control": "explicit"}, {"http_port": 8001}):
        with pytest.raises(OptionError):
            TritonServerOptions(**options)
    done = CliRunner().invoke(app, ["triton", "start", str(tmp_path), "--server", str(tmp_path)])
    assert isinstance(done.exception, TritonError)
    assert done.exception.code == "E-TRITON-MISSING"
    with pytest.raises(Exception, match="not a model repository"):
        read_configs(tmp_path)


def test_the_server_finds_python_and_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    (tmp_path / f"libpython{version}.so.1.0").touch()
    monkeypatch.setattr(sysconfig, "get_config_var", {"LIBDIR": str(tmp_path)}.get)
    wheel = ServerInstallation(program=tmp_path, backends=tmp_path, libraries=tmp_path / "libs", stubs=tmp_path)
    given = {"PATH": "/bin", "LD_LIBRARY_PATH": "/opt/lib"}
    found = server_environment(wheel, given)
    assert found["PATH"] == f"{Path(sys.prefix) / 'bin'}:/bin"
    assert found["LD_LIBRARY_PATH"] == f"{tmp_path / 'libs'}:{tmp_path}:/opt/lib"
    assert server_environment(ServerInstallation(program=tmp_path, backends=tmp_path), given) == given
    monkeypatch.setattr(sysconfig, "get_config_var", {"LIBDIR": str(tmp_path / "none")}.get)
    monkeypatch.setattr(backend_folder, "find_library", lambda _: None)
    with pytest.raises(TritonError, match="shared library of Python"):
        server_environment(wheel, given)
