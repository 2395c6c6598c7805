"""What a CUDA device does otherwise than a CPU. With ``cpu`` the tests themselves are tested where there is no GPU."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decathlete.benchmarking.options import BenchmarkOptions
from decathlete.benchmarking.run import benchmark
from decathlete.core.parallel import Outcome
from decathlete.core.sliding_window import SlidingWindow
from decathlete.errors import InterruptedRunError
from decathlete.inference.batching.cases import predict_cases
from decathlete.inference.batching.shared_batches import CaseRequest
from decathlete.inference.engines.torch import TorchEngine
from decathlete.inference.options import PredictOptions
from decathlete.inference.output.probabilities import ProbabilityArray
from decathlete.inference.predict import Predictor
from decathlete.inference.sources import as_image
from decathlete.inference.windows.sweep import predict_logits
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.planning.options import PlanOptions
from decathlete.preprocessing.store import PreparedStore
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.training.loop.checkpoint import load_checkpoint
from decathlete.training.loop.module import SegmentationModule
from decathlete.training.objective.optimizer_steps import has_fused_unscaling
from decathlete.training.reporting.records import Logs
from decathlete.training.run import train
from decathlete.workflows.run import run
from decathlete.workflows.workspace import Workspace
from factories import make_test_plan, make_volumes
from training_support import NO_AUGMENTATION, KillAt, make_store, tiny_config

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two CUDA devices")

CUDA = pytest.param("cuda", marks=gpu)
DEVICES = ["cpu", CUDA]
ROUNDING = {"fp32": 2**-11, "fp16": 2**-11, "bf16": 2**-8}
"""Relative rounding error of a factor on CUDA; float32 is computed as TF32, which has 10 bits.

The networks of these tests have 5 layers with weights in series. Both factors of a product are rounded, so the standard
deviation of the logits' error is at most ``(2 * 5) ** 0.5`` = 3.2 roundings times that of the logits, and 10
roundings are more than three such deviations (a rounding error is on average only 0.6 of the largest one).
"""
STEPS = [("cpu", "fp32"), *(pytest.param("cuda", precision, marks=gpu) for precision in ("fp32", "bf16", "fp16"))]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> PreparedStore:
    return make_store(tmp_path_factory.mktemp("store"))


def one_step(store: PreparedStore, folder: Path, **changes: Any) -> dict[str, Any]:
    """Of plain gradient descent; the last checkpoint."""
    plain = {"optimizer": "sgd", "weight_decay": 0, "schedule": "none", "augmentation": NO_AUGMENTATION}
    if changes.get("optimizer", "sgd") == "sgd":
        plain["momentum"] = 0
    config = tiny_config(**(plain | {"epochs": 1, "steps_per_epoch": 1, "val_cases": 0} | changes))
    train(store, 0, folder, config)
    return load_checkpoint(folder / "checkpoints" / "last.ckpt")


# Prediction.


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dims", [2, 3])
def test_windows_equal_the_cpus(dims: int, device: str) -> None:
    plan = make_test_plan(dims)
    windows = torch.randn(2, len(plan.channels), *plan.patch_size, generator=torch.Generator().manual_seed(1))
    expected, found = (
        TorchEngine(build_network(plan.network, seed=1).eval(), device=where, precision="fp32")(windows).cpu()
        for where in ("cpu", device)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=10 * ROUNDING["fp32"] * float(expected.std()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dims", [2, 3])
def test_a_whole_volume_with_flips_equals_the_cpus(dims: int, device: str) -> None:
    plan = make_test_plan(dims)
    image_CZYX = torch.randn(1, 25, 20, 17, generator=torch.Generator().manual_seed(1))
    expected, found = (
        predict_logits(
            TorchEngine(build_network(plan.network, seed=1).eval(), device=where, precision="fp32"),
            image_CZYX,
            plan=plan,
            window=SlidingWindow(tta=True, batch_size=3),
            mirror_axes=tuple(range(dims)),
        ).cpu()
        for where in ("cpu", device)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=10 * ROUNDING["fp32"] * float(expected.std()))
    assert (found.argmax(0) == expected.argmax(0)).float().mean() > 0.99


@pytest.mark.parametrize("device", DEVICES)
def test_small_images_that_share_batches_equal_the_cpus_alone(device: str, tmp_path: Path) -> None:
    plan = make_test_plan(3)
    ModelBundle.save(tmp_path / "m", TrainedMember(plan=plan, networks=[build_network(plan.network, seed=1)]))
    images = [as_image(make_volumes((16 + 3 * i, 16, 12), seed=i)[0], spacing=(1.0, 1.0, 1.0)) for i in range(5)]
    found = []
    for where, n in ((device, 4), ("cpu", 1)):
        predictor = Predictor.load(tmp_path / "m", device=where, precision="fp32", engine="torch", batch_size=n)
        asked = [
            CaseRequest(prepared=predictor.prepare(image), payload=None, probabilities=ProbabilityArray)
            for image in images
        ]
        cases = [Outcome(case_id=str(i), value=case) for i, case in enumerate(asked)]
        answers = [outcome.value for group in predict_cases(predictor, cases) for outcome in group]
        found.append([answer[1].probabilities_KZYX for answer in answers if answer])
    assert len(found[0]) == len(images)
    for probabilities, expected in zip(*found, strict=True):
        # A probability changes by at most half of the change of a logit, and logits have a deviation of about 1.
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=10 * ROUNDING["fp32"] / 2)


# Training.


@pytest.mark.parametrize(("device", "precision"), STEPS)
def test_a_step_lowers_the_same_loss_by_a_like_gradient(store, tmp_path, device: str, precision: str) -> None:
    expected = one_step(store, tmp_path / "cpu")
    found = one_step(store, tmp_path / "device", device=device, precision=precision)
    loss = [Logs.load(tmp_path / name / "logs.json").epochs[0].train_loss for name in ("cpu", "device")]
    # The loss is a mean over voxels, whose errors partly cancel; 4 roundings are more than one deviation of a logit.
    assert loss[1] == pytest.approx(loss[0], rel=4 * ROUNDING[precision])
    start = build_network(store.plan.network, seed=1).state_dict()
    moved = [torch.cat([(c["network"][k] - start[k]).flatten() for k in start]) for c in (expected, found)]
    # 10 layers, forward and backward, make an error of 4.5 roundings of the gradient; sums of both signs make it up to
    # ten times as large. The cosine of the angle of a relative error e is 1 - e ** 2 / 2.
    assert torch.nn.functional.cosine_similarity(*moved, dim=0) > 1 - (45 * ROUNDING[precision]) ** 2 / 2


@pytest.mark.parametrize(("device", "precision"), STEPS)
def test_gradients_are_clipped_after_they_are_unscaled(store, tmp_path, device: str, precision: str) -> None:
    found = one_step(store, tmp_path / "run", device=device, precision=precision, gradient_clip=0.1)["network"]
    start = build_network(store.plan.network, seed=1).state_dict()
    moved = torch.stack([(found[k] - start[k]).square().sum() for k in start]).sum().sqrt()
    # Each of 5,000 weights below 0.25 is rounded by up to 2**-26, together 1e-6: 0.1 % of the way.
    assert float(moved) == pytest.approx(0.01 * 0.1, rel=1e-3)


@pytest.mark.parametrize(
    ("device", "deterministic", "optimizer"),
    [
        ("cpu", False, "adamw"),
        *(pytest.param("cuda", fixed, name, marks=gpu) for fixed in (False, True) for name in ("adamw", "adam", "sgd")),
    ],
)
def test_cudas_fast_ways_are_taken_while_training(
    store, tmp_path, monkeypatch, device: str, deterministic: bool, optimizer: str
) -> None:
    inner, seen = SegmentationModule.training_step, []

    def looking(self: SegmentationModule, batch: Any, batch_idx: int) -> None:
        precision, benchmark = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
        seen.append((has_fused_unscaling(self.optimizer), precision, benchmark))
        inner(self, batch, batch_idx)

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    monkeypatch.setattr(SegmentationModule, "training_step", looking)
    one_step(store, tmp_path / "run", device=device, optimizer=optimizer, deterministic=deterministic)
    assert seen == [(True, "high", not deterministic) if device == "cuda" else (False, *before)]
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark) == before


@gpu
@pytest.mark.skipif(torch.cuda.is_available() and torch.cuda.get_device_capability()[0] < 8, reason="no TF32")
def test_float32_on_cuda_is_tf32() -> None:
    image, kernel = torch.randn(1, 64, 24, 24, 24, device="cuda"), torch.nn.Conv3d(64, 64, 3).cuda().eval()
    exact = kernel.double()(image.double()).float()
    found = TorchEngine(kernel.float(), precision="fp32")(image)
    error = float((found - exact).abs().max() / exact.abs().max())
    # Sums of 1,728 products: the error of TF32 is about one rounding (5e-4), of float32 2**-24 * 1728 ** 0.5 (2.5e-6).
    assert 1e-4 < error < 2 * ROUNDING["fp32"]


@pytest.mark.parametrize("device", DEVICES)
def test_a_stopped_run_goes_on(store, tmp_path, device: str) -> None:
    config = tiny_config(device=device, augmentation=NO_AUGMENTATION, val_cases=0, deterministic=True)
    whole = train(store, 0, tmp_path / "whole", config)
    with pytest.raises(InterruptedRunError):
        train(store, 0, tmp_path / "parts", config, progress=KillAt(3, signal.SIGTERM))
    parts = train(store, 0, tmp_path / "parts", config, resume=True)
    ours, others = (ModelBundle.load(r.model).build().state_dict() for r in (parts, whole))
    for name in ours:
        torch.testing.assert_close(ours[name], others[name], rtol=0, atol=0 if device == "cpu" else 1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler, about torch
@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.full), CUDA])
def test_a_compiled_step_is_the_same_but_for_rounding(store, tmp_path, device: str) -> None:
    plain, compiled = (one_step(store, tmp_path / str(c), device=device, compile=c)["network"] for c in (False, True))
    assert plain.keys() == compiled.keys()
    for name in plain:
        torch.testing.assert_close(compiled[name], plain[name], rtol=0, atol=1e-3)


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.full), pytest.param("cuda", marks=two_gpus)])
def test_two_devices_train_as_one_with_twice_the_batch(store, tmp_path, device: str) -> None:
    one = one_step(store, tmp_path / "one", device=device, batch_size=2)["network"]
    two = one_step(store, tmp_path / "two", device=device, batch_size=1, devices=2)["network"]
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-4)


@two_gpus
@pytest.mark.parametrize("affinity", ["single_unique", "socket_unique_interleaved"])
def test_two_gpus_processes_are_bound_to_processors_of_their_own(affinity: Any) -> None:
    pytest.importorskip("pynvml")
    from decathlete.training.distributed.processors import choose_processors

    first, second = choose_processors(affinity, [0, 1])
    assert first
    assert second
    assert first.isdisjoint(second)
    assert first | second <= os.sched_getaffinity(0)


@gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
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


# Measuring.


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", ["train", "predict"])
def test_a_benchmark_knows_the_devices_time_memory_and_name(tmp_path: Path, mode: Any, device: str) -> None:
    on_cuda = device == "cuda"
    how: dict[str, Any] = {"amp": True} if on_cuda else {"precision": "fp32", "patch": (8, 8, 8)}
    narrow = PlanOptions(filters=(8, 16))
    options = BenchmarkOptions(mode=mode, task="04", plan=narrow, steps=5, device=device, profile=True, **how)
    result = benchmark(options, workspace=Workspace(results=tmp_path))
    record = result.record
    assert record.machine.gpus == ((torch.cuda.get_device_name(0),) if on_cuda else ())
    assert record.settings.precision == ("fp16" if on_cuda else "fp32")
    assert record.latency_ms.mean == pytest.approx(1e3 * sum(record.seconds[0]) / 5)
    assert result.trace is not None
    assert ('"kernel"' in result.trace.read_text()) == on_cuda
    if on_cuda:
        assert record.peak_memory.device_bytes is not None
        assert record.peak_memory.device_bytes > 2 * 40 * 56 * 40 * 8 * 2  # one feature map of the first stage
    else:
        assert record.peak_memory.device_bytes is None
