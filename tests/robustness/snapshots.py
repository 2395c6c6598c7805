"""Compares the results of two runs of a command, without what differs from run to run: times, and places on disk."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from safetensors.numpy import load_file

_VOLATILE = re.compile(r"(finished|created|started|date|.*seconds.*|.*_s|.*per_second|machine|elapsed|host|pid|crc32)")
_DIGEST = re.compile(r"digest|^models$|^key$|^combined_from$")
_ONLY_PRESENT = {".ckpt", ".html", ".csv", ".md", ".xml", ".log"}
_IGNORED = re.compile(r"(^|/)tensorboard/|\.lock$|(^|/)\.decathlete-(lock|reader)[^/]*$|(^|/)loggers\.json$")
_TEMPORARY = re.compile(r"partial|\.tmp|\.part$|^tmp")
_OF_OTHERS = re.compile(r"torchinductor|matplotlib|pymp-|^\.ses$")
"""Temporary files and folders that torch, Python and ONNX Runtime (``.ses``) make and keep."""

Snapshot = dict[str, str]
"""File below a folder -> digest of what it says."""


def take_snapshot(folder: Path, roots: tuple[str, ...]) -> Snapshot:
    """Return the digests of all result files."""
    found = {}
    for root in roots:
        for path in sorted(p for p in (folder / root).rglob("*") if p.is_file()):
            name = path.relative_to(folder).as_posix()
            if not _IGNORED.search(name):
                found[name] = _digest(path, folder)
    return found


def compare(expected: Snapshot, found: Snapshot) -> str:
    """Return what differs; empty: nothing."""
    missing, more = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    changed = sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name])
    parts = (("missing", missing), ("additional", more), ("different", changed))
    return "; ".join(f"{what}: {', '.join(names[:5])}" for what, names in parts if names)


def temporary_folder(folder: Path) -> Path:
    """Return the folder of temporary files of the commands that work in ``folder``."""
    return folder.parent / f"{folder.name}-tmp"


def temporary_files(folder: Path) -> list[str]:
    """Return files and folders that a command made for itself and should have removed."""
    inside = [p for p in folder.rglob("*") if _TEMPORARY.search(p.name) and p.parent != folder]
    found = (*inside, *temporary_folder(folder).glob("*"))
    return sorted({p.relative_to(folder.parent).as_posix() for p in found if not _OF_OTHERS.search(p.name)})


def _digest(path: Path, folder: Path) -> str:
    read = _READERS.get(path.suffix)
    if path.suffix in _ONLY_PRESENT and path.name != "scores.csv":
        return "present"
    content = read(path, folder) if read else path.read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _json(path: Path, folder: Path) -> bytes:
    text = path.read_text().replace(str(folder), "@CASE@")
    made_of_times = "prepared" not in path.relative_to(folder).parts  # digests of models and of paths
    return json.dumps(_stable(json.loads(text), digests=not made_of_times), sort_keys=True).encode()


def _stable(value: Any, *, digests: bool) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not _VOLATILE.fullmatch(k) and (digests or not _DIGEST.search(k))}
        return {k: _stable(v, digests=digests) for k, v in kept.items()}
    return [_stable(v, digests=digests) for v in value] if isinstance(value, list) else value


def _tensors(path: Path, folder: Path) -> bytes:
    return b"".join(k.encode() + v.tobytes() for k, v in sorted(load_file(path).items()))


def _array(path: Path, folder: Path) -> bytes:
    return np.asarray(blosc2.open(str(path), mode="r")[:]).tobytes()


def _arrays(path: Path, folder: Path) -> bytes:
    with np.load(path, allow_pickle=False) as arrays:
        return b"".join(name.encode() + arrays[name].tobytes() for name in sorted(arrays.files))


_READERS: dict[str, Callable[[Path, Path], bytes]] = {
    ".json": _json,
    ".safetensors": _tensors,
    ".b2nd": _array,
    ".npz": _arrays,
}
