"""Device, precision and processes of a training, chosen in one place."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Literal

import psutil
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy

from decathlete.errors import OptionError
from decathlete.networks.devices import resolve_device
from decathlete.networks.precision import Precision, default_precision
from decathlete.training.config import TrainConfig
from decathlete.training.distributed.affinity import Processors
from decathlete.training.distributed.processors import choose_processors
from decathlete.training.loop.compiling import check_compiler

Kind = Literal["cpu", "cuda", "mps"]
LightningPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]

_AS_LAUNCHED = "set --devices to the number of processes per machine, and --nodes to the number of machines"
_LIGHTNING: dict[Precision, LightningPrecision] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def choose_device(device: str = "auto") -> Kind:
    """Resolve ``device`` (``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``) to a kind of device on this machine.

    Raises:
        OptionError: unknown or not available.
    """
    kinds: dict[str, Kind] = {"cpu": "cpu", "cuda": "cuda", "mps": "mps"}
    return kinds[resolve_device(device).type]


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The device, precision and processes of a training.

    Attributes:
        index: of the one GPU that was asked for, if it was.
        devices: processes on this machine. nodes: machines.
        processors: that each process of this machine is bound to; empty: to none.
    """

    kind: Kind
    index: int | None
    precision: Precision
    devices: int
    nodes: int
    processors: tuple[Processors, ...] = ()

    @property
    def world(self) -> int:
        """Number of processes over all machines."""
        return self.devices * self.nodes

    @property
    def spawned(self) -> bool:
        """Whether this process starts the others (instead of torchrun, SLURM or Lightning's launcher)."""
        return self.devices > 1 and self.nodes == 1 and launcher() is None

    @property
    def can_finish(self) -> bool:
        """Whether a stopped training may go on for seconds: launchers end all processes when the first one ends."""
        return self.world == 1 or self.spawned

    @property
    def lightning_precision(self) -> LightningPrecision:
        """Lightning's name of the precision."""
        return _LIGHTNING[self.precision]

    @property
    def lightning_devices(self) -> int | list[int]:
        """Lightning's ``devices``: how many, or which."""
        return self.devices if self.index is None else [self.index]

    def strategy(self, environment: ClusterEnvironment | None = None) -> Strategy | Literal["auto"]:
        """Return Lightning's strategy; ``environment`` describes processes that were spawned here."""
        if self.world == 1:
            return "auto"
        backend = "nccl" if self.kind == "cuda" else "gloo"
        return DDPStrategy(process_group_backend=backend, cluster_environment=environment or launcher())

    @property
    def plugins(self) -> list[ClusterEnvironment]:
        """Lightning's plugins: a single process says so, since in a SLURM job Lightning would wait for other tasks."""
        return [LightningEnvironment()] if self.world == 1 else []

    def processors_of(self, environment: ClusterEnvironment | None = None) -> Processors | None:
        """Return the processors that this process is pinned to; ``None``: it is not pinned."""
        if not self.processors:
            return None
        environment = environment or launcher()
        return self.processors[environment.local_rank() if environment and self.world > 1 else 0]

    def describe(self) -> str:
        """Describe the machine in words, for the model's provenance."""
        if self.kind == "cuda":
            return f"{self.devices} x {torch.cuda.get_device_name(self.index or 0)}"
        cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
        kind = "Apple GPU" if self.kind == "mps" else f"{self.devices} process(es) on CPU"
        return f"{kind}, {platform.machine()}, {cores} cores, {torch.get_num_threads()} threads"


def choose_hardware(config: TrainConfig) -> Hardware:
    """Resolve the config's device, devices, nodes and precision on this machine.

    Raises:
        OptionError: not available, or not together.
    """
    device = resolve_device(config.device)
    kind = choose_device(config.device)
    if device.index is not None and config.devices > 1:
        raise OptionError(
            f"device {config.device} is one device, but {config.devices} are requested",
            remedy="use --device cuda, or --devices 1",
        )
    available = {"cuda": torch.cuda.device_count(), "mps": 1, "cpu": config.devices}[kind]
    if config.devices > available:
        raise OptionError(
            f"{config.devices} devices are requested, this machine has {available}",
            remedy=f"use --devices {available} or fewer",
        )
    if config.nodes > 1 and launcher() is None:
        raise OptionError(
            f"{config.nodes} nodes are requested, but no launcher has started this process",
            remedy="start it on every node with torchrun or srun (docs/how-to/several-devices.md)",
        )
    _check_launched(config)
    if kind != "cuda" and config.affinity not in (None, "disabled"):
        raise OptionError(
            f"affinity {config.affinity} is about CUDA GPUs, training is on {kind}", remedy="leave --affinity out"
        )
    if config.compile:
        check_compiler(device)
    index = device.index if kind == "cuda" else None
    gpus = [] if kind != "cuda" else [index] if index is not None else list(range(config.devices))
    return Hardware(
        kind=kind,
        index=index,
        precision=choose_precision(config.precision, device),
        devices=config.devices,
        nodes=config.nodes,
        processors=choose_processors(config.affinity, gpus),
    )


def _check_launched(config: TrainConfig) -> None:
    """Reject processes that do not know of one another: each would train alone into the same folder."""
    environment, world = launcher(), config.devices * config.nodes
    if environment is None:
        return
    if world == 1 and not isinstance(environment, TorchElasticEnvironment):
        return  # a SLURM job may run one process of its many
    if environment.world_size() != world:
        raise OptionError(
            f"the launcher started {environment.world_size()} processes, "
            f"but {config.devices} devices on {config.nodes} nodes are {world}",
            remedy=_AS_LAUNCHED,
        )
    try:
        environment.validate_settings(num_devices=config.devices, num_nodes=config.nodes)
    except ValueError as problem:
        raise OptionError(f"the launcher has other settings: {problem}", remedy=_AS_LAUNCHED) from problem


def choose_precision(precision: str, device: torch.device) -> Precision:
    """``auto`` is bf16 where ``device`` computes in it, else fp32; fp16 (with loss scaling) is for CUDA, on request.

    Raises:
        OptionError: fp16 elsewhere.
    """
    if precision == "auto":
        return "bf16" if default_precision(device) == "bf16" else "fp32"
    if precision == "fp16" and device.type != "cuda":
        raise OptionError(f"training in fp16 is not for {device.type}", remedy="use --precision auto")
    known: dict[str, Precision] = {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16"}
    return known[precision]


def launcher() -> ClusterEnvironment | None:
    """Return the environment of torchrun or SLURM (``srun``), if it started this process as one of several.

    Raises:
        OptionError: SLURM does not say how many of them are on one machine.
    """
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if not SLURMEnvironment.detect():
        return None
    try:  # jobs are not queued again by Lightning: our checkpoints are not its
        environment = SLURMEnvironment(auto_requeue=False)
    except RuntimeError as problem:
        raise OptionError(str(problem), remedy="use --ntasks-per-node with sbatch or srun") from problem
    return environment if environment.world_size() > 1 else None
