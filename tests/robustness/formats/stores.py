"""Prepared data and folders of trained runs, as a crash of the machine or a bad disk leaves them."""

from __future__ import annotations

import json
from random import Random

from robustness.byte_mutations import BYTE_MUTATIONS, ByteMutation
from robustness.datasets import make_workspace
from robustness.formats import FileMutation, Files, Format
from robustness.json_mutations import mutate_json, mutate_json_text


def _among(below: str, mutation: ByteMutation, suffix: str) -> FileMutation:
    """Apply a mutation of bytes to a random file with ``suffix`` below a folder."""

    def mutate(files: Files, random: Random) -> Files:
        names = sorted(n for n in files if n.startswith(below) and n.endswith(suffix) and files[n])
        name = random.choice(names)
        return files | {name: mutation(files[name], random)}

    return mutate


def _lose(below: str) -> FileMutation:
    """Remove or empty a random file below a folder."""

    def mutate(files: Files, random: Random) -> Files:
        name = random.choice(sorted(n for n in files if n.startswith(below)))
        kept = {other: content for other, content in files.items() if other != name}
        return kept | ({name: b""} if random.random() < 0.5 else {})

    return mutate


def _mutations(below: str, *binary: str) -> dict[str, FileMutation]:
    found: dict[str, FileMutation] = {"files": _lose(below)}
    for suffix in binary:
        found |= {f"{suffix[1:]}_{kind}": _among(below, m, suffix) for kind, m in BYTE_MUTATIONS.items()}
    return found | {
        "json": _among(below, mutate_json, ".json"),
        "json_text": _among(below, mutate_json_text, ".json"),
    }


def _store() -> Files:
    return make_workspace(trained=False)


def _run() -> Files:
    return make_workspace(trained=True)


def _stopped_run() -> Files:
    """A run that was killed after its last checkpoint."""
    kept = {name: content for name, content in _run().items() if "/model" not in name and "/scores" not in name}
    (record,) = (name for name in kept if name.endswith("fold_0/run.json"))
    return kept | {record: json.dumps(json.loads(kept[record]) | {"finished": None}).encode()}


FORMATS = (
    Format(
        name="store",
        make=_store,
        entry="prepared",
        mutations=_mutations("prepared", ".b2nd", ".npz"),
        actions=("open_store", "prepare_again"),
    ),
    Format(
        name="store_trained_on",
        make=_store,
        entry="prepared",
        mutations=_mutations("prepared", ".b2nd", ".npz"),
        actions=("train",),
        weight=0.15,
    ),
    Format(
        name="run",
        make=_run,
        entry="results",
        mutations=_mutations("results", ".ckpt", ".safetensors"),
        actions=("report", "validate"),
        weight=0.5,
    ),
    Format(
        name="run_resumed",
        make=_stopped_run,
        entry="results",
        mutations=_mutations("results", ".ckpt"),
        actions=("resume",),
        weight=0.15,
    ),
)
