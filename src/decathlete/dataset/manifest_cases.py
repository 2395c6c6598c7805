"""The cases that a ``dataset.json`` lists, or that the folders beside it hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from decathlete.dataset.find_dataset import MANIFEST
from decathlete.dataset.listed_cases import ListedCases, labelled_case, listed_file, listed_tests, read_listed_cases
from decathlete.dataset.manifest_schema import DecathlonManifest, ListedTest, Manifest, NnUNetManifest, lists_files
from decathlete.dataset.spec import Case
from decathlete.errors import ImageError
from decathlete.io.format_lookup import is_picture
from decathlete.io.image_files import group_channels, image_suffixes, is_image_name, strip_suffix

_NUMBERED = re.compile(r"(?P<id>.+)_[0-9]{4}")


def read_cases(manifest: Manifest, root: Path, n_channels: int, problems: list[str]) -> ListedCases:
    """Return the cases of a manifest; what is wrong is added to ``problems``."""
    if isinstance(manifest, DecathlonManifest):
        return read_listed_cases(manifest, root)
    tests = _listed_tests(manifest, root)
    unused = _vain_lists(manifest, *(("test",) if tests is None else ()))
    ending = manifest.file_ending
    if not ending.startswith(".") or not f"x{ending}".lower().endswith(image_suffixes()):
        hint = f": write {f'.{ending}'!r}" if f".{ending}".lower() in image_suffixes() else ""
        problems.append(f"file_ending {ending!r} is not one of {', '.join(image_suffixes())}{hint}")
        return ListedCases(training=(), test=(), unused=unused)
    try:
        if manifest.dataset is not None:
            cases = _listed_cases(manifest.dataset, root, problems)
        else:
            cases = _folder_cases(root, "Tr", ending, n_channels)
        test_cases = (*_folder_cases(root, "Ts", ending, n_channels), *(tests or ()))
    except ImageError as problem:
        problems.append(problem.problem)
        return ListedCases(training=(), test=(), unused=unused)
    if not cases:
        problems.append(f"there are no images *{ending} in imagesTr{_content(root / 'imagesTr')}")
    return ListedCases(training=cases, test=test_cases, unused=unused)


def _listed_tests(manifest: NnUNetManifest, root: Path) -> tuple[Case, ...] | None:
    """Return the listed test images of a manifest that lists its cases, too; ``None``: ``test`` is not such a list."""
    if manifest.dataset is None:
        return None
    try:
        return listed_tests(root, TypeAdapter(list[str | ListedTest]).validate_python(manifest.test or []))
    except ValidationError:
        return None


def _vain_lists(manifest: NnUNetManifest, *others: str) -> tuple[str, ...]:
    reason = "nnU-Net finds cases by the names of their files, and folds in splits_final.json"
    listed = [name for name in ("training", "validation", *others) if getattr(manifest, name)]
    return tuple(f"{name!r} in {MANIFEST} is not used: {reason}" for name in listed)


def _listed_cases(listed: dict[str, dict[str, Any]], root: Path, problems: list[str]) -> tuple[Case, ...]:
    """Read nnU-Net v2's ``dataset`` object: id -> images (a list) and label, relative to the folder or absolute.

    A label may be a list of DICOM objects.
    """
    cases = []
    for case_id, entry in listed.items():
        images, label = entry.get("images"), entry.get("label")
        if not isinstance(images, list) or not images or not lists_files(label):
            problems.append(f"dataset.{case_id} needs 'images' (a list of files) and 'label' (a file)")
            continue
        files = tuple(listed_file(root, str(f)) for f in images)
        cases.append(labelled_case(case_id, files, root, label))
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
