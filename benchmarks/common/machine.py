"""What a record names: the machine, and the versions of the packages that matter."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("decathlete", "torch", "numpy", "nnunetv2", "batchgeneratorsv2", "monai", "scikit-image", "openvino")


def machine(cores: Sequence[int]) -> str:
    """The processor, its vector units, and how many of its cores were used."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = set(fields.get("flags", "").split()) & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}
    return f"{fields.get('model name', platform.processor())}, {len(cores)} core(s), {' '.join(sorted(flags))}"


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
