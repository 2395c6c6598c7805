"""What is done with folders without a manifest, cohorts, folds, mixed inputs, and labels in DICOM."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from decathlete.errors import printable
from robustness.actions import Action, Input
from robustness.commands import CommandResult, run_command
from robustness.formats.dicom_labels import CLASSES
from robustness.judging import ACCEPTED, Finding, judge_call, judge_command
from robustness.outcomes import BATCH, CLEAN, DIFFERENT, WRONG
from robustness.phantom import SHAPE_XYZ
from robustness.views import MustFailError, UnsureError
from robustness.views.structures import count_voxels

_OF_SYSTEMS = re.compile(r"^\.|^(Thumbs\.db|desktop\.ini)$")
"""Files of operating systems, which nobody means as images."""

_NAMED_KINDS = ("spacing", "labels")
"""Changes of a cohort that ``check`` has to name."""


def read_structures(case: Input) -> Finding:
    """Read the label on the grid of its image, and count its voxels independently."""
    from decathlete.io.dicom_label import read_structure_label
    from decathlete.io.images import read_grid

    image, label = case.entry / "image", case.entry / "label.dcm"
    grid = judge_call(lambda: read_grid(image)[1], case.names | {"image"})
    if isinstance(grid, Finding):
        return grid
    names = [(name, value) for value, name in enumerate(CLASSES, start=1)]
    read = judge_call(lambda: read_structure_label(label, grid, names), case.names)
    if isinstance(read, Finding):
        return read
    if grid.shape_ZYX != SHAPE_XYZ[::-1]:
        return ACCEPTED
    try:
        counts = count_voxels(label)
    except UnsureError as problem:
        return Finding(result=DIFFERENT, cause=str(problem))
    except MustFailError as problem:
        return Finding(result=WRONG, cause=f"accepted, but: {problem}")
    found = np.bincount(read.array_ZYX.ravel(), minlength=len(CLASSES) + 1)
    for value, name in enumerate(CLASSES, start=1):
        expected, doubtful = counts.get(name, (0, 0))
        if abs(int(found[value]) - expected) > doubtful:
            detail = f"{name}: {found[value]} voxels, {expected} expected"
            return Finding(result=WRONG, cause="another number of voxels than declared", detail=detail)
    return ACCEPTED


def _convert_plain(case: Input, out: Path) -> CommandResult:
    folders = ["--images", "images", "--labels", "labels", "--channels", "image"]
    return run_command(
        ["convert", str(case.entry), *folders, "--to", "decathlon", "-o", str(out), "--workers", "1", "--copy"]
    )


def convert_plain(case: Input) -> Finding:
    """Convert plain folders; every file is used, or named."""
    out = Path(case.output("Task01_Plain"))
    result = _convert_plain(case, out)
    finding = judge_command(result, case.names | {"images", "labels"})
    if finding.result != DIFFERENT:
        return finding
    used = {entry[key].rpartition("/")[2] for entry in _training(out) for key in ("image", "label")}
    used = {name.partition(".")[0] for name in used}
    files = [p for p in case.entry.rglob("*") if p.is_file()]
    return _unnamed([p for p in files if p.name.partition(".")[0] not in used], result.output)


def _training(out: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((out / "dataset.json").read_text())["training"]
    return found


def _unnamed(paths: list[Path], output: str) -> Finding:
    """Return a finding if the output does not contain the name of a file, or of a folder around it."""
    silent = [p for p in paths if not _OF_SYSTEMS.search(p.name) and not _is_named(p, output)]
    if silent:
        return Finding(result=WRONG, cause="a file is neither used nor named", detail=f"{silent[0]}\n{output}")
    return ACCEPTED


def _is_named(path: Path, output: str) -> bool:
    """Whether a message names a file, the folder around it, or its case as one that failed."""
    names = [path.name, f"{path.name.partition('.')[0]} failed"]
    if path.parent.name not in ("images", "labels", "mutant"):
        names.append(path.parent.name)
    return any(printable(name) in output or name in output for name in names)


def understand_plain(case: Input) -> Finding:
    """Find cases, channels and labels of plain folders without any help."""
    from decathlete.dataset.conversion.plain_sources import FileNames
    from decathlete.dataset.plain_folders import read_plain_folders

    names = FileNames(images=case.entry / "images", labels=case.entry / "labels")
    found = judge_call(lambda: read_plain_folders(names, workers=1).describe(), case.names | {"images", "labels"})
    return found if isinstance(found, Finding) else ACCEPTED


def check_cohort(case: Input) -> Finding:
    """Check a cohort; a case that differs is named."""
    result = run_command(["check", str(case.entry), "--workers", "1"])
    finding = judge_command(result, case.names)
    changed = {name.removesuffix(".nii") for name in case.names if name.startswith("case_")}
    silent = sorted(name for name in changed if name not in result.output)
    if finding.result in (DIFFERENT, CLEAN) and case.kind in _NAMED_KINDS and silent:
        return Finding(result=WRONG, cause=f"check does not name a case with another {case.kind}", detail=result.output)
    return finding


def preprocess(case: Input) -> Finding:
    """Preprocess the dataset; its folds hold out what they do not train on."""
    out = Path(case.output("prepared"))
    arguments = ["preprocess", "--task", str(case.entry), "--prepared", str(out), "--filters", "4,8", "--workers", "1"]
    finding = judge_command(run_command(arguments), case.names)
    if finding.result != DIFFERENT:
        return finding
    (path,) = out.rglob("splits.json")
    for fold in json.loads(path.read_text())["folds"]:
        if not fold["train"] or set(fold["train"]) & set(fold["val"]):
            return Finding(result=WRONG, cause="a fold trains on what it holds out", detail=str(fold))
    return ACCEPTED


def predict_folder(case: Input) -> Finding:
    """Predict a folder of many kinds; every file is predicted or named."""
    out = Path(case.output("predicted"))
    arguments = ["--model", str(case.shared.model), "-i", str(case.entry), "-o", str(out), "--device", "cpu"]
    result = run_command(["predict", *arguments])
    finding = judge_command(result, case.names)
    if finding.result not in (DIFFERENT, CLEAN):
        return finding
    predicted = {p.name.partition(".")[0] for p in out.glob("*")} if out.is_dir() else set()
    if finding.result == CLEAN and not predicted:
        return Finding(result=BATCH, cause=f"nothing is predicted: {finding.cause}", detail=result.output)
    left = [p for p in case.entry.iterdir() if p.name.partition(".")[0] not in predicted]
    silent = _unnamed([p for p in left if p.suffix != ".raw"], result.output)
    return finding if silent is ACCEPTED else silent


FOLDER_ACTIONS: dict[str, Action] = {
    "read_structures": read_structures,
    "convert_plain": convert_plain,
    "understand_plain": understand_plain,
    "check_cohort": check_cohort,
    "preprocess": preprocess,
    "predict_folder": predict_folder,
}
