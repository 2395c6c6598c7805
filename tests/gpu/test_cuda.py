"""What only a CUDA device can show; skipped without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from decathlete.benchmarking.options import BenchmarkOptions
from decathlete.benchmarking.run import benchmark
from decathlete.dataset.phantoms import make_phantoms
from decathlete.inference.engines import TorchEngine
from decathlete.networks.build import build_network
from decathlete.planning.options import PlanOptions
from decathlete.workflows.run import run
from decathlete.workflows.validate import PredictOptions
from decathlete.workflows.workspace import Workspace
from factories import make_test_plan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("dims", [2, 3])
def test_windows_on_cuda_equal_the_cpu(dims: int) -> None:
    plan = make_test_plan(dims)
    network = build_network(plan.network, seed=1).eval()
    windows = torch.randn(2, len(plan.channels), *plan.patch_size, generator=torch.Generator().manual_seed(1))
    expected = TorchEngine(network, device=torch.device("cpu"), precision="fp32")(windows)
    network = build_network(plan.network, seed=1).eval()
    found = TorchEngine(network, device=torch.device("cuda"), precision="fp32")(windows)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_on_cuda_learns(tmp_path: Path, precision: str) -> None:
    from decathlete.training.config import TrainConfig

    data = make_phantoms(tmp_path / "data" / "Task01_Balls", n_cases=6)
    result = run(
        data,
        workspace=Workspace(data=tmp_path / "data", prepared=tmp_path / "prepared", results=tmp_path / "results"),
        plan_options=PlanOptions(overrides=("network.features=8,16,32",)),
        config=TrainConfig(epochs=2, steps_per_epoch=50, device="cuda", precision=precision, loggers=()),
        predict_options=PredictOptions(device="cuda"),
    )
    assert result.scores.headline.dice > 0.6


@pytest.mark.parametrize("mode", ["train", "predict"])
def test_a_benchmark_on_cuda_knows_the_devices_time_memory_and_name(tmp_path: Path, mode: Any) -> None:
    narrow = PlanOptions(filters=(8, 16))
    options = BenchmarkOptions(mode=mode, task="04", plan=narrow, steps=5, amp=True, device="cuda", profile=True)
    result = benchmark(options, workspace=Workspace(results=tmp_path))
    record = result.record
    assert record.machine.gpus == (torch.cuda.get_device_name(0),)
    assert record.settings.precision == "fp16"
    assert record.peak_memory.device_bytes is not None
    assert record.peak_memory.device_bytes > 2 * 40 * 56 * 40 * 8 * 2  # one feature map of the first stage
    assert record.latency_ms.mean == pytest.approx(1e3 * sum(record.seconds[0]) / 5)
    assert result.trace is not None
    assert '"kernel"' in result.trace.read_text()
