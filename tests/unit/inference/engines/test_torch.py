from contextlib import contextmanager

import pytest
import torch
from torch import nn

from decathlete.errors import InsufficientMemoryError, OptionError
from decathlete.inference.engines.torch import TorchEngine
from decathlete.networks.devices import resolve_device
from decathlete.networks.precision import default_precision, resolve_precision


def test_a_network_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="eval"):
        TorchEngine(nn.Conv3d(1, 1, 1))


def test_logits_are_float32_without_gradient():
    engine = TorchEngine(nn.Conv3d(1, 2, 1).eval(), precision="fp32")
    logits = engine(torch.zeros(1, 1, 4, 4, 4))
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    assert (engine.name, engine.precision, engine.device.type) == ("torch", "fp32", "cpu")


class Greedy(nn.Module):
    """Memory for ``most`` windows at once; it notes how many came."""

    def __init__(self, most, error):
        super().__init__()
        self.most, self.error, self.seen = most, error, []

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.most:
            raise self.error
        return x * 2


SHORT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    MemoryError("Unable to allocate 2 GiB"),
]


@pytest.mark.parametrize("error", SHORT)
def test_a_batch_that_memory_does_not_hold_is_computed_in_parts_that_it_holds(error):
    network = Greedy(2, error).eval()
    engine = TorchEngine(network, precision="fp32")
    windows = torch.arange(7.0).reshape(7, 1, 1, 1, 1)
    assert torch.equal(engine(windows), windows * 2)
    network.seen.clear()
    assert torch.equal(engine(windows), windows * 2)
    assert network.seen == [1] * 7, "what failed once is not tried again: 7, 3, then 1 at a time"


@pytest.mark.parametrize("error", SHORT)
def test_a_window_that_memory_does_not_hold_is_a_users_matter(error):
    with pytest.raises(InsufficientMemoryError, match="for one window"):
        TorchEngine(Greedy(0, error).eval())(torch.zeros(4, 1, 4, 4, 4))


def test_another_error_of_the_network_stays_what_it_is():
    network = Greedy(0, RuntimeError("shapes do not fit")).eval()
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        TorchEngine(network)(torch.zeros(4, 1, 4, 4, 4))
    assert network.seen == [4]


def test_auto_precision_on_a_cpu_is_never_fp16():
    assert default_precision(torch.device("cpu")) in ("fp32", "bf16")
    assert resolve_precision("auto", torch.device("cpu")) == default_precision(torch.device("cpu"))


def test_precision_is_chosen_for_the_gpu_asked_for_not_for_the_current_one(monkeypatch):
    current = [0]

    @contextmanager
    def switched(device):
        current.append(device.index)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", switched)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: current[-1] == 1)
    assert [default_precision(torch.device("cuda", index)) for index in (0, 1)] == ["fp16", "bf16"]


@pytest.mark.parametrize(("computes", "expected"), [(True, "bf16"), (False, "fp32")])
def test_bf16_only_where_the_cpu_computes_in_it(monkeypatch, computes, expected):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: computes, raising=False)
    assert default_precision(torch.device("cpu")) == expected


@pytest.mark.parametrize("precision", ["fp16", "fp8"])
def test_precisions_that_do_not_fit(precision):
    with pytest.raises(OptionError, match="auto"):
        resolve_precision(precision, torch.device("cpu"))


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "xla", "meta"])
def test_devices_that_are_not_there(device):
    with pytest.raises(OptionError, match="choose auto"):
        resolve_device(device)


def test_cpu_is_always_there():
    assert resolve_device("cpu") == torch.device("cpu")
