"""Where and in which arithmetic a network is trained: all choices about devices in one place."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Literal

import psutil
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy

from decathlete.errors import OptionError
from decathlete.inference.engines import resolve_device
from decathlete.networks.precision import Precision, default_precision
from decathlete.training.config import TrainConfig

Kind = Literal["cpu", "cuda", "mps"]
LightningPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]

_LIGHTNING: dict[Precision, LightningPrecision] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def choose_device(device: str = "auto") -> Kind:
    """The kind of device that ``device`` (``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``) means on this machine.

    Raises:
        OptionError: unknown or not available.
    """
    kinds: dict[str, Kind] = {"cpu": "cpu", "cuda": "cuda", "mps": "mps"}
    return kinds[resolve_device(device).type]


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Where a training runs.

    Attributes:
        index: of the one GPU that was asked for, if it was.
        devices: processes on this machine. nodes: machines.
    """

    kind: Kind
    index: int | None
    precision: Precision
    devices: int
    nodes: int

    @property
    def world(self) -> int:
        """Processes in all."""
        return self.devices * self.nodes

    @property
    def spawned(self) -> bool:
        """Whether this process starts the others itself (rather than torchrun, SLURM or Lightning's own launcher)."""
        return self.devices > 1 and self.nodes == 1 and launcher() is None

    @property
    def lightning_precision(self) -> LightningPrecision:
        """Lightning's name of the precision."""
        return _LIGHTNING[self.precision]

    @property
    def lightning_devices(self) -> int | list[int]:
        """How many devices, or which."""
        return self.devices if self.index is None else [self.index]

    def strategy(self, environment: ClusterEnvironment | None = None) -> Strategy | Literal["auto"]:
        """How Lightning joins the processes: ``environment`` knows those we spawned, else the launcher does."""
        if self.world == 1:
            return "auto"
        backend = "nccl" if self.kind == "cuda" else "gloo"
        return DDPStrategy(process_group_backend=backend, cluster_environment=environment)

    def describe(self) -> str:
        """The machine in words, for the model's provenance."""
        if self.kind == "cuda":
            return f"{self.devices} x {torch.cuda.get_device_name(self.index or 0)}"
        cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
        kind = "Apple GPU" if self.kind == "mps" else f"{self.devices} process(es) on CPU"
        return f"{kind}, {platform.machine()}, {cores} cores, {torch.get_num_threads()} threads"


def choose_hardware(config: TrainConfig) -> Hardware:
    """What the config's device, devices, nodes and precision mean on this machine.

    Raises:
        OptionError: not available, or not together.
    """
    device = resolve_device(config.device)
    kind = choose_device(config.device)
    if device.index is not None and config.devices > 1:
        raise OptionError(
            f"device {config.device} is one device, but {config.devices} are asked for",
            remedy="give --device cuda, or --devices 1",
        )
    available = {"cuda": torch.cuda.device_count(), "mps": 1, "cpu": config.devices}[kind]
    if config.devices > available:
        raise OptionError(
            f"{config.devices} devices are asked for, this machine has {available}",
            remedy=f"give --devices {available} or fewer",
        )
    if config.nodes > 1 and launcher() is None:
        raise OptionError(
            f"{config.nodes} nodes are asked for, but no launcher has started this process",
            remedy="start it on every node with torchrun or srun (docs/how-to/several-devices.md)",
        )
    _check_launched(config)
    return Hardware(
        kind=kind,
        index=device.index if kind == "cuda" else None,
        precision=choose_precision(config.precision, device),
        devices=config.devices,
        nodes=config.nodes,
    )


def _check_launched(config: TrainConfig) -> None:
    """Processes that do not know of one another would train apart, all into one folder."""
    environment, world = launcher(), config.devices * config.nodes
    if environment is None or environment.world_size() == world:
        return
    if world > 1 or isinstance(environment, TorchElasticEnvironment):  # a SLURM job may run one process of its many
        raise OptionError(
            f"the launcher started {environment.world_size()} processes, "
            f"but {config.devices} devices on {config.nodes} nodes are {world}",
            remedy="give --devices the number of processes per machine, and --nodes that of machines",
        )


def choose_precision(precision: str, device: torch.device) -> Precision:
    """``auto`` is bf16 where ``device`` computes in it, else fp32; fp16 (with loss scaling) is for CUDA, on request.

    Raises:
        OptionError: fp16 elsewhere.
    """
    if precision == "auto":
        return "bf16" if default_precision(device) == "bf16" else "fp32"
    if precision == "fp16" and device.type != "cuda":
        raise OptionError(f"training in fp16 is not for {device.type}", remedy="give --precision auto")
    known: dict[str, Precision] = {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16"}
    return known[precision]


def launcher() -> ClusterEnvironment | None:
    """What torchrun or SLURM (``srun``) tells a process that it has started as one of several."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if SLURMEnvironment.detect() and SLURMEnvironment().world_size() > 1:
        return SLURMEnvironment()
    return None
