"""Small honest datasets, and what the commands make of them: a prepared store and a trained fold."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from decathlete.core.checksums import add_checksum, remove_checksum
from robustness.commands import run_command
from robustness.phantom import SPACING_XYZ, make_phantom

CASE_FOLDER = "@CASE@"
"""Stands for the folder of the case in the JSON files of honest inputs, which name their raw dataset."""

TASK = "raw/Task01_Ball"
OTHER_TASK = "raw/Task02_Ball"
_SHAPE_XYZ = (16, 14, 12)
_TIME_S = 1_700_000_000
"""Time of all input files: digests of raw files contain it."""

TRAINING = ("--epochs", "2", "--steps-per-epoch", "2", "--batch-size", "2", "--device", "cpu")
"""Options of the shortest training."""

ENGINE = ("--engine", "torch")
"""Engine of commands that have to find scores of the same engine: `auto` differs where OpenVINO is installed."""


def nifti_bytes(array_XYZ: np.ndarray) -> bytes:
    """Return an uncompressed NIfTI with equal qform and sform."""
    affine = np.diag([*SPACING_XYZ, 1.0])
    image = nibabel.Nifti1Image(array_XYZ, affine, dtype=array_XYZ.dtype)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm")
    return bytes(image.to_bytes())


def make_dataset(n_cases: int, *, n_tests: int = 0, layout: str = "decathlon") -> dict[str, bytes]:
    """Return the files of a dataset of phantoms, in the Decathlon's or nnU-Net's layout."""
    files: dict[str, bytes] = {}
    listed: list[dict[str, str]] = []
    channel = "_0000" if layout == "nnunet" else ""
    for number in range(n_cases + n_tests):
        image, label = make_phantom(number, _SHAPE_XYZ)
        part = "Ts" if number >= n_cases else "Tr"
        files[f"images{part}/case_{number}{channel}.nii"] = nifti_bytes(image)
        if part == "Tr":
            files[f"labelsTr/case_{number}.nii"] = nifti_bytes(label)
            listed.append({"image": f"./imagesTr/case_{number}.nii", "label": f"./labelsTr/case_{number}.nii"})
    tests = [f"./imagesTs/case_{number}.nii" for number in range(n_cases, n_cases + n_tests)]
    manifest = _decathlon(listed, tests) if layout == "decathlon" else _nnunet(n_cases)
    return files | {"dataset.json": json.dumps(manifest, indent=1).encode()}


def _decathlon(listed: list[dict[str, str]], tests: list[str]) -> dict[str, object]:
    labels = {"0": "background", "1": "ball", "2": "cube"}
    return {
        "name": "Ball",
        "modality": {"0": "MRI"},
        "labels": labels,
        "numTraining": len(listed),
        "numTest": len(tests),
        "training": listed,
        "test": tests,
    }


def _nnunet(n_cases: int) -> dict[str, object]:
    labels = {"background": 0, "ball": 1, "cube": 2}
    return {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": n_cases, "file_ending": ".nii"}


def write_files(files: dict[str, bytes], folder: Path) -> None:
    """Write the files of a case; the JSON files that name the folder of the case get its path."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".json"):
            content = _replace(content, CASE_FOLDER, str(folder))
        path.write_bytes(content)
        os.utime(path, (_TIME_S, _TIME_S))


def _replace(content: bytes, old: str, new: str) -> bytes:
    """Replace a path in a JSON file; a checksum that fits the content is made again, one that does not stays."""
    changed = content.replace(old.encode(), new.encode())
    if changed == content:
        return content
    try:
        bare = remove_checksum(content.decode())
    except ValueError:
        return changed
    if bare == content.decode():  # without a checksum
        return changed
    return add_checksum(bare.replace(old, new)).encode()


def workspace_options(folder: Path, *, command: str) -> list[str]:
    """Return the options that name the dataset and the folders of a workspace in ``folder``."""
    options = ["--task", str(folder / TASK), "--prepared", str(folder / "prepared")]
    if command == "preprocess":
        return [*options, "--filters", "4,8", "--workers", "1"]
    return [*options, "--results", str(folder / "results")]


def make_workspace(*, trained: bool, n_tests: int = 0) -> dict[str, bytes]:
    """Return a workspace: raw data, prepared data and, if ``trained``, one trained and scored fold."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_files({f"{TASK}/{n}": c for n, c in make_dataset(5, n_tests=n_tests).items()}, folder)
        _must_succeed(["preprocess", *workspace_options(folder, command="preprocess")])
        if trained:
            _must_succeed(["train", *workspace_options(folder, command="train"), *TRAINING])
            (run,) = (folder / "results").rglob("fold_0")
            _must_succeed(["validate", "--model", str(run), "--device", "cpu", "--workers", "1"])
        return _read_workspace(folder)


def make_configurations() -> dict[str, bytes]:
    """Return raw data, prepared data and two folds each of a trained 2D and a 3D configuration."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_files({f"{TASK}/{n}": c for n, c in make_dataset(5).items()}, folder)
        for dim in ("2", "3"):
            options = ["--prepared", str(folder / "prepared"), "--results", str(folder / "results"), "--filters", "4,8"]
            _must_succeed(["run", str(folder / TASK), *options, "--dim", dim, "--folds", "0-1", *TRAINING, *ENGINE])
        return _read_workspace(folder)


def _read_workspace(folder: Path) -> dict[str, bytes]:
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if path.suffix == ".json":
            content = _replace(content, str(folder), CASE_FOLDER)
        files[path.relative_to(folder).as_posix()] = content
    return files


def _must_succeed(arguments: Sequence[str]) -> None:
    result = run_command(arguments)
    if result.code != 0:
        raise RuntimeError(f"an honest `decathlete {' '.join(arguments)}` failed: {result.output[-2000:]}")
