"""The cases that a ``dataset.json`` lists, or that the folders beside it hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from decathlete.dataset.find_dataset import MANIFEST
from decathlete.dataset.manifest_schema import CaseFiles, DecathlonManifest, Manifest, NnUNetManifest
from decathlete.dataset.spec import Case
from decathlete.errors import ImageError
from decathlete.io.format_lookup import is_picture
from decathlete.io.image_files import group_channels, image_suffixes, is_image_name, strip_suffix

_NUMBERED = re.compile(r"(?P<id>.+)_[0-9]{4}")


def read_cases(
    manifest: Manifest, root: Path, n_channels: int, problems: list[str]
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Return the training cases and the test cases; what is wrong is added to ``problems``."""
    if isinstance(manifest, DecathlonManifest):
        return _decathlon_cases(manifest, root)
    ending = manifest.file_ending
    if not ending.startswith(".") or not f"x{ending}".lower().endswith(image_suffixes()):
        problems.append(f"file_ending {ending!r} is not one of {', '.join(image_suffixes())}")
        return (), ()
    try:
        if manifest.dataset is not None:
            cases = _listed_cases(manifest.dataset, root, problems)
        else:
            cases = _folder_cases(root, "Tr", ending, n_channels)
        test_cases = _folder_cases(root, "Ts", ending, n_channels)
    except ImageError as problem:
        problems.append(problem.problem)
        return (), ()
    if not cases:
        problems.append(f"there are no images *{ending} in imagesTr{_content(root / 'imagesTr')}")
    return cases, test_cases


def _decathlon_cases(manifest: DecathlonManifest, root: Path) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    def images(files: str | list[str]) -> tuple[Path, ...]:
        return tuple(listed_file(root, f) for f in ([files] if isinstance(files, str) else files))

    training = [(images(t.image), listed_file(root, t.label)) for t in manifest.training]
    test = [images(t if isinstance(t, str) else t.image) for t in manifest.test]
    return (
        tuple(
            Case(id=case_id, images=files, label=label)
            for case_id, (files, label) in zip(_ids([f for f, _ in training], root), training, strict=True)
        ),
        tuple(Case(id=case_id, images=files) for case_id, files in zip(_ids(test, root), test, strict=True)),
    )


def read_validation_cases(
    manifest: Manifest, root: Path, cases: Sequence[Case]
) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """Return the cases of the manifest's validation list, and what the manifest lists in vain, with the reason."""
    if isinstance(manifest, NnUNetManifest):
        reason = "nnU-Net finds cases by the names of their files, and folds in splits_final.json"
        listed = [name for name in ("training", "validation", "test") if getattr(manifest, name)]
        return (), tuple(f"{name!r} in {MANIFEST} is not used: {reason}" for name in listed)
    if not manifest.validation:
        return (), ()
    try:
        files = TypeAdapter(list[CaseFiles]).validate_python(manifest.validation)
    except ValidationError:
        reason = "it must list an image and a label map for each case, as 'training' does"
        return (), (f"'validation' in {MANIFEST} is not used: {reason}",)
    found, _ = _decathlon_cases(manifest.model_copy(update={"training": files, "test": []}), root)
    if set(cases) <= set(found):
        return (), (f"'validation' in {MANIFEST} is not used: it lists every case of 'training'",)
    return found, ()


def _ids(cases: Sequence[tuple[Path, ...]], root: Path) -> list[str]:
    """Return the names of the images; of DICOM folders with equal names (PATIENT/CT) their paths: PATIENT_CT."""
    ids = [_id(images) for images in cases]
    counts = Counter(ids)
    return [
        "_".join(images[0].relative_to(root).parts)
        if counts[case_id] > 1 and images[0].is_dir() and images[0].is_relative_to(root)
        else case_id
        for case_id, images in zip(ids, cases, strict=True)
    ]


def _id(images: tuple[Path, ...]) -> str:
    return strip_suffix(images[0].name).removesuffix("_0000" if len(images) > 1 else "")


def listed_file(root: Path, text: str) -> Path:
    """Return the path of a file that a manifest or a table lists; back slashes of Windows separate folders, too."""
    path = root / text
    return root / text.replace("\\", "/") if "\\" in text and not path.exists() else path


def _listed_cases(listed: dict[str, dict[str, Any]], root: Path, problems: list[str]) -> tuple[Case, ...]:
    """Read nnU-Net v2's ``dataset`` object: id -> images (a list) and label, relative to the folder or absolute."""
    cases = []
    for case_id, entry in listed.items():
        images, label = entry.get("images"), entry.get("label")
        if not isinstance(images, list) or not images or not isinstance(label, str):
            problems.append(f"dataset.{case_id} needs 'images' (a list of files) and 'label' (a file)")
            continue
        files = tuple(listed_file(root, str(f)) for f in images)
        cases.append(Case(id=case_id, images=files, label=listed_file(root, label)))
    return tuple(cases)


def _folder_cases(root: Path, part: Literal["Tr", "Ts"], ending: str, n_channels: int) -> tuple[Case, ...]:
    """Find the cases of ``imagesTr`` or ``imagesTs``, with all channels that are declared or exist.

    A label without an image is a case whose image is missing.
    """
    images, labels = root / f"images{part}", root / f"labels{part}"
    files_of = group_channels(_with_ending(images, ending))
    if part == "Tr":
        labelled = {p.name[: -len(ending)] for p in _with_ending(labels, ending)}
        files_of = _group_by_labels(files_of, labelled, n_channels)
        misnamed = {p.name[: -len(ending)] for i, files in files_of.items() if i not in labelled for p in files}
        ids = files_of.keys() | (labelled - misnamed)
    else:
        ids = set(files_of)
    cases = []
    for case_id in sorted(ids):
        files = files_of.get(case_id, ())
        expected = [images / f"{case_id}_{c:04d}{ending}" for c in range(n_channels)]
        if len(files) == 1 and n_channels > 1 and is_picture(files[0]):
            expected = [files[0]]  # nnU-Net's RGB images: all channels are in ID_0000
        extra = [p for p in files if p not in expected and p.name != f"{case_id}{ending}"]
        label = labels / f"{case_id}{ending}" if part == "Tr" else None
        cases.append(Case(id=case_id, images=(*expected, *extra), label=label))
    return tuple(cases)


def _content(folder: Path) -> str:
    """Return what a folder contains instead of what is expected there, as a clause."""
    if not folder.is_dir():
        return ", which does not exist"
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f", which contains {', '.join(names[:3])}{more}" if names else ", which is empty"


def _group_by_labels(
    files_of: dict[str, tuple[Path, ...]], labelled: set[str], n_channels: int
) -> dict[str, tuple[Path, ...]]:
    """Correct the grouping of channels by the names of the label maps.

    ``ID_0001`` belongs to the case ``ID`` if that has a label: its first channel, ``ID_0000``, is missing. Files that
    have a label each are cases, whose names lack the number of the channel, if they are too many for one case.
    """
    found: dict[str, tuple[Path, ...]] = {}
    for case_id, files in files_of.items():
        if case_id not in labelled and len(files) > n_channels and all(strip_suffix(p.name) in labelled for p in files):
            continue  # their labels are the cases
        match = _NUMBERED.fullmatch(case_id)
        is_channel = match is not None and case_id not in labelled and match["id"] in labelled
        key = match["id"] if match is not None and is_channel else case_id
        found[key] = (*found.get(key, ()), *files)
    return found


def _with_ending(folder: Path, ending: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if is_image_name(p) and p.name.endswith(ending))
