"""Read what a training left, as arrays by name, and compare two of them bit for bit."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import nibabel
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Arrays = Mapping[str, NDArray[Any]]

NOT_COMPARED = ("seconds", "elapsed", "patches_per_second", "coarse")
"""Columns of logs.csv that differ from run to run, or that older code does not write."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How one kind of result of one training compares.

    Attributes:
        n: arrays that were compared.
        note: empty if all are equal.
    """

    training: str
    kind: str
    n: int
    equal: bool
    max_difference: float
    note: str


def only_folder(folder: Path, name: str) -> Path:
    """The one folder called ``name`` below ``folder``."""
    found = [path for path in folder.rglob(name) if path.is_dir()]
    if len(found) != 1:
        raise SystemExit(f"{folder} holds {len(found)} folders called {name}, 1 was expected")
    return found[0].resolve()


def read_prepared(folder: Path) -> Arrays:
    """Images, label maps and foreground places of all prepared cases: ``case/file`` -> array."""
    found: dict[str, NDArray[Any]] = {}
    for path in (folder / "prepared").rglob("*"):
        key = f"{path.parent.name}/{path.name}"
        if path.suffix == ".b2nd":
            found[key] = np.asarray(blosc2.open(str(path), mode="r")[()])
        elif path.suffix == ".npz":
            found |= _from_npz(path, key)
    return found


def read_losses(folder: Path) -> Arrays:
    """Every figure of the run's ``logs.csv`` but those that are not compared: column -> values."""
    with (only_folder(folder / "results", "fold_0") / "logs.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0] if name not in NOT_COMPARED}


def read_weights(folder: Path) -> Arrays:
    """All tensors of the final model, whatever files below its folder hold them."""
    return _tensors(only_folder(folder / "results", "fold_0") / "model")


def read_best_weights(folder: Path) -> Arrays:
    """All tensors of the model of the best validation."""
    return _tensors(only_folder(folder / "results", "fold_0") / "model_best")


def read_predictions(folder: Path) -> Arrays:
    """Label maps of the test images and of the held-out cases, with their affines."""
    found: dict[str, NDArray[Any]] = {}
    run = only_folder(folder / "results", "fold_0")
    for path in sorted(run.rglob("*.nii.gz")):
        image: Any = nibabel.load(path)
        found[f"{path.parent.name}/{path.name}"] = np.asarray(image.dataobj)
        found[f"{path.parent.name}/{path.name} affine"] = image.affine
    return found


def read_probabilities(folder: Path) -> Arrays:
    """Probabilities of the test images."""
    found: dict[str, NDArray[Any]] = {}
    for path in sorted((folder / "probabilities").iterdir()):
        if path.suffix in (".npz", ".npy"):
            found |= _from_npz(path, path.name)
        elif path.name.endswith((".nii", ".nii.gz")):
            image: Any = nibabel.load(path)
            found[path.name] = np.asarray(image.dataobj)
    return found


READERS: dict[str, Callable[[Path], Arrays]] = {
    "prepared arrays": read_prepared,
    "losses and Dice": read_losses,
    "final weights": read_weights,
    "best weights": read_best_weights,
    "label maps": read_predictions,
    "probabilities": read_probabilities,
}


def _from_npz(path: Path, key: str) -> dict[str, NDArray[Any]]:
    content = np.load(path, allow_pickle=False)
    if isinstance(content, np.ndarray):
        return {key: content}
    with content:
        return {f"{key}/{name}": content[name] for name in content.files}


def _tensors(folder: Path) -> Arrays:
    """Tensors by name, without the prefix that all names share (another layout may name the member there)."""
    found: dict[str, NDArray[Any]] = {}
    files = sorted(folder.rglob("*.safetensors"))
    for path in files:
        prefix = "" if len(files) == 1 else f"{path.relative_to(folder).with_suffix('').as_posix()}."
        found |= {prefix + name: value for name, value in load_file(path).items()}
    while len(found) > 1 and len({name.partition(".")[0] for name in found}) == 1:
        found = {name.partition(".")[2]: value for name, value in found.items()}
    return found


def compare(training: str, kind: str, old: Arrays, new: Arrays) -> Comparison:
    """Compare arrays of one kind by name; if names differ, by content."""
    if not old:
        raise SystemExit(f"{training}: the old side has no {kind}")
    if old.keys() != new.keys():
        same = Counter(map(_digest, old.values())) == Counter(map(_digest, new.values()))
        missing, added = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
        note = f"{len(missing)} names missing, {len(added)} added: {', '.join([*missing, *added][:3])}"
        return Comparison(
            training=training,
            kind=kind,
            n=len(old),
            equal=same,
            max_difference=0.0 if same else float("nan"),
            note=f"same values; {note}" if same else note,
        )
    differing = {name: _difference(old[name], new[name]) for name in old if _digest(old[name]) != _digest(new[name])}
    worst = sorted(differing, key=lambda name: -differing[name])[:2]
    return Comparison(
        training=training,
        kind=kind,
        n=len(old),
        equal=not differing,
        max_difference=max(differing.values(), default=0.0),
        note="" if not differing else f"{len(differing)} differ: {', '.join(worst)}",
    )


def _digest(array: NDArray[Any]) -> str:
    """Of type, shape and bytes: NaN equals NaN, 0.0 differs from -0.0."""
    content = np.ascontiguousarray(array)
    return hashlib.sha256(f"{content.dtype} {content.shape} ".encode() + content.tobytes()).hexdigest()


def _difference(old: NDArray[Any], new: NDArray[Any]) -> float:
    """Greatest absolute difference; infinite if shapes differ or only one side is NaN."""
    if old.shape != new.shape:
        return float("inf")
    a, b = old.astype(np.float64), new.astype(np.float64)
    if (np.isnan(a) != np.isnan(b)).any():
        return float("inf")
    return float(np.nanmax(np.abs(a - b), initial=0.0))


def compare_sides(old: Path, new: Path, names: Sequence[str]) -> Iterator[Comparison]:
    """Each kind of result of each training."""
    for name in names:
        for kind, read in READERS.items():
            yield compare(name, kind, read(old / name), read(new / name))


def table(comparisons: Sequence[Comparison]) -> str:
    """A Markdown table."""
    lines = ["| training | result | arrays | | max. difference | |", "|---|---|---|---|---|---|"]
    for c in comparisons:
        word = "equal" if c.equal else "**different**"
        lines.append(f"| {c.training} | {c.kind} | {c.n} | {word} | {c.max_difference:.3g} | {c.note} |")
    return "\n".join(lines)
