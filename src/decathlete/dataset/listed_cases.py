"""Read the cases that a manifest lists by their files, in the layout of the Decathlon or of MONAI's data lists."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from decathlete.core.regions import whole_number
from decathlete.dataset.given_splits import name_some
from decathlete.dataset.manifest_schema import DecathlonManifest, ListedCase, ListedImage, ListedLabel, ListedTest
from decathlete.dataset.spec import Case
from decathlete.io.dicom_label import LabelStructures
from decathlete.io.image_files import strip_suffix

_DRIVE = re.compile(r"[A-Za-z]:[/\\]")


@dataclass(frozen=True, kw_only=True)
class ListedCases:
    """The cases of a list.

    Attributes:
        validation: cases that are listed for validation; some may be among ``training``.
        fold_of: case id -> number of the fold that holds the case out.
        unused: what is listed in vain, with the reason.
    """

    training: tuple[Case, ...]
    test: tuple[Case, ...]
    validation: tuple[Case, ...] = ()
    fold_of: Mapping[str, int] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


def read_listed_cases(manifest: DecathlonManifest, root: Path) -> ListedCases:
    """Return the cases of ``training``, ``validation``, ``test`` and ``testing``."""
    held_out, unused = _validation_entries(manifest)
    entries = [*manifest.training, *held_out]
    images = [_image_files(root, entry.image) for entry in entries]
    cases = [
        labelled_case(case_id, files, root, entry.label)
        for case_id, files, entry in zip(_listed_ids(entries, images, root), images, entries, strict=True)
    ]
    n_training = len(manifest.training)
    training, validation = tuple(cases[:n_training]), tuple(cases[n_training:])
    if validation and set(training) <= set(validation):
        unused += ("'validation' in dataset.json is not used: it lists every case of 'training'",)
        validation = ()
    fold_of, reason = _fold_numbers(training, manifest.training)
    return ListedCases(
        training=training,
        validation=validation,
        test=listed_tests(root, manifest.test, manifest.testing),
        fold_of=fold_of,
        unused=unused + ((f"'fold' in dataset.json is not used: {reason}",) if reason else ()),
    )


def labelled_case(case_id: str, images: tuple[Path, ...], root: Path, listed: ListedLabel) -> Case:
    """Return a case with its label; of several objects, all after the first are its ``structures.others``."""
    first, *others = (listed_file(root, file) for file in ([listed] if isinstance(listed, str) else listed))
    structures = LabelStructures(image=images[0], others=tuple(others)) if others else None
    return Case(id=case_id, images=images, label=first, structures=structures)


def _validation_entries(manifest: DecathlonManifest) -> tuple[list[ListedCase], tuple[str, ...]]:
    if not manifest.validation:
        return [], ()
    try:
        return TypeAdapter(list[ListedCase]).validate_python(manifest.validation), ()
    except ValidationError:
        reason = "it must list an image and a label map for each case, as 'training' does"
        return [], (f"'validation' in dataset.json is not used: {reason}",)


def _fold_numbers(cases: Sequence[Case], entries: Sequence[ListedCase]) -> tuple[dict[str, int], str]:
    """Return the fold of each case that has one, and why the numbers are not used, if they are not."""
    given = {case.id: entry.fold for case, entry in zip(cases, entries, strict=True) if entry.fold is not None}
    numbers = {case_id: whole_number(value) for case_id, value in given.items()}
    found = {case_id: number for case_id, number in numbers.items() if number is not None}
    distinct = sorted(set(found.values()))
    if found != numbers or distinct != list(range(len(distinct))):
        return {}, f"folds are numbered 0, 1, ...; it has {name_some(list(dict.fromkeys(map(repr, given.values()))))}"
    if found and len(found) == len(cases) and len(distinct) == 1:
        return {}, "it is the same for every case"
    return found, ""


def listed_tests(root: Path, *lists: Sequence[str | ListedTest]) -> tuple[Case, ...]:
    """Return the test cases of several lists, without those that an earlier list has."""
    tests: list[tuple[tuple[Path, ...], ListedTest]] = []
    for entries in lists:
        known = [files for files, _ in tests]
        listed = [(_image_files(root, test.image), test) for test in map(_as_listed_test, entries)]
        tests += [(files, test) for files, test in listed if files not in known]
    ids = _listed_ids([test for _, test in tests], [files for files, _ in tests], root)
    return tuple(Case(id=case_id, images=files) for case_id, (files, _) in zip(ids, tests, strict=True))


def _as_listed_test(entry: str | ListedTest) -> ListedTest:
    return ListedTest(image=entry) if isinstance(entry, str) else entry


def _listed_ids(
    entries: Sequence[ListedCase | ListedTest], images: Sequence[tuple[Path, ...]], root: Path
) -> list[str]:
    by_file = zip(entries, case_ids(images, root), strict=True)
    return [case_id if entry.case is None else entry.case for entry, case_id in by_file]


def _image_files(root: Path, listed: ListedImage) -> tuple[Path, ...]:
    return tuple(listed_file(root, file) for file in ([listed] if isinstance(listed, str) else listed))


def case_ids(cases: Sequence[tuple[Path, ...]], root: Path) -> list[str]:
    """Return the names of the images; of different images with equal names (PATIENT/CT) their paths: PATIENT_CT."""
    counts = Counter(map(_id, dict.fromkeys(cases)))
    return [_path_id(files, root) if counts[_id(files)] > 1 else _id(files) for files in cases]


def _id(images: tuple[Path, ...]) -> str:
    return strip_suffix(images[0].name).removesuffix("_0000" if len(images) > 1 else "")


def _path_id(images: tuple[Path, ...], root: Path) -> str:
    path = Path(os.path.normpath(images[0].absolute()))
    root = next((base for base in (root.absolute(), root.resolve()) if path.is_relative_to(base)), Path(path.anchor))
    return "_".join((*path.relative_to(root).parent.parts, path.name if path.is_dir() else _id(images)))


def listed_file(root: Path, text: str) -> Path:
    """Return the path of a file that a manifest or a table lists; back slashes of Windows separate folders, too."""
    path = root / text
    return root / text.replace("\\", "/") if "\\" in text and not path.exists() else path


def drive_problems(cases: Iterable[Case], root: Path) -> list[str]:
    """Return the problem of files that are listed with a drive of Windows on another system."""
    if os.name == "nt":
        return []
    paths = [path for case in cases for path in case.files]
    listed = [str(path.relative_to(root)) for path in paths if path.is_relative_to(root)]
    found = [text for text in listed if _DRIVE.match(text)]
    if not found:
        return []
    return [f"{len(found)} paths are those of a Windows drive (for example {found[0]}): write them relative to {root}"]
