"""The machine and the software that figures were measured with."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil
import torch

from decathlete.core.files import read_text
from decathlete.core.schema import Schema
from decathlete.training.distributed.devices import Hardware
from decathlete.version import __version__

CPUINFO = Path("/proc/cpuinfo")


class Machine(Schema):
    """What computed.

    Attributes:
        cores: physical. processors: as the system counts them. threads: of torch, in each process.
        memory_bytes: of the whole machine.
        gpus: names of those that were used.
    """

    cpu: str
    cores: int
    processors: int
    threads: int
    memory_bytes: int
    gpus: tuple[str, ...] = ()
    system: str

    @property
    def computes(self) -> str:
        """What the figures are of, in words."""
        return self.gpus[0] if self.gpus else f"{self.cpu}, {self.threads} thread(s)"


class Versions(Schema):
    """Of what takes part in computing; ``None`` where it does not."""

    decathlete: str
    python: str
    torch: str
    cuda: str | None = None
    cudnn: int | None = None


def this_machine(hardware: Hardware, *, threads: int) -> Machine:
    """As it is, with the GPUs that ``hardware`` names."""
    processors = psutil.cpu_count() or 1
    return Machine(
        cpu=_cpu_model(),
        cores=psutil.cpu_count(logical=False) or processors,
        processors=processors,
        threads=threads,
        memory_bytes=psutil.virtual_memory().total,
        gpus=_gpus(hardware),
        system=f"{platform.system()} {platform.machine()}",
    )


def these_versions() -> Versions:
    """Of this process."""
    on_cuda = torch.cuda.is_available()
    return Versions(
        decathlete=__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda if on_cuda else None,
        cudnn=torch.backends.cudnn.version() if on_cuda else None,  # type: ignore[no-untyped-call]
    )


def _gpus(hardware: Hardware) -> tuple[str, ...]:
    if hardware.kind == "mps":
        return ("Apple GPU",)
    if hardware.kind == "cpu":
        return ()
    indices = range(hardware.devices) if hardware.index is None else (hardware.index,)
    return tuple(torch.cuda.get_device_name(index) for index in indices)


def _cpu_model() -> str:
    """The processor's name; Linux has it in a file, other systems tell Python."""
    lines = read_text(CPUINFO).splitlines() if CPUINFO.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
