"""Choices about devices."""

from __future__ import annotations

import pickle

import pytest
import torch

from decathlete.errors import OptionError
from decathlete.training.config import TrainConfig
from decathlete.training.distributed import devices
from decathlete.training.distributed.devices import choose_device, choose_hardware, choose_precision
from decathlete.training.distributed.spawn import SpawnedEnvironment

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_bf16_only_where_the_processor_computes_in_it(monkeypatch):
    monkeypatch.setattr(devices, "default_precision", lambda device: "bf16")
    assert choose_precision("auto", CPU) == "bf16"
    monkeypatch.setattr(devices, "default_precision", lambda device: "fp32")
    assert choose_precision("auto", CPU) == "fp32"


def test_fp16_is_on_request_and_for_cuda(monkeypatch):
    monkeypatch.setattr(devices, "default_precision", lambda device: "fp16")
    assert choose_precision("auto", CUDA) == "fp32"
    assert choose_precision("fp16", CUDA) == "fp16"
    with pytest.raises(OptionError, match="--precision auto"):
        choose_precision("fp16", CPU)


def test_hardware_of_a_cpu():
    one = choose_hardware(TrainConfig(device="cpu", precision="fp32"))
    assert (one.kind, one.world, one.spawned, one.strategy(), one.lightning_precision) == (
        "cpu",
        1,
        False,
        "auto",
        "32-true",
    )
    two = choose_hardware(TrainConfig(device="cpu", precision="fp32", devices=2))
    assert (two.world, two.spawned) == (2, True)
    assert pickle.loads(pickle.dumps(two)) == two
    assert "2 process" in two.describe()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what is asked for")
def test_what_is_not_there_is_told():
    for device in ("cuda", "cuda:7", "abacus"):
        with pytest.raises(OptionError):
            choose_device(device)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(devices, "resolve_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_each_gpus_processors_are_chosen_with_the_rest(two_gpus, monkeypatch):
    asked = []

    def choose(affinity, gpus):
        asked.append((affinity, gpus))
        return tuple(frozenset({gpu}) for gpu in gpus)

    monkeypatch.setattr(devices, "choose_processors", choose)
    both = choose_hardware(TrainConfig(device="cuda", precision="fp32", devices=2))
    assert [both.processors_of(SpawnedEnvironment(rank=rank, world=2, port=1)) for rank in (0, 1)] == [{0}, {1}]
    second = choose_hardware(TrainConfig(device="cuda:1", precision="fp32", affinity="socket"))
    assert second.processors_of() == {1}
    assert asked == [(None, [0, 1]), ("socket", [1])]
    assert choose_hardware(TrainConfig(device="cpu", devices=2)).processors_of() is None


def test_affinity_without_a_gpu_is_refused():
    with pytest.raises(OptionError, match=r"about CUDA GPUs.*\n.*--affinity"):
        choose_hardware(TrainConfig(device="cpu", affinity="socket"))
    assert choose_hardware(TrainConfig(device="cpu", affinity="disabled")).processors == ()


def test_what_cannot_be_compiled_is_told_in_time(monkeypatch):
    def missing(*arguments, **options):
        raise RuntimeError("\nNo working C++ compiler found in: c++\nand much more")

    monkeypatch.setattr(torch, "compile", missing)
    with pytest.raises(
        OptionError, match=r"for cpu here \(No working C\+\+ compiler found in: c\+\+\)\n.*leave --compile out"
    ):
        choose_hardware(TrainConfig(device="cpu", compile=True))


def test_more_gpus_than_there_are(two_gpus):
    with pytest.raises(OptionError, match="this machine has 2"):
        choose_hardware(TrainConfig(device="cuda", precision="fp32", devices=4))
    with pytest.raises(OptionError, match="one device"):
        choose_hardware(TrainConfig(device="cuda:1", precision="fp32", devices=2))
