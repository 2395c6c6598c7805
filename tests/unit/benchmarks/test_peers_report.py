"""The harness that compares with peers: rounds, tables and records, on workloads made up here."""

import contextlib
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from benchmark_support import BENCHMARKS, importable

NAMES = sorted(path.stem for path in (BENCHMARKS / "peers" / "workloads").glob("[a-z]*.py"))


@pytest.fixture(autouse=True)
def peers():
    """Its modules."""
    with importable("peers"):
        yield


def outcome(name, *amounts, failure=None, **notes):
    from rounds import Outcome

    return Outcome(contender=name, amounts=amounts, notes=notes, peak_bytes=2**30, failure=failure)


def workload(*, lower_is_better):
    from workload import Workload

    return Workload(name="sleep", title="Sleeping", unit="s", lower_is_better=lower_is_better, sizes={}, contenders=())


def rows(text):
    return {
        cells[0]: cells[1:]
        for line in text.splitlines()
        if line.startswith("| ") and (cells := [cell.strip() for cell in line.strip("|").split("|")])
    }


def test_ratios_are_of_medians_and_say_how_much_better_ours_is():
    from report import markdown

    outcomes = [outcome("ours", 1.0, 9.0, 2.0), outcome("theirs", 8.0, 6.0, 5.0, Dice=0.5)]
    slower = rows(markdown(workload(lower_is_better=True), {}, outcomes, []))
    assert slower["ours"] == ["2", "1 to 9", "", "1.00 GiB", ""]
    assert slower["theirs"] == ["6", "5 to 8", "3.00 x", "1.00 GiB", "Dice 0.5"]
    assert rows(markdown(workload(lower_is_better=False), {}, outcomes, []))["theirs"][2] == "0.33 x"


def test_there_is_no_ratio_to_nothing():
    from report import markdown

    outcomes = [outcome("ours", 0.0), outcome("theirs", 0.0)]
    for lower in (True, False):
        assert rows(markdown(workload(lower_is_better=lower), {}, outcomes, []))["theirs"][:3] == ["0", "0 to 0", ""]


def test_a_contender_that_failed_has_its_reason_in_the_table():
    from report import markdown

    text = markdown(
        workload(lower_is_better=True), {}, [outcome("ours", 1.0), outcome("b", failure="x\nout of memory")], []
    )
    assert rows(text)["b"] == ["failed", "", "", "", "out of memory"]


def test_a_contender_that_failed_later_keeps_its_figures_and_says_so():
    from report import markdown

    text = markdown(workload(lower_is_better=True), {}, [outcome("ours", 1.0, failure="killed", Dice=0.5)], [])
    assert rows(text)["ours"][-1] == "Dice 0.5, failed after 1 round(s)"


def test_more_cases_than_there_are_are_refused(tmp_path):
    """Else rates would be counted by cases that nobody computed."""
    from workloads._nnunet import first_cases

    training = [{"image": f"./imagesTr/{name}.nii.gz"} for name in "ba"]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": training}))
    assert first_cases(tmp_path, 1) == ["a.nii.gz"]
    with pytest.raises(ValueError, match="has 2 cases, not 3"):
        first_cases(tmp_path, 3)


class SlowStart:
    """A trainer of nnU-Net's whose first step waits for its loaders; it has a clock of its own."""

    def __init__(self):
        self.now, self.dataloader_train, self.dataloader_val = 0.0, iter(int, 1), iter(int, 1)
        self.num_iterations_per_epoch, self.n_epochs, self.initial_lr = 25, 0, 0.01
        self.optimizer = SimpleNamespace(param_groups=[{"lr": 0.01}])
        self.rates = []

    def train_step(self, batch):
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        self.now += 1 if self.now else 10

    def on_epoch_end(self):
        self.n_epochs += 1

    def __getattr__(self, name):
        return lambda *args: None


@pytest.mark.parametrize(("seconds", "epochs"), [(100, 4), (20, 1)])
def test_nnunets_schedule_ends_with_the_budget_whatever_the_first_step_waits(seconds, epochs, monkeypatch):
    from workloads import dice

    trainer = SlowStart()
    monkeypatch.setattr(dice.time, "perf_counter", lambda: trainer.now)
    monkeypatch.setattr(dice, "torch_no_grad", lambda: contextlib.nullcontext())
    assert dice.train_within(trainer, seconds) == len(trainer.rates) == seconds - 9
    assert trainer.n_epochs == epochs
    assert trainer.rates[0] == 0.01
    assert trainer.rates[-1] == pytest.approx(0.01 * (1 / seconds) ** 0.9)
    assert trainer.rates == sorted(trainer.rates, reverse=True)


def test_the_record_names_machine_versions_and_work():
    from report import record

    text = record(
        workload(lower_is_better=True),
        {"cases": 3},
        [outcome("ours", 1.0)],
        ["they agree"],
        pythons={"ours": Path(sys.executable)},
        cores=[0],
    )
    content = json.loads(text)
    assert content["work"] == {"cases": 3}
    assert "1 core" in content["machine"]
    assert {"python", "torch", "numpy"} <= content["versions"]["ours"].keys()
    assert content["outcomes"][0]["amounts"] == [1.0]


def test_records_do_not_tell_where_folders_of_this_machine_lie():
    from report import public

    work = {"data": "/home/me/data", "model": "/home/me/models/hippocampus", "patch": (4, 4), "dataset": "Task04"}
    assert public(work) == {"model": "hippocampus", "patch": (4, 4), "dataset": "Task04"}


@pytest.mark.parametrize("name", NAMES)
def test_every_workload_has_a_small_size_and_ours_first(name):
    import importlib

    found = importlib.import_module(f"workloads.{name}").WORKLOAD
    assert found.name == name
    assert "small" in found.sizes
    assert found.contenders[0].name == "ours"
    assert found.contenders[0].environment == "ours"


CRASHES = """
import os, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_crash_leaves_no_workers_behind_and_is_not_waited_for(tmp_path):
    from common.processes import WorkFailed, run_alone

    (tmp_path / "work.py").write_text(CRASHES)
    with pytest.raises(WorkFailed, match="ended by signal 9") as caught:
        run_alone(tmp_path / "work.py", {}, python=Path(sys.executable), cores=[0])
    child = int(str(caught.value).split()[1])
    deadline = time.monotonic() + 30
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_contenders_play_in_turn_in_processes_of_their_own(tmp_path):
    """The one workload that needs no peers: resampling, by us alone."""
    import importlib

    from rounds import play

    found = importlib.import_module("workloads.resample").WORKLOAD
    (ours,) = play(
        found,
        found.sizes["small"],
        tmp_path,
        rounds=2,
        pythons={"ours": Path(sys.executable), "peers": Path("/nowhere")},
        cores=[0],
        only=["ours"],
    )
    assert len(ours.amounts) == 2
    assert min(ours.amounts) > 0
    assert ours.peak_bytes > 0


def test_contenders_in_bf16_are_left_out_where_it_is_emulated_unless_they_are_named(tmp_path, monkeypatch, capsys):
    from common import machine
    from rounds import choose_contenders
    from workload import Contender, Measured, Workload

    found = Workload(
        name="w", title="", unit="s", lower_is_better=True, sizes={},
        contenders=tuple(
            Contender(name=name, environment="ours", run=lambda *_: Measured(amounts=(1.0,)), needs_bf16="bf16" in name)
            for name in ("ours", "ours, bf16", "nnunet, bf16")
        ),
    )  # fmt: skip
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "CPU_INFO", info)
    for flags in ("avx2 avx512_bf16", "amx_bf16"):
        info.write_text(f"processor : 0\nflags\t\t: fpu {flags}\n")
        assert len(choose_contenders(found, ())) == 3
    assert capsys.readouterr().err == ""
    info.write_text("flags\t\t: fpu avx2 avx512f\n")
    assert [c.name for c in choose_contenders(found, ())] == ["ours"]
    assert "does not compute in bf16 itself: ours, bf16; nnunet, bf16 (" in capsys.readouterr().err
    assert [c.name for c in choose_contenders(found, ("ours, bf16",))] == ["ours, bf16"]


def test_a_step_says_what_share_of_the_machines_peak_it_reaches(monkeypatch):
    """A step of 20 ms beside a matrix product, or a convolution, of 1 ms."""
    import torch

    from workloads import step

    monkeypatch.setattr(step, "timed", lambda action, *, repeats, warmup: (0.001,) * repeats)
    peak = step.peak_flops("fp32", size=256)
    assert peak == max(2 * 256**3, 2 * 27 * 16**2 * 2 * 24**3) / 0.001
    monkeypatch.setattr(step, "peak_flops", lambda precision: peak)
    monkeypatch.setattr(step, "timed", lambda action, *, repeats, warmup: (0.02,) * repeats)
    matrix = torch.rand(128, 128)
    notes = step.measure_step({"repeats": 1}, lambda: torch.mm(matrix, matrix), "fp32").notes
    rate = 2 * 128**3 / 0.02
    assert notes == {"GFLOP/s": pytest.approx(rate / 1e9), "share of the peak": pytest.approx(rate / peak)}


def test_the_first_call_is_not_timed(monkeypatch):
    """On a simulated clock: the first call takes 9 s, the others 5, 1 and 2 s."""
    import workload
    from workload import timed

    now, durations = [0.0], iter([9.0, 5.0, 1.0, 2.0])
    monkeypatch.setattr(workload, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def action():
        now[0] += next(durations)

    assert timed(action, repeats=3, warmup=1) == (5.0, 1.0, 2.0)


@pytest.mark.parametrize(("features", "said"), [((32, 64), None), ((8, 16), "another network")])
def test_the_step_alone_is_that_of_the_training(features, said, tmp_path, monkeypatch):
    """The planned patch is not the one that random data have by themselves."""
    from decathlete.benchmarking import run
    from workloads import train

    asked = []

    def benchmark(options, *, workspace):
        asked.append(options)
        settings = SimpleNamespace(
            patch_size=(40, 56, 40) if options.real else options.patch,
            batch_size=options.batch_size,
            network=(32, 64) if options.real else features,
            precision=options.precision,
        )
        rate = SimpleNamespace(images_per_s=3.0 if options.real else 4.0)
        return SimpleNamespace(record=SimpleNamespace(settings=settings, throughput=rate))

    monkeypatch.setattr(run, "benchmark", benchmark)
    with pytest.raises(ValueError, match=said) if said else contextlib.nullcontext():
        assert train.ours(train.WORKLOAD.sizes["small"], tmp_path).notes == {"share of the step alone": 0.75}
    assert [(o.real, o.augment, o.patch) for o in asked] == [(True, True, None), (False, False, (40, 56, 40))]


def test_contenders_that_nobody_knows_are_told(tmp_path, monkeypatch):
    import compare

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    monkeypatch.setattr(sys, "argv", ["compare.py", "resample", "--peers", str(tmp_path), "--only", "us"])
    with pytest.raises(SystemExit, match="none of these contenders: choose ours, skimage"):
        compare.main()


@pytest.mark.parametrize("name", ["manyclass", "predict"])
def test_every_round_predicts_anew(name, tmp_path, monkeypatch):
    """What is there already of the same inputs and settings would be kept, and a second round would cost nothing."""
    import importlib
    import resource

    from decathlete.workflows import predict as workflow

    there = []

    def predict(model, images, output, **options):
        there.append(output.exists())
        output.mkdir(exist_ok=True)

    monkeypatch.setattr(workflow, "predict", predict)
    monkeypatch.setattr(resource, "setrlimit", lambda *limits: None)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "int8").mkdir()
    (tmp_path / "int8.txt").write_text("Dice as before")
    found = importlib.import_module(f"workloads.{name}").WORKLOAD
    ours = [contender for contender in found.contenders if contender.environment == "ours"]
    for contender in [*ours, *ours]:
        contender.run(found.sizes["small"], tmp_path)
    assert there == [False] * (2 * len(ours))


def test_a_contender_whose_package_is_absent_is_named_and_is_no_failure(tmp_path, monkeypatch):
    import importlib

    from report import markdown, record
    from rounds import play

    (tmp_path / "nvidia.py").write_text("")  # no package: there is no nvidia.dali in it
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    found = importlib.import_module("workloads.augment").WORKLOAD
    pythons = {"ours": Path(sys.executable), "peers": Path("/nowhere")}
    work = found.sizes["small"]
    outcomes = play(found, work, tmp_path, rounds=2, pythons=pythons, cores=[0], only=["dali"])
    (dali,) = outcomes
    assert dali.failure is None
    row = rows(markdown(found, work, outcomes, []))["dali"]
    assert row[0] == "not run"
    assert "NVIDIA DALI is not installed" in row[-1]
    assert ".[dali]" in row[-1]
    content = json.loads(record(found, work, outcomes, [], pythons={"ours": pythons["ours"]}, cores=[0]))
    assert content["outcomes"][0]["absent"] == dali.absent
