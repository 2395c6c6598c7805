"""Torch's switches for CUDA, which can be read without one."""

from __future__ import annotations

import torch

from decathlete.inference.engines import torch as engines
from decathlete.inference.engines.torch import TorchEngine
from decathlete.networks.kernels import fast_kernels, restore_determinism

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def switches() -> tuple[bool, bool, str]:
    return torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


def test_cuda_may_take_tf32_and_look_for_the_fastest_convolution_and_only_meanwhile():
    before = switches()
    with fast_kernels(CUDA):
        assert switches() == (True, True, "high")
    assert switches() == before
    with fast_kernels(CPU):
        assert switches() == before


def test_nothing_is_tried_out_where_every_run_is_to_be_the_same():
    with restore_determinism():
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        with fast_kernels(CUDA):
            assert switches() == (False, True, "high")
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_choice_by_torchs_newer_interface_is_left_alone(monkeypatch):
    def mixed() -> str:
        raise RuntimeError("you have used mix of the legacy and new APIs")

    chosen: list[str] = []
    monkeypatch.setattr(torch, "get_float32_matmul_precision", mixed)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", chosen.append)
    with fast_kernels(CUDA):
        assert torch.backends.cudnn.benchmark
    assert chosen == []


def test_prediction_computes_with_them(monkeypatch):
    """The network sees the switches of the device that its engine was made for."""
    seen = []

    class Looking(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(switches())
            return x

    monkeypatch.setattr(engines, "fast_kernels", lambda device: fast_kernels(CUDA))
    before = switches()
    TorchEngine(Looking().eval(), precision="fp32")(torch.zeros(1, 1, 4, 4))
    assert seen == [(True, True, "high")]
    assert switches() == before
