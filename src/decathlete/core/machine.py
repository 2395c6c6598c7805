"""What this machine has free: memory of the computer and of a device, and space on a disk. Nothing else asks it.

The figures are those of the moment; what work needs is estimated in :mod:`decathlete.core.estimates`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from decathlete.core.lazy_import import lazy_import

psutil = lazy_import("psutil")
torch = lazy_import("torch")

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_VMSTAT = Path("/proc/vmstat")
_TASKS = Path("/proc/self/task")
_UNLIMITED = 1 << 60
"""A limit of cgroups of version 1 that is greater than this means: no limit."""


def available_memory_bytes() -> int:
    """Return the bytes of memory that new work can use: of the computer, and within the limits of containers."""
    free = int(psutil.virtual_memory().available)
    return max(0, min([free, *cgroup_memory_bytes()]))


def free_disk_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that holds ``folder``, or will hold it when it exists."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def free_device_memory_bytes(device: str) -> int | None:
    """Return the free bytes of a CUDA device (``cuda``, ``cuda:1``); ``None`` for other devices."""
    if not device.startswith("cuda"):
        return None
    return int(torch.cuda.mem_get_info(torch.device(device))[0])


def thread_wait_s(tasks: Path = _TASKS) -> float | None:
    """Return the seconds that the threads of this process have waited for a processor (Linux only).

    Others may have used it: other programs, or other threads of this process.

    Args:
        tasks: folder with the system's figures of each thread.
    """
    waits_ns = []
    with suppress(OSError):
        for folder in tasks.iterdir():
            with suppress(OSError, ValueError, IndexError):  # a thread may have ended
                waits_ns.append(int((folder / "schedstat").read_bytes().split()[1]))
    return sum(waits_ns) / 1e9 if waits_ns else None


def cgroup_memory_bytes(root: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> Iterator[int]:
    """Yield what each limit on this process leaves, bytes: those of containers, batch jobs and systemd (Linux only).

    Args:
        root: folder where the cgroups are mounted.
        own: file that names the cgroups of this process.
    """
    for folder in _cgroup_folders(root, own):
        for limit_name, usage_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, usage = _number(folder / limit_name), _number(folder / usage_name)
            if limit is not None and usage is not None and limit < _UNLIMITED:
                dropped_cache = _field(folder / "memory.stat", "inactive_file") or 0  # when memory is needed
                yield limit - usage + dropped_cache


def count_oom_kills(root: Path = _CGROUPS, own: Path = _OWN_CGROUPS, vmstat: Path = _VMSTAT) -> int | None:
    """Return how many processes the system has killed for lack of memory since it started; ``None``: unknown.

    Args:
        root, own: as of :func:`cgroup_memory_bytes`.
        vmstat: file with the system's counters.
    """
    counts = [_field(folder / "memory.events", "oom_kill") for folder in _cgroup_folders(root, own)]
    return max((n for n in [_field(vmstat, "oom_kill"), *counts] if n is not None), default=None)


def _cgroup_folders(root: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of the process's cgroups and of all that contain them."""
    with suppress(OSError, ValueError):
        for line in own.read_bytes().decode().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            base = root / "memory" if controllers else root
            folder = Path(os.path.normpath(f"{base}/{path}"))
            # In a container the path may be that of the host, which is not visible here: the root is then the own one.
            yield from (f for f in (folder, *folder.parents) if f.is_relative_to(base) and f.is_dir())


def _field(path: Path, name: str) -> int | None:
    with suppress(OSError, ValueError):
        for line in path.read_bytes().decode().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return None


def _number(path: Path) -> int | None:
    """Return the number in a file; ``None`` if there is none (``max``: no limit)."""
    with suppress(OSError, ValueError):
        return int(path.read_bytes())
    return None
