"""What a benchmark measures, writes and refuses; on sizes that take a moment."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from decathlete.benchmarking.instruments import PeakMemory, Stopwatch
from decathlete.benchmarking.options import BenchmarkOptions
from decathlete.benchmarking.random_plan import find_task_setting, make_random_plan
from decathlete.benchmarking.record import BenchmarkRecord, combine_memory, sum_throughput
from decathlete.benchmarking.run import benchmark, create_unique_file, make_benchmark_plan
from decathlete.benchmarking.task import Measurement
from decathlete.core.latency import Latency
from decathlete.core.sliding_window import SlidingWindow
from decathlete.errors import OptionError
from decathlete.planning.options import PlanOptions
from decathlete.workflows.workspace import Workspace
from guards import HANG_S
from training_support import SimulatedClock, make_store

CPU = torch.device("cpu")


def tiny(mode: Any, dims: Any = 3, **changes: Any) -> BenchmarkOptions:
    """A network of two levels, two channels wide, on patches of 8 voxels a side."""
    values: dict[str, Any] = {
        "task": "04",
        "patch": (8,) * dims,
        "plan": PlanOptions(filters=(2, 4)),
        "batch_size": 2,
        "warmup": 1,
        "steps": 3,
        "precision": "fp32",
        "device": "cpu",
    }
    return BenchmarkOptions(mode=mode, dims=dims, **(values | changes))


def test_percentiles_of_made_up_times() -> None:
    seconds = [i / 1000 for i in range(1, 102)]  # 1 to 101 ms: n % of them are at or below n + 1
    latency = Latency.from_seconds(seconds[::-1])
    assert latency.mean == pytest.approx(51)
    assert (latency.p50, latency.p90, latency.p95, latency.p99) == pytest.approx((51, 91, 96, 100))


def _measured(seconds: tuple[float, ...], **changes: Any) -> Measurement:
    values: dict[str, Any] = {
        "rss_bytes": 10,
        "device_bytes": None,
        "threads": 1,
        "precision": "fp32",
        "layout": "channels_first",
    }
    return Measurement(seconds=seconds, images=6, voxels=600, **(values | changes))


def test_processes_add_up() -> None:
    reports = [_measured((1.0, 2.0), device_bytes=5), _measured((3.0, 3.0), device_bytes=7)]
    assert sum_throughput(reports).images_per_s == pytest.approx(6 / 3 + 6 / 6)
    assert sum_throughput(reports).voxels_per_s == pytest.approx(600 / 3 + 600 / 6)
    assert (combine_memory(reports).rss_bytes, combine_memory(reports).device_bytes) == (20, 7)
    assert combine_memory([_measured((1.0,))]).device_bytes is None


def test_the_stopwatch_counts_laps_and_not_what_is_between_them() -> None:
    clock = SimulatedClock()
    watch = Stopwatch(CPU, clock=clock)
    for lap in (0.5, 2.0):
        watch.start()
        clock.now_s += lap
        watch.stop()
        clock.now_s += 10.0
    assert watch.seconds == [0.5, 2.0]


def test_memory_that_is_given_back_still_counts() -> None:
    amounts, seen = iter([10, 70, 30]), threading.Event()

    def resident_bytes() -> int:
        """Rises and falls; says when the fall was seen."""
        amount = next(amounts, 20)
        if amount == 20:
            seen.set()
        return amount

    memory = PeakMemory(CPU, resident_bytes=resident_bytes)
    memory.start()
    assert seen.wait(HANG_S)
    assert memory.stop().rss_bytes == 70


CHANNELS_CLASSES = dict(enumerate(["44", "12", "13", "13", "23", "12", "13", "13", "12", "12", "44", "44"], start=1))
"""Of each task: channels of its images, and classes with the background."""


@pytest.mark.parametrize("number", CHANNELS_CLASSES)
@pytest.mark.parametrize("dims", [2, 3])
def test_fixed_patches_are_kept_as_they_are(number: int, dims: Any) -> None:
    fixed = find_task_setting(f"{number:02}")
    assert fixed.number == number
    patch = fixed.patch_3d if dims == 3 else fixed.patch_2d
    if patch is None:
        with pytest.raises(OptionError, match="no fixed 2D patch size"):
            make_random_plan(f"{number:02}", dims)
        return
    plan = make_random_plan(f"{number:02}", dims)
    assert plan.patch_size == patch
    assert f"{plan.network.in_channels}{plan.network.out_channels}" == CHANNELS_CLASSES[number]
    assert plan.batch_size == (2 if dims == 3 else 16)


def test_width_and_depth_are_the_planners() -> None:
    full = make_random_plan("04", 3).network
    shaping = PlanOptions(filters=(4, 8, 16), deep_supervision=False, overrides=("network.norm=batch",))
    plan = make_benchmark_plan(BenchmarkOptions(mode="train", task="Task04_Hippocampus", plan=shaping))
    assert plan.network.features == (4, 8, 16)
    assert plan.network.strides == full.strides[:3]
    assert (plan.network.heads, plan.network.norm) == (1, "batch")
    shaping = PlanOptions(depth=1, filters=(4, 8, 16))
    network = make_benchmark_plan(BenchmarkOptions(mode="train", patch=(24, 24, 24), plan=shaping)).network
    assert network.features == (4, 8)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("mode", ["train", "predict"])
def test_a_record_says_what_was_measured_and_comes_back(tmp_path: Path, mode: Any, dims: Any) -> None:
    result = benchmark(tiny(mode, dims), workspace=Workspace(results=tmp_path))
    record = BenchmarkRecord.load(result.path)
    assert record == result.record
    assert result.path.parent == tmp_path / "benchmarks"
    assert [len(seconds) for seconds in record.seconds] == [3]
    total = sum(record.seconds[0])
    assert record.throughput.images_per_s == pytest.approx(6 / total)
    assert record.throughput.voxels_per_s == pytest.approx(6 * 8**dims / total)
    assert record.latency_ms.mean == pytest.approx(1e3 * total / 3)
    assert record.peak_memory.rss_bytes > 0
    assert record.settings.patch_size == (8,) * dims
    assert record.settings.precision == "fp32"
    assert record.machine.cpu
    assert record.versions.torch == torch.__version__
    assert "images" not in record.lines()
    assert "latency" in record.lines()


def test_training_steps_are_those_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward, loss of every head, backward, optimizer and average: the network learns its random batch by heart."""
    from decathlete.training.objective.deep_supervision import DeepSupervision
    from decathlete.training.objective.ema import EMA

    losses, averages = [], []
    forward, update = DeepSupervision.forward, EMA.update

    def loss_of(self: Any, outputs: Any, label_B: Any) -> Any:
        loss = forward(self, outputs, label_B)
        losses.append(loss.item())
        return loss

    def average(self: Any, network: Any, decay: float) -> None:
        update(self, network, decay)
        averages.append(decay)

    monkeypatch.setattr(DeepSupervision, "forward", loss_of)
    monkeypatch.setattr(EMA, "update", average)
    benchmark(
        tiny("train", 2, plan=PlanOptions(filters=(8, 16)), steps=30, batch_size=1),
        workspace=Workspace(results=tmp_path),
    )
    assert len(losses) == len(averages) == 31
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])


def test_augmented_random_patches_are_measured_too(tmp_path: Path) -> None:
    result = benchmark(tiny("train", augment=True, steps=6), workspace=Workspace(results=tmp_path))
    assert result.record.settings.augment


def test_settings_of_the_window_have_ranges_and_an_effect() -> None:
    with pytest.raises(ValidationError, match="overlap"):
        tiny("predict", window=SlidingWindow(overlap=1.5))
    with pytest.raises(OptionError, match="of the window have no effect"):
        tiny("predict", window=SlidingWindow(batch_size=3))
    with pytest.raises(OptionError, match="tta have an effect only in mode predict"):
        tiny("train", window=SlidingWindow(tta=True))


def test_volumes_are_counted_one_by_one(tmp_path: Path) -> None:
    options = tiny("predict", volumes=True, shape=(10, 12, 9), steps=2, window=SlidingWindow(tta=True))
    record = benchmark(options, workspace=Workspace(results=tmp_path)).record
    total = sum(record.seconds[0])
    assert record.throughput.images_per_s == pytest.approx(2 / total)
    assert record.throughput.voxels_per_s == pytest.approx(2 * 10 * 12 * 9 / total)
    assert record.settings.volume_shape == (10, 12, 9)


@pytest.mark.parametrize("changes", [{"mode": "train"}, {"mode": "predict"}, {"mode": "predict", "volumes": True}])
def test_prepared_data_are_measured(tmp_path: Path, changes: dict[str, Any]) -> None:
    raw = tmp_path / "data" / "Task04_Test"
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "dataset.json").write_text("{}")
    make_store(tmp_path / "prepared" / "Task04_Test" / "3d")
    workspace = Workspace(data=tmp_path / "data", prepared=tmp_path / "prepared", results=tmp_path / "results")
    options = tiny(real=True, patch=None, plan=PlanOptions(), batch_size=None, **changes)
    record = benchmark(options, workspace=workspace).record
    assert (record.settings.data, record.settings.dataset) == ("prepared", "Test")
    assert (record.settings.patch_size, record.settings.batch_size) == ((16, 16, 16), 2)


@pytest.mark.parametrize("mode", ["train", "predict"])
def test_the_profilers_trace_can_be_read(tmp_path: Path, mode: Any) -> None:
    result = benchmark(tiny(mode, 2, profile=True), workspace=Workspace(results=tmp_path))
    assert result.trace is not None
    assert result.record.trace == result.trace.name
    assert result.trace.parent == result.path.parent
    events = json.loads(result.trace.read_text())["traceEvents"]
    names = {event["name"] for event in events}
    assert "aten::conv2d" in names
    assert any("Backward" in name for name in names) == (mode == "train")


@pytest.mark.full
@pytest.mark.parametrize("mode", ["train", "predict"])
def test_two_processes_are_measured_together(tmp_path: Path, mode: Any) -> None:
    record = benchmark(tiny(mode, devices=2), workspace=Workspace(results=tmp_path)).record
    assert [len(seconds) for seconds in record.seconds] == [3, 3]
    assert record.throughput.images_per_s == pytest.approx(sum(6 / sum(s) for s in record.seconds))


@pytest.mark.parametrize("mode", ["train", "predict"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_the_layout_asked_for_is_that_of_the_feature_maps(tmp_path: Path, mode: Any, layout: Any) -> None:
    record = benchmark(tiny(mode, 2, layout=layout), workspace=Workspace(results=tmp_path)).record
    assert record.settings.layout == layout


def test_amp_is_bf16_on_a_processor(tmp_path: Path) -> None:
    record = benchmark(tiny("predict", amp=True, precision="auto"), workspace=Workspace(results=tmp_path)).record
    assert record.settings.precision == "bf16"


def test_no_record_takes_the_place_of_another(tmp_path: Path) -> None:
    paths = [create_unique_file(tmp_path, "same") for _ in range(3)]
    assert [path.name for path in paths] == ["same.json", "same-2.json", "same-3.json"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mode": "train", "volumes": True}, "mode predict"),
        ({"mode": "predict", "augment": True}, "only in mode train"),
        ({"mode": "train", "amp": True}, "not both"),
        ({"mode": "predict", "shape": (9, 9, 9)}, "with volumes"),
        ({"mode": "train", "patch": (8, 8)}, "3 positive numbers"),
        ({"mode": "train", "steps": 0, "warmup": 0}, "2 problems"),
        ({"mode": "train", "real": True}, "no effect with real data"),
        ({"mode": "rest"}, "train or predict"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        tiny(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "13"}, "--real"),
        ({"patch": (9, 8, 8)}, "multiple of"),
        ({"plan": PlanOptions(overrides=("batch_size=3",))}, "contradict"),
    ],
)
def test_plans_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        make_benchmark_plan(tiny("train", **changes))


def test_fp16_is_not_for_processors(tmp_path: Path) -> None:
    for mode in ("train", "predict"):
        with pytest.raises(OptionError, match="fp16"):
            benchmark(tiny(mode, precision="fp16"), workspace=Workspace(results=tmp_path))
    assert list((tmp_path / "benchmarks").iterdir()) == []
