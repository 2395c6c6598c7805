"""What is done with an input, and how the result is judged: images."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from robustness.commands import run_command
from robustness.datasets import nifti_bytes, write_files
from robustness.formats import Files
from robustness.formats.models import save_bundle
from robustness.judging import ACCEPTED, Finding, judge_call, judge_command
from robustness.outcomes import BATCH, CLEAN, DIFFERENT, EQUAL, WRONG
from robustness.phantom import make_phantom
from robustness.views import MustFailError, UnsureError, View, differences, view

_NUMBERS = re.compile(r"\[[^]]*\]|\([^)]*\)|[-+]?\d[\d.e+-]*")


@dataclass(frozen=True, kw_only=True)
class Input:
    """An input on disk.

    Attributes:
        folder: of the case; an action may write anything below it.
        entry: the file or folder that commands are given.
        kind: of the mutation.
        names: names of the changed files and their folders.
        honest: the honest files, for comparison.
        shared: a folder of this process with an honest model and images.
    """

    folder: Path
    entry: Path
    kind: str
    names: set[str]
    honest: Files = field(repr=False)
    shared: Shared

    def output(self, name: str) -> str:
        """Return a path for results."""
        return str(self.folder / "out" / name)


class Shared:
    """Honest inputs that many cases use, made once in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def model(self) -> Path:
        """An untrained model."""
        save_bundle(self.folder / "honest_model")
        return self.folder / "honest_model"

    @cached_property
    def image(self) -> Path:
        """An image."""
        path = self.folder / "honest.nii"
        path.write_bytes(nifti_bytes(make_phantom(1)[0]))
        return path

    @cached_property
    def label(self) -> Path:
        """A label map of the same grid."""
        path = self.folder / "honest_label.nii"
        path.write_bytes(nifti_bytes(make_phantom(1)[1]))
        return path


def look_at(path: Path) -> View | Finding:
    """Read a file independently; a finding where nothing is known, or where it must not have been accepted."""
    try:
        return view(path)
    except UnsureError as problem:
        return Finding(result=DIFFERENT, cause=str(problem))
    except MustFailError as problem:
        return Finding(result=WRONG, cause=f"accepted, but: {_without_numbers(problem)}", detail=str(problem))


def _without_numbers(problem: object) -> str:
    return _NUMBERS.sub("N", str(problem))[:90]


def read(case: Input) -> Finding:
    """Read the image and its grid, and compare them with an independent reader's."""
    from decathlete.io.images import read_grid, read_image

    image = judge_call(lambda: read_image(case.entry), case.names)
    if isinstance(image, Finding):
        return image
    grid = judge_call(lambda: read_grid(case.entry)[1], case.names)
    if isinstance(grid, Finding):
        return grid
    if unequal := image.geometry.differences(grid):
        return Finding(result=WRONG, cause="the grid of the header is another than the image's", detail=str(unequal))
    found = look_at(case.entry)
    if isinstance(found, Finding):
        return found
    affine = np.asarray(image.geometry.matrix)[:, [2, 1, 0, 3]]
    if text := differences(image.array_CZYX, affine, found):
        return Finding(result=WRONG, cause=f"read as something else: {text.split()[0]}", detail=text)
    return Finding(result=EQUAL) if case.kind == "honest" else ACCEPTED


def check(case: Input) -> Finding:
    """Check a dataset in which one case has the input as its image and one as its label map."""
    root = case.folder / "dataset"
    (root / "imagesTr").mkdir(parents=True)
    image, label, entry = root / "imagesTr" / "honest.nii", root / "labelsTr.nii", root / "imagesTr" / case.entry.name
    image.write_bytes(case.shared.image.read_bytes())
    label.write_bytes(case.shared.label.read_bytes())
    _move_into(case, root / "imagesTr")
    second = root / "imagesTr" / "second.nii"
    second.write_bytes(image.read_bytes())
    pairs = ((image, label), (entry, label), (second, entry))
    training = [{"image": str(i.relative_to(root)), "label": str(m.relative_to(root))} for i, m in pairs]
    manifest = {"name": "T", "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "a", "2": "b"}}
    (root / "dataset.json").write_text(json.dumps(manifest | {"numTraining": 3, "training": training, "test": []}))
    result = run_command(["check", str(root), "--workers", "1"])
    finding = judge_command(result, case.names)
    if finding.result in (DIFFERENT, CLEAN) and not any(
        end in result.output for end in ("no problems found", "warnings", "warning")
    ):
        return Finding(result=BATCH, cause=f"check ends without its report: {finding.cause}", detail=result.output)
    return finding


def _move_into(case: Input, folder: Path) -> None:
    """Move the files of the input to a folder."""
    for path in sorted(case.folder.iterdir()):
        if path.name.startswith("mutant"):
            path.rename(folder / path.name)


def predict(case: Input) -> Finding:
    """Predict a folder with the input and an honest image beside it; a file with frames is predicted alone."""
    images = case.folder / "images"
    images.mkdir()
    _move_into(case, images)
    source = images / case.entry.name
    if source.suffix == ".dcm":
        return _predict(case, source, source)
    if source.is_dir():  # the input is a folder of DICOM folders; the honest one has the files as they were
        write_files({f"honest/{Path(name).name}": content for name, content in case.honest.items()}, images)
    else:
        (images / "honest.nii").write_bytes(case.shared.image.read_bytes())
    return _predict(case, images, source)


def _predict(case: Input, images: Path, source: Path) -> Finding:
    out = case.folder / "out"
    result = run_command(
        ["predict", "--model", str(case.shared.model), "-i", str(images), "-o", str(out), "--device", "cpu"]
    )
    finding = judge_command(result, case.names)
    if finding.result not in (DIFFERENT, CLEAN):
        return finding
    if images != source and not list(out.glob("honest.nii*")):
        return Finding(result=BATCH, cause=f"the honest image is not predicted: {finding.cause}", detail=result.output)
    return finding if finding.result == CLEAN else _judge_prediction(source, out)


def _judge_prediction(image: Path, out: Path) -> Finding:
    """Compare the grid of a prediction with the image's, both read independently."""
    written = [p for p in out.glob("mutant.*") if p.suffix not in (".json", ".raw")]
    if image.is_dir() and not written and len(list(out.glob("mutant_*.nii*"))) > 1:
        return ACCEPTED  # a changed identifier makes slices another series
    if len(written) != 1:
        return Finding(result=WRONG, cause=f"exit 0 with {len(written)} predictions of the input")
    found, predicted = look_at(image), look_at(written[0])
    if isinstance(found, Finding):
        return found
    if isinstance(predicted, Finding):
        return Finding(result=WRONG, cause=f"the prediction cannot be read: {predicted.cause}")
    if predicted.array_CZYX.shape[1:] != found.array_CZYX.shape[1:]:
        return Finding(result=WRONG, cause="the prediction has another size than the image")
    pairs = [(a, b) for a in predicted.affines for b in found.affines]
    if pairs and not any(np.allclose(a, b, rtol=1e-3, atol=1e-2) for a, b in pairs):
        return Finding(result=WRONG, cause="the prediction does not lie on its image", detail=str(pairs[0]))
    return ACCEPTED


Action = Callable[[Input], Finding]
IMAGE_ACTIONS: dict[str, Action] = {"read": read, "check": check, "predict": predict}


def load_actions() -> dict[str, Action]:
    """Return all actions by name."""
    from robustness.folder_actions import FOLDER_ACTIONS
    from robustness.service_actions import SERVICE_ACTIONS
    from robustness.work_actions import WORK_ACTIONS

    return {**IMAGE_ACTIONS, **WORK_ACTIONS, **FOLDER_ACTIONS, **SERVICE_ACTIONS}
