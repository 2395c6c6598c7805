"""One training step (forward, loss with deep supervision, backward, clipping, SGD) of nnU-Net's network.

Every contender has the same network: as many channels, levels, kernels, strides and outputs; the same batch. Each
computes in its default precision unless it says another.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from workload import Contender, Measured, Work, Workload, timed

N_CLASSES = 3


def _batch(work: Work) -> tuple[Any, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    image = torch.randn((work["batch"], 1, *work["patch"]), generator=generator)
    return image, torch.randint(0, N_CLASSES, (work["batch"], *work["patch"]), generator=generator)


def measure_step(work: Work, step: Callable[[], object], precision: str) -> Measured:
    """Seconds a step, the rate of arithmetic (multiplications and additions counted by torch), and how near it comes to
    the machine's peak in this precision, measured just before."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    peak = peak_flops(precision)
    seconds = timed(step, repeats=work["repeats"], warmup=1)
    rate = counter.get_total_flops() / sorted(seconds)[len(seconds) // 2]
    return Measured(amounts=seconds, notes={"GFLOP/s": rate / 1e9, "share of the peak": rate / peak})


def peak_flops(precision: str, *, size: int = 2048, repeats: int = 5) -> float:
    """Multiplications and additions a second in a large matrix product or, where it is faster, in a convolution.

    The fastest of a few, with torch's threads. Little that a network computes is faster: operands are reused as much as
    can be. (On AMX tiles torch's convolutions are four times as fast as its products.)
    """
    import torch

    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.rand(size, size).to(kind)
    product = 2 * size**3 / min(timed(lambda: torch.mm(matrix, matrix), repeats=repeats, warmup=1))
    channels, edge = size // 16, 24
    maps = torch.rand(2, channels, edge, edge, edge).to(kind, memory_format=torch.channels_last_3d)
    conv = torch.nn.Conv3d(channels, channels, 3, padding=1).to(kind).to(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        seconds = min(timed(lambda: conv(maps), repeats=repeats, warmup=1))
    return max(product, 2 * 27 * channels**2 * 2 * edge**3 / seconds)


def ours(work: Work, folder: Path) -> Measured:
    import torch

    from decathlete.networks.precision import default_precision

    return _ours(work, default_precision(torch.device("cpu")))


def ours_fp32(work: Work, folder: Path) -> Measured:
    return _ours(work, "fp32")


def _ours(work: Work, precision: str) -> Measured:
    import torch

    from decathlete.core.labels import LabelSet
    from decathlete.networks.architectures.unet import plan_unet
    from decathlete.networks.build import build_network
    from decathlete.networks.layout import preferred_memory_format
    from decathlete.networks.precision import autocast
    from decathlete.planning.topology import make_topology
    from decathlete.training.config import TrainConfig
    from decathlete.training.objective.deep_supervision import DeepSupervision
    from decathlete.training.objective.losses import LOSSES, LossContext
    from decathlete.training.objective.optimizer_steps import build_optimizer

    patch = tuple(work["patch"])
    topology = make_topology((1.0,) * len(patch), patch)
    spec = plan_unet(topology, in_channels=1, out_channels=N_CLASSES)
    network = build_network(spec, seed=1)
    device: Any = torch.device("cpu")
    known: Any = precision
    network.set_layout(preferred_memory_format(device, spec.dims, known))
    config = TrainConfig(optimizer="sgd")
    loss_of_head = LOSSES.build(config.loss, LossContext(labels=LabelSet.from_names(["a", "b"])))
    criterion = DeepSupervision(loss_of_head, heads=spec.heads)
    optimizer = build_optimizer(network.parameters(), config.optimizer)
    image, label = _batch(work)
    label = label.to(torch.uint8)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(known, device):
            loss = criterion(network(image), label)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()

    return measure_step(work, step, precision)


def nnunet(work: Work, folder: Path) -> Measured:
    return _nnunet(work, nullcontext(), "fp32")


def nnunet_bf16(work: Work, folder: Path) -> Measured:
    import torch

    return _nnunet(work, torch.autocast("cpu", torch.bfloat16), "bf16")


def _nnunet(work: Work, autocast: AbstractContextManager[Any], precision: str) -> Measured:
    import numpy as np
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    patch = tuple(work["patch"])
    _, strides, kernels, _, _ = get_pool_and_conv_props((1.0,) * len(patch), patch, 4, 999999)
    n = len(strides)
    dims3 = len(patch) == 3
    network = PlainConvUNet(
        1,
        n,
        [min(32 * 2**i, 320 if dims3 else 512) for i in range(n)],
        torch.nn.Conv3d if dims3 else torch.nn.Conv2d,
        kernels,
        strides,
        2,
        N_CLASSES,
        2,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d if dims3 else torch.nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )
    dice = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    weights = np.array([1 / 2**i for i in range(n - 1)])
    weights[-1] = 0
    criterion = DeepSupervisionWrapper(
        DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss), weights / weights.sum()
    )
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    image, label = _batch(work)
    scales = [np.prod(strides[: i + 1], axis=0) for i in range(n - 1)]
    label = label[:, None]
    targets = [label[(..., *(slice(None, None, int(s)) for s in scale))].float() for scale in scales]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = criterion(network(image), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()

    return measure_step(work, step, precision)


WORKLOAD = Workload(
    name="step",
    title="One training step of the same network",
    unit="s",
    lower_is_better=True,
    sizes={
        "small": {"patch": (16, 16, 16), "batch": 1, "repeats": 1},
        "full": {"patch": (40, 56, 40), "batch": 4, "repeats": 3},
    },
    contenders=(
        Contender(name="ours", environment="ours", run=ours),
        Contender(name="ours, fp32", environment="ours", run=ours_fp32, needs_bf16=True),
        Contender(name="nnunet", environment="peers", run=nnunet),
        Contender(name="nnunet, bf16", environment="peers", run=nnunet_bf16, needs_bf16=True),
    ),
)
