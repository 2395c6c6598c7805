"""What a record names: the machine, and the versions of the packages that matter."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("decathlete", "torch", "numpy", "nnunetv2", "batchgeneratorsv2", "monai", "scikit-image", "openvino")

CPU_INFO = Path("/proc/cpuinfo")
BF16 = frozenset({"avx512_bf16", "amx_bf16"})
"""Instructions that multiply in bfloat16, as Linux names them."""


def machine(cores: Sequence[int]) -> str:
    """The processor, its vector units, and how many of its cores were used."""
    fields = _fields()
    flags = set(fields.get("flags", "").split()) & {"avx2", "avx512f", *BF16}
    return f"{fields.get('model name', platform.processor())}, {len(cores)} core(s), {' '.join(sorted(flags))}"


def computes_bf16() -> bool:
    """Whether the processor multiplies in bfloat16 itself."""
    return not BF16.isdisjoint(_fields().get("flags", "").split())


def code_version(root: Path) -> str:
    """The commit of the code; with a mark if files have changed since."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _fields() -> dict[str, str]:
    """What Linux tells of the processor (of the last, where it has several)."""
    text = CPU_INFO.read_text() if CPU_INFO.is_file() else ""
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def versions(python: Path) -> dict[str, str]:
    """Of the packages that matter, in one environment."""
    script = (
        "import importlib.metadata as m, json, platform\n"
        "found = {'python': platform.python_version()}\n"
        f"for name in {PACKAGES!r}:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([str(python), "-c", script], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found
