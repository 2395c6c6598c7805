import pytest
import torch
from torch import nn

from decathlete.errors import OptionError
from decathlete.inference.engines import TorchEngine, resolve_device
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


def test_out_of_memory_says_what_to_do():
    class Greedy(nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OptionError, match="smaller batch size"):
        TorchEngine(Greedy().eval())(torch.zeros(2, 1, 4, 4, 4))


def test_auto_precision_on_a_cpu_is_never_fp16():
    assert default_precision(torch.device("cpu")) in ("fp32", "bf16")
    assert resolve_precision("auto", torch.device("cpu")) == default_precision(torch.device("cpu"))


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
