"""Find cases in folders of DICOM: series are images, SEG objects and RT structure sets are label maps.

A label belongs to the series that it refers to; names of files and folders do not matter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from decathlete.dataset.spec import Case
from decathlete.errors import DatasetError, DecathleteError, ImageError, OptionError, problems_found
from decathlete.io.dicom_label import LabelStructures
from decathlete.io.dicom_reading import read_dicom
from decathlete.io.dicom_series import DicomSeries, describe_folders, lies_alone, sort_series
from decathlete.io.dicom_structures import list_structures, referenced_series, structure_kind
from decathlete.io.folder_tree import NO_IMAGE, FolderTree, is_slice, log_unused, why_no_image
from decathlete.io.image_files import is_image_name
from decathlete.io.series_rules import default_rules

_REMEDY = "check the folders --images and --labels, and the names of the channels: CT, PET and MR are modalities"
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
class DicomCases:
    """Cases in DICOM folders.

    Attributes:
        groups: case id -> patient, by a number instead of the patient's name.
        structure_names: names of all structures that occur in the labels.
    """

    cases: tuple[Case, ...]
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


def find_dicom_cases(root: Path, images: Path, labels: Path, channels: Sequence[str]) -> DicomCases:
    """Find the series of ``images`` that have a label in ``labels``; folders are searched at any depth.

    A series belongs to a channel by its modality, and by its description where several channels share one.

    Raises:
        DatasetError: no series has a label, a series has several, or a case lacks a channel; lists every problem.
    """
    found = _sort(root / images, root / labels)
    problems: list[str] = []
    parts = _cases_of_channels(found, channels, problems)
    if not parts and not problems:
        problems.append(f"no DICOM series of {', '.join(channels)} has a segmentation or structure set")
    parts.sort(key=lambda part: part[0][0].files)
    ids = _case_ids(parts, root)
    cases, groups = [], {}
    patients = _patients(parts)
    for case_id, (series, label), patient in zip(ids, parts, patients, strict=True):
        problems += [text for one in series if (text := _why_not_one_image(one, label))]
        cases.append(Case(id=case_id, images=tuple(_path(one) for one in series), label=label))
        groups[case_id] = patient
    log_unused(root, found.unused)
    if problems:
        raise problems_found(problems, where=root, remedy=_REMEDY, kind=DatasetError)
    return DicomCases(cases=tuple(cases), groups=groups, structure_names=_structure_names(cases, root))


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
    return tuple(replace(c, structures=LabelStructures(image=c.images[0], names=names)) for c in cases)


def _sort(images: Path, labels: Path) -> _SortedSeries:
    unused: dict[Path, str] = {}
    files: set[Path] = set()
    for folder in {images, labels}:
        tree = FolderTree(root=folder)
        for path in tree.files():
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


def _cases_of_channels(
    found: _SortedSeries, channels: Sequence[str], problems: list[str]
) -> list[tuple[tuple[DicomSeries, ...], Path]]:
    rules = default_rules(channels)
    if len(channels) == 1 and not any(rules[0].fits(series) for series in found.series):
        rules = (type(rules[0])(),)  # a channel whose name tells no modality
    studies: dict[str, list[DicomSeries]] = defaultdict(list)
    for series in found.series:
        studies[series.study_uid if len(channels) > 1 else str(series.files[0])].append(series)
    parts = []
    for of_study in studies.values():
        fitting = [[s for s in of_study if rule.fits(s)] for rule in rules]
        labels = {label for series in of_study for label in found.labels.get(series.series_uid, [])}
        if len(channels) == 1:
            labels = {label for one in fitting[0] for label in found.labels.get(one.series_uid, [])}
        if all(len(series) == 1 for series in fitting) and len(labels) == 1:
            parts.append((tuple(series[0] for series in fitting), labels.pop()))
        elif labels and len(labels) > 1:
            problems.append(f"{of_study[0].folder}: {len(labels)} label objects refer to this series")
        elif labels:
            counts = ", ".join(f"{name}: {len(series)}" for name, series in zip(channels, fitting, strict=True))
            problems.append(f"{of_study[0].folder}: its study does not have one series for each channel ({counts})")
        else:
            reason = "no label refers to this series" if fitting[0] else "a series of another modality"
            found.unused.update({path: reason for series in of_study for path in series.files})
            found.unused.update(
                {
                    label: "a label of a series of another modality"
                    for series in of_study
                    for label in found.labels.get(series.series_uid, [])
                }
            )
    return parts


def _case_ids(parts: Sequence[tuple[tuple[DicomSeries, ...], Path]], root: Path) -> list[str]:
    """Return the paths of the series from the dataset on, without a last part that all have in common."""
    paths = [_path(series[0]).relative_to(root).parts for series, _ in parts]
    while paths and all(len(p) > 1 for p in paths) and len({p[-1] for p in paths}) == 1:
        paths = [p[:-1] for p in paths]
    while len(paths) > 1 and all(len(p) > 1 for p in paths) and len({p[0] for p in paths}) == 1:
        paths = [p[1:] for p in paths]
    return ["_".join(p).removesuffix(".dcm") for p in paths]


def _patients(parts: Sequence[tuple[tuple[DicomSeries, ...], Path]]) -> list[str]:
    """Return a number for the patient of each case; identifiers of patients stay in the files."""
    numbers: dict[str, str] = {}
    found = []
    for (first, *_), _ in parts:
        header: Any = read_dicom(first.files[0], specific_tags=["PatientID"], stop_before_pixels=True, force=True)
        key = str(header.get("PatientID") or "") or f"study {first.study_uid}"
        found.append(numbers.setdefault(key, f"patient{len(numbers) + 1:03d}"))
    return found


def _path(series: DicomSeries) -> Path:
    return series.files[0] if len(series.files) == 1 and series.n_slices > 1 else series.folder


def _why_not_one_image(series: DicomSeries, label: Path) -> str | None:
    """Return why a series cannot be read as one image: a file with all frames, or a folder of its own."""
    if len(series.folders) > 1:
        return f"the slices of one series lie in several folders: {describe_folders(series)}: put them into one folder"
    if len(series.files) == 1 or lies_alone(series, besides=(label,)):
        return None
    return f"{series.folder}: other DICOM images lie beside the slices of this series: give it a folder of its own"


def _structure_names(cases: Sequence[Case], root: Path) -> tuple[str, ...]:
    """Return the names of the structures of all cases; names that differ in case only are one.

    Raises:
        DatasetError: label objects cannot be read; lists all.
    """
    names: dict[str, str] = {}
    problems = []
    for case in cases:
        try:
            for structure in list_structures(case.label) if case.label else ():
                names.setdefault(structure.name.lower(), structure.name)
        except ImageError as problem:
            problems.append(str(problem))
    if problems:
        raise problems_found(problems, where=root, remedy="fix these labels, or leave them out", kind=DatasetError)
    return tuple(names.values())
