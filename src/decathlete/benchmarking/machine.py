"""Machine and software of a benchmark."""

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


class BenchmarkMachine(Schema):
    """Machine of a benchmark.

    Attributes:
        cpu: name of the processor.
        cores: number of physical cores.
        processors: number of logical processors.
        threads: number of torch's threads in each process.
        memory_bytes: memory of the machine, bytes.
        gpus: names of the GPUs that were used.
        system: operating system and architecture.
    """

    cpu: str
    cores: int
    processors: int
    threads: int
    memory_bytes: int
    gpus: tuple[str, ...] = ()
    system: str

    @property
    def device_name(self) -> str:
        """Name of the device that was measured."""
        return self.gpus[0] if self.gpus else f"{self.cpu}, {self.threads} thread(s)"


class SoftwareVersions(Schema):
    """Versions of the software; ``None``: not used."""

    decathlete: str
    python: str
    torch: str
    cuda: str | None = None
    cudnn: int | None = None


def describe_machine(hardware: Hardware, *, threads: int) -> BenchmarkMachine:
    """Describe this machine with the GPUs in ``hardware``."""
    processors = psutil.cpu_count() or 1
    return BenchmarkMachine(
        cpu=_cpu_model(),
        cores=psutil.cpu_count(logical=False) or processors,
        processors=processors,
        threads=threads,
        memory_bytes=psutil.virtual_memory().total,
        gpus=_gpus(hardware),
        system=f"{platform.system()} {platform.machine()}",
    )


def read_versions() -> SoftwareVersions:
    """Return the versions of the software in this process."""
    on_cuda = torch.cuda.is_available()
    return SoftwareVersions(
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
    """Return the name of the processor: on Linux from ``/proc/cpuinfo``, on other systems from Python."""
    lines = read_text(CPUINFO).splitlines() if CPUINFO.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
