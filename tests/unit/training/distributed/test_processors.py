"""What the machine is asked for, by a made-up NVML and a made-up folder of processors; and binding to them."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from decathlete.errors import OptionError
from decathlete.training import run
from decathlete.training.distributed import processors
from decathlete.training.distributed.devices import choose_hardware
from decathlete.training.distributed.processors import (
    choose_processors,
    of_list,
    of_mask,
    physical_cores,
    pinned_to_cpus,
)
from decathlete.training.distributed.spawn import SpawnedEnvironment
from decathlete.training.run import fit_module
from training_support import tiny_config

linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="binds on Linux only")


def test_masks_and_lists_as_the_system_writes_them():
    assert of_mask([0b1010_0001, 1 << 63, 0]) == {0, 5, 7, 127}
    assert of_list("0-3,8,10-11\n") == {0, 1, 2, 3, 8, 10, 11}


def make_cpus(folder: Path, siblings: list[str]) -> Path:
    for number, text in enumerate(siblings):
        topology = folder / f"cpu{number}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{text}\n")
    (folder / "cpufreq").mkdir(parents=True)
    return folder


def test_hyperthreads_are_read_from_the_folder_of_processors(tmp_path):
    assert physical_cores(make_cpus(tmp_path / "cpu", ["0,2", "1,3", "0,2", "1,3"])) == {
        frozenset({0, 2}),
        frozenset({1, 3}),
    }
    assert physical_cores(tmp_path / "none") == set()


class MadeUpNvml:
    """Three GPUs; CUDA is told to see the last two, in reverse."""

    class NVMLError(Exception):
        """Of any call."""

    masks = {"GPU-a": [0b0011, 0], "GPU-b": [0b1100, 0], "GPU-c": [0b1111, 0]}
    seen = ("c", "b")

    def __init__(self) -> None:
        self.open = 0

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self.masks:
            raise self.NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetCpuAffinity(self, handle: str, words: int) -> list[int]:
        assert words >= 2
        return self.masks[handle]


@pytest.fixture
def nvml(monkeypatch, tmp_path) -> MadeUpNvml:
    made_up = MadeUpNvml()
    monkeypatch.setitem(sys.modules, "pynvml", made_up)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda gpu: SimpleNamespace(uuid=made_up.seen[gpu]))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, mask: None, raising=False)
    monkeypatch.setattr(processors, "CPUS", make_cpus(tmp_path / "cpu", ["0", "1", "2", "3"]))
    return made_up


def test_nvml_is_asked_for_the_gpus_that_cuda_sees(nvml):
    assert choose_processors("socket", [0, 1]) == ({0, 1, 2, 3}, {2, 3})
    assert choose_processors("socket", [1]) == ({2, 3},)
    assert nvml.open == 0


def test_several_gpus_are_bound_and_one_is_not_unless_told(nvml, monkeypatch):
    interleaved = choose_processors("socket_unique_interleaved", [0, 1])
    assert choose_processors(None, [0, 1]) == interleaved == ({0, 1}, {2, 3})
    assert choose_processors(None, [0]) == ()
    assert choose_processors("disabled", [0, 1]) == ()
    assert choose_processors(None, []) == ()
    monkeypatch.setenv("SLURM_NTASKS", "2")  # a task's processors are SLURM's choice, unless a mode is asked for
    assert choose_processors(None, [0, 1]) == ()
    assert choose_processors("socket_unique_interleaved", [0, 1]) == interleaved


def test_what_cannot_be_known_is_told_only_to_who_asked(nvml, monkeypatch):
    nvml.seen = ("elsewhere", "b")
    with pytest.raises(OptionError, match=r"NVML does not report .*Not Found"):
        choose_processors("single", [0, 1])
    assert choose_processors(None, [0, 1]) == ()
    assert nvml.open == 0
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(OptionError, match=r'pip install "\.\[cuda\]"'):
        choose_processors("single", [0, 1])
    assert choose_processors(None, [0, 1]) == ()


@linux
def test_a_process_is_bound_for_as_long_as_it_trains():
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    one = frozenset({max(before)})
    with pinned_to_cpus(one):
        assert os.sched_getaffinity(0) == one
        assert torch.get_num_threads() == 1
    with pinned_to_cpus(None):
        assert os.sched_getaffinity(0) == before
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == (before, threads)


@linux
@pytest.mark.parametrize("rank", [0, 1])
def test_each_training_process_is_bound_to_its_own(rank, monkeypatch):
    """A stand-in for the system: the machine that tests may have a single processor."""
    usable, while_training = {"now": {0, 4, 5, 6}}, []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(usable["now"]))
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, mask: usable.update(now=set(mask)))
    trainer = SimpleNamespace(fit=lambda module: while_training.append(usable["now"]))
    monkeypatch.setattr(run, "make_trainer", lambda *parts: trainer)
    hardware = replace(choose_hardware(tiny_config(devices=2)), processors=(frozenset({4}), frozenset({5, 6})))
    module = SimpleNamespace(task=SimpleNamespace(hardware=hardware))
    fit_module(module, [], SpawnedEnvironment(rank=rank, world=2, port=1))  # type: ignore[arg-type]
    assert while_training == [hardware.processors[rank]]
    assert usable["now"] == {0, 4, 5, 6}
