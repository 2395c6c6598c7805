"""Find cases in folders of DICOM: series are images, SEG objects and RT structure sets are label maps.

A label belongs to the series that it refers to; names of files and folders do not matter. Several labels of one series,
such as a SEG object for each organ, are one label map.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from decathlete.dataset.spec import Case
from decathlete.errors import DatasetError, DecathleteError, ImageError, OptionError, problems_found
from decathlete.io.dicom_label import LabelStructures, list_all_structures
from decathlete.io.dicom_reading import read_dicom
from decathlete.io.dicom_series import DicomSeries, describe_folders, lies_alone, sort_series
from decathlete.io.dicom_structures import referenced_series, structure_kind
from decathlete.io.folder_tree import NO_IMAGE, FolderTree, is_slice, log_unused, why_no_image
from decathlete.io.image_files import is_image_name
from decathlete.io.series_rules import SeriesRule, choose_channels, default_rules

_REMEDY = "check --images, --labels, --test-images and the names of the channels: CT, PET and MR are modalities"
_DOCUMENTS = (".json", ".txt", ".md", ".csv", ".tsv", ".xml", ".html", ".pdf", ".xlsx", ".docx", ".yaml", ".log")
"""Suffixes of files that are no images, and are not listed as unused."""


@dataclass(kw_only=True)
class _SortedSeries:
    """What the folders contain.

    Attributes:
        labels: identifier of a series -> the label objects that refer to it.
        unused: file -> why it is not used.
    """

    series: tuple[DicomSeries, ...]
    labels: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    unused: dict[Path, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _CaseParts:
    """The series of a case, one for each channel, and the label objects that refer to them."""

    series: tuple[DicomSeries, ...]
    labels: tuple[Path, ...] = ()

    @property
    def images(self) -> tuple[Path, ...]:
        """The paths of the series."""
        return tuple(_path(one) for one in self.series)

    def problems(self) -> list[str]:
        """Return why series cannot be read as one image."""
        return [text for one in self.series if (text := _why_not_one_image(one, self.labels))]


@dataclass(frozen=True, kw_only=True)
class DicomCases:
    """Cases in DICOM folders.

    Attributes:
        groups: case id -> patient, by a number instead of the patient's name.
        structure_names: names of all structures that occur in the labels.
    """

    cases: tuple[Case, ...]
    test_cases: tuple[Case, ...]
    groups: Mapping[str, str]
    structure_names: tuple[str, ...]


def holds_dicom_series(folder: Path) -> bool:
    """Return whether a folder contains DICOM files and no images of other kinds."""
    found = False
    for path in FolderTree(root=folder).files():
        if is_image_name(path, slices=False):
            return False
        found = found or is_slice(path)
    return found


def find_dicom_cases(
    root: Path, images: Path, labels: Path, channels: Sequence[str], *, test_images: Path | None = None
) -> DicomCases:
    """Find the series of ``images`` that have a label in ``labels``; folders are searched at any depth.

    A series belongs to a channel by its modality, and by its description where several channels share one.

    Args:
        test_images: folder of series without labels.

    Raises:
        DatasetError: no series has a label, several labels of a series have structures of the same name, or a case
            lacks a channel; lists every problem.
    """
    tests = root / test_images if test_images is not None else None
    found = _sort(root / images, root / labels, tests)
    problems: list[str] = []
    rules = _channel_rules(found.series, channels)
    parts = _cases_of_channels(found, rules, channels, problems)
    if not parts and not problems:
        problems.append(f"no DICOM series of {', '.join(channels)} has a segmentation or structure set")
    parts.sort(key=lambda part: part.series[0].files)
    cases, groups = [], {}
    for case_id, part, patient in zip(_case_ids(parts, root), parts, _patients(parts), strict=True):
        problems += part.problems()
        label, *others = part.labels
        structures = LabelStructures(image=part.images[0], others=tuple(others))
        cases.append(Case(id=case_id, images=part.images, label=label, structures=structures))
        groups[case_id] = patient
    test_cases = _find_tests(tests, rules, channels, problems) if tests is not None else ()
    log_unused(root, found.unused)
    if problems:
        raise problems_found(problems, where=root, remedy=_REMEDY, kind=DatasetError)
    return DicomCases(
        cases=tuple(cases), test_cases=test_cases, groups=groups, structure_names=_structure_names(cases, root)
    )


def parse_structures(text: str) -> dict[str, str]:
    """Parse ``tumour=GTV*,liver=Liver`` to class -> pattern of the names of its structures.

    Raises:
        OptionError: the text has another form.
    """
    pairs = [tuple(part.strip() for part in entry.partition("=")) for entry in text.split(",")]
    names = [name for name, _, _ in pairs]
    if any(not name or not pattern for name, _, pattern in pairs) or len(set(names)) < len(names):
        raise OptionError(
            f"--structures {text!r} is not a list of different classes with their structures",
            remedy="write e.g. --structures 'tumour=GTV*,liver=Liver'",
            code="E-OPTION-SYNTAX",
        )
    return {name: pattern for name, _, pattern in pairs}


def with_structures(cases: Sequence[Case], names: tuple[tuple[str, int], ...]) -> tuple[Case, ...]:
    """Return the cases with the values that the structures of their labels become."""
    return tuple(replace(c, structures=replace(c.structures, names=names)) for c in cases if c.structures is not None)


def _find_tests(
    folder: Path, rules: Sequence[SeriesRule], channels: Sequence[str], problems: list[str]
) -> tuple[Case, ...]:
    """Return a case for each series of the only channel, or for each study that has a series for each channel."""
    if not folder.is_dir():
        problems.append(f"there is no folder {folder} (test images)")
        return ()
    tree = FolderTree(root=folder)
    scan = sort_series(sorted(path for path in tree.files() if is_slice(path)))
    parts = []
    for of_study in _studies(scan.series, channels):
        if len(channels) == 1 and not rules[0].fits(of_study[0]):
            continue
        try:
            parts.append(_CaseParts(series=choose_channels(of_study, rules, channels)))
        except ImageError as problem:
            problems.append(f"{of_study[0].folder} (test images): {problem.problem}")
    chosen = {one for part in parts for one in part.series}
    others = (one for one in scan.series if one not in chosen)
    reason = "a series of another modality, or of no channel"
    log_unused(folder, tree.unused | scan.skipped | {path: reason for one in others for path in one.files})
    if not parts:
        problems.append(f"{folder} (test images): there is no DICOM series of {', '.join(channels)}")
    parts.sort(key=lambda part: part.series[0].files)
    problems += [text for part in parts for text in part.problems()]
    return tuple(
        Case(id=case_id, images=part.images) for case_id, part in zip(_case_ids(parts, folder), parts, strict=True)
    )


def _sort(images: Path, labels: Path, tests: Path | None) -> _SortedSeries:
    """Sort the files of two folders, without those of a folder of test images inside."""
    unused: dict[Path, str] = {}
    files: set[Path] = set()
    for folder in {images, labels}:
        tree = FolderTree(root=folder)
        for path in tree.files():
            if tests is not None and tests != folder and path.is_relative_to(tests):
                continue
            if is_slice(path):
                files.add(path)
            elif path.suffix.lower() not in _DOCUMENTS:
                image = "an image beside DICOM series" if is_image_name(path) else None
                unused[path] = image or why_no_image(path) or NO_IMAGE
        unused |= tree.unused
    label_files = sorted(path for path in files if path.is_relative_to(labels) and structure_kind(path))
    others = files - set(label_files)
    scan = sort_series(sorted(path for path in others if path.is_relative_to(images)))
    unused |= {path: "not in the folder of the images" for path in others if not path.is_relative_to(images)}
    found = _SortedSeries(series=scan.series, unused=unused | scan.skipped)
    series = {one.series_uid for one in scan.series}
    for path in label_files:
        try:
            references = referenced_series(path)
        except DecathleteError as problem:
            found.unused[path] = problem.problem
            continue
        if not references & series:
            found.unused[path] = "a label that refers to no series in the folder of the images"
        for uid in references & series:
            found.labels[uid].append(path)
    return found


def _channel_rules(series: Sequence[DicomSeries], channels: Sequence[str]) -> tuple[SeriesRule, ...]:
    rules = default_rules(channels)
    if len(channels) == 1 and not any(rules[0].fits(one) for one in series):
        return (SeriesRule(),)  # a channel whose name tells no modality
    return rules


def _studies(series: Iterable[DicomSeries], channels: Sequence[str]) -> list[list[DicomSeries]]:
    """Return the series of each study; of a single channel, each series by itself."""
    studies: dict[str, list[DicomSeries]] = defaultdict(list)
    for one in series:
        studies[one.study_uid if len(channels) > 1 else str(one.files[0])].append(one)
    return list(studies.values())


def _cases_of_channels(
    found: _SortedSeries, rules: Sequence[SeriesRule], channels: Sequence[str], problems: list[str]
) -> list[_CaseParts]:
    parts = []
    for of_study in _studies(found.series, channels):
        fitting = [[s for s in of_study if rule.fits(s)] for rule in rules]
        labels = {label for series in of_study for label in found.labels.get(series.series_uid, [])}
        own = {label for of_rule in fitting for one in of_rule for label in found.labels.get(one.series_uid, [])}
        if own or len(channels) == 1:
            found.unused.update(dict.fromkeys(labels - own, "a label of a series of another modality"))
            labels = own
        if all(len(series) == 1 for series in fitting) and labels:
            parts.append(_CaseParts(series=tuple(series[0] for series in fitting), labels=tuple(sorted(labels))))
        elif labels:
            counts = ", ".join(f"{name}: {len(series)}" for name, series in zip(channels, fitting, strict=True))
            problems.append(f"{of_study[0].folder}: its study does not have one series for each channel ({counts})")
        else:
            reason = "no label refers to this series" if fitting[0] else "a series of another modality"
            found.unused.update({path: reason for series in of_study for path in series.files})
    return parts


def _case_ids(parts: Sequence[_CaseParts], root: Path) -> list[str]:
    """Return the paths of the series from a folder on, without a last part that all have in common."""
    paths = [part.images[0].relative_to(root).parts or (root.resolve().name,) for part in parts]
    while paths and all(len(p) > 1 for p in paths) and len({p[-1] for p in paths}) == 1:
        paths = [p[:-1] for p in paths]
    while len(paths) > 1 and all(len(p) > 1 for p in paths) and len({p[0] for p in paths}) == 1:
        paths = [p[1:] for p in paths]
    return ["_".join(p).removesuffix(".dcm") for p in paths]


def _patients(parts: Sequence[_CaseParts]) -> list[str]:
    """Return a number for the patient of each case; identifiers of patients stay in the files."""
    numbers: dict[str, str] = {}
    found = []
    for part in parts:
        first = part.series[0]
        header: Any = read_dicom(first.files[0], specific_tags=["PatientID"], stop_before_pixels=True, force=True)
        key = str(header.get("PatientID") or "") or f"study {first.study_uid}"
        found.append(numbers.setdefault(key, f"patient{len(numbers) + 1:03d}"))
    return found


def _path(series: DicomSeries) -> Path:
    return series.files[0] if len(series.files) == 1 and series.n_slices > 1 else series.folder


def _why_not_one_image(series: DicomSeries, labels: Sequence[Path]) -> str | None:
    """Return why a series cannot be read as one image: a file with all frames, or a folder of its own."""
    if len(series.folders) > 1:
        return f"the slices of one series lie in several folders: {describe_folders(series)}: put them into one folder"
    if len(series.files) == 1 or lies_alone(series, besides=labels):
        return None
    return f"{series.folder}: other DICOM images lie beside the slices of this series: give it a folder of its own"


def _structure_names(cases: Sequence[Case], root: Path) -> tuple[str, ...]:
    """Return the names of the structures of all cases; names that differ in case only are one.

    Raises:
        DatasetError: label objects cannot be read, or several of a case have structures of the same name; lists all.
    """
    names: dict[str, str] = {}
    problems = []
    for case in cases:
        try:
            for structures in list_all_structures(case.label_files).values():
                for structure in structures:
                    names.setdefault(structure.name.lower(), structure.name)
        except ImageError as problem:
            problems.append(problem)
    if problems:
        remedies = {problem.remedy for problem in problems}
        remedy = (remedies.pop() if len(remedies) == 1 else None) or "fix these labels, or leave them out"
        listed = [f"{problem.where}: {problem.problem}" for problem in problems]
        raise problems_found(listed, where=root, remedy=remedy, kind=DatasetError)
    return tuple(names.values())
