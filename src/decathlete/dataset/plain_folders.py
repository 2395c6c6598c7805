"""Use two folders of images and label maps as a dataset: what they contain is found by names and headers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from decathlete.core.geometry import Triple
from decathlete.core.progress import CaseProgress
from decathlete.dataset.conversion.dicom_folders import holds_dicom_series
from decathlete.dataset.conversion.folders import Folders, training_files
from decathlete.dataset.conversion.plain_sources import FileNames, read_plain_source
from decathlete.dataset.groups import all_groups
from decathlete.dataset.layouts import ManifestContent, decathlon_manifest, nnunet_manifest
from decathlete.dataset.listed_cases import case_ids
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.errors import DatasetError, ImageError
from decathlete.io.format_lookup import is_picture, suffix_of
from decathlete.io.format_settings import FormatSettings
from decathlete.io.image_files import group_channels
from decathlete.io.images import is_grey, read_grid, read_volume

N_SAMPLED = 200
"""RGB pictures that are read, at most, to find out whether all are grey; the headers of all pictures are read."""


@dataclass(frozen=True, kw_only=True)
class PlainDataset:
    """What was understood from two folders.

    Attributes:
        folders: of images, label maps and test images.
        spec: cases, channels and labels.
        found_channels: whether the channels were found in the files, not named by the user.
        unit: of lengths; ``pixel`` if the files have no spacing.
    """

    folders: tuple[Path, ...]
    spec: DatasetSpec
    found_channels: bool
    unit: str

    def manifest(self, name: str) -> dict[str, object]:
        """Make a ``dataset.json`` that lists the files where they are."""
        spec = self.spec
        patterns = self._patterns()
        given = spec.groups_from != "names"  # a guess must not become a fact
        content = ManifestContent(
            name=name,
            channels=spec.channels,
            labels=spec.labels,
            training=(),
            groups={case.id: case.group for case in spec.cases if given and case.group is not None},
        )
        if patterns:
            return nnunet_manifest(replace(content, suffix=".dcm")) | {
                "dicom_structures": patterns,
                "numTraining": len(spec.cases),
                "numTest": len(spec.test_cases),
                "dataset": {
                    case.id: {"images": [str(path) for path in case.images], "label": _listed_label(case)}
                    for case in spec.cases
                },
                "test": _listed(spec.test_cases),
            }
        return decathlon_manifest(content) | {
            "numTraining": len(spec.cases),
            "numTest": len(spec.test_cases),
            "training": _listed(spec.cases),
            "test": _listed(spec.test_cases),
        }

    def _patterns(self) -> dict[str, str]:
        """Return class -> names of its structures in DICOM labels; empty if the labels are label maps."""
        found = next((case.structures for case in self.spec.cases if case.structures is not None), None)
        by_value = {value: pattern for pattern, value in found.names} if found is not None else {}
        return {c.name: by_value[c.value] for c in self.spec.labels.foreground if c.value in by_value}

    def describe(self) -> list[str]:
        """Return what was understood, one line for each thing."""
        spec, images = self.spec, [path for case in self.spec.cases for path in case.images]
        kinds = Counter(suffix_of(path.name) or "DICOM series" for path in images)
        by = "found in the files; --channels names them" if self.found_channels else "by --channels"
        classes = ", ".join(f"{c.value} = {c.name}" for c in spec.labels.classes)
        ignore = "" if spec.labels.ignore is None else f", {spec.labels.ignore} = ignore"
        patterns = ", ".join(f"{name} = {pattern}" for name, pattern in self._patterns().items())
        matched = f"by the series that they refer to; structures: {patterns}" if patterns else "by name"
        lines = [
            f"images: {len(spec.cases)} cases in {self.folders[0]} ({', '.join(sorted(kinds))})",
            f"label maps: {self.folders[1]}, matched {matched}",
            f"channels: {', '.join(spec.channels)} ({by})",
            f"label values: {classes}{ignore}",
            "lengths: in pixels, the files have no spacing" if self.unit == "pixel" else "lengths: mm",
        ]
        if spec.groups_from in ("option", "manifest"):  # a guess by names is described when the folds are made
            by = "--group-by" if spec.groups_from == "option" else "the files"
            lines.append(f"patients: {len(set(all_groups(spec).values()))}, by {by}")
        return [*lines, f"test images: {len(spec.test_cases)}"] if spec.test_cases else lines


def read_plain_folders(
    names: FileNames,
    *,
    group_by: str | None = None,
    spacing: Triple | None = None,
    formats: FormatSettings = (),
    workers: int = 2,
    progress: CaseProgress | None = None,
) -> PlainDataset:
    """Find cases, channels and labels of two folders; nothing is written.

    Args:
        names: the folders, relative to the current one, and the names of files, channels and classes.
        progress: called after each label map that is read to find its values.

    Raises:
        DatasetError: files do not fit together; lists every problem.
    """
    folders = tuple(
        folder.resolve() for folder in (names.images, names.labels or names.images, names.test_images) if folder
    )
    root = Path(os.path.commonpath(folders))
    absolute = replace(
        names, images=folders[0], labels=folders[1], test_images=folders[2] if len(folders) > 2 else None
    )
    found = names.channels is None and not (folders[0].is_dir() and holds_dicom_series(folders[0]))
    if found:
        absolute = replace(absolute, channels=",".join(_find_channels(root, absolute, spacing, formats)))
    spec = read_plain_source(
        root, absolute, group_by=group_by, spacing=spacing, formats=formats, workers=workers, progress=progress
    ).spec
    _, geometry = read_grid(spec.cases[0].images[0], spacing=spacing, formats=formats)
    return PlainDataset(folders=folders, spec=spec, found_channels=found, unit=geometry.unit)


def _listed(cases: Sequence[Case]) -> list[dict[str, object]]:
    """Return the entries of cases in a manifest, with those ids that do not follow from the names of the files."""
    files = [case.images for case in cases]
    by_file = case_ids(files, Path(files[0][0].anchor)) if files else []
    entries = []
    for case, case_id in zip(cases, by_file, strict=True):
        images = [str(path) for path in case.images]
        entry: dict[str, object] = {} if case.id == case_id else {"case": case.id}
        entry["image"] = images[0] if len(images) == 1 else images
        if case.label is not None:
            entry["label"] = _listed_label(case)
        entries.append(entry)
    return entries


def _listed_label(case: Case) -> str | list[str]:
    files = [str(path) for path in case.label_files]
    return files[0] if len(files) == 1 else files


def _find_channels(root: Path, names: FileNames, spacing: Triple | None, formats: FormatSettings) -> list[str]:
    """Return names of the channels, from the names of files and the header of the first image."""
    assert names.images is not None  # for the type checker: the caller has set it
    labels = names.labels or names.images
    folders = Folders(root=root, images=names.images, labels=labels, channels={}, label_suffix=names.label_suffix)
    for folder in (names.images, labels):
        if not folder.is_dir():
            raise DatasetError(
                "is not a folder", where=folder, remedy="check --images and --labels", code="E-DATASET-NOT-FOUND"
            )
    problems: list[str] = []
    files, _ = training_files(folders, {"images": names.images, "labels": labels}, problems, {})
    cases = [Case(id=case_id, images=paths) for case_id, paths in group_channels(files).items()]
    if not cases:
        detail = problems[0] if problems else "contains no images"
        raise DatasetError(detail, where=names.images, remedy="check --images, --labels and --label-suffix")
    n_files = max(len(case.images) for case in cases)
    n_channels = n_files if n_files > 1 else read_grid(cases[0].images[0], spacing=spacing, formats=formats)[0]
    pictures = [case.images[0] for case in cases if n_files == 1 and is_picture(case.images[0])]
    if pictures:
        return ["red", "green", "blue"] if _has_colours(pictures, spacing, formats) else ["grey"]
    return ["image"] if n_channels == 1 else [f"channel {number}" for number in range(n_channels)]


def _has_colours(pictures: Sequence[Path], spacing: Triple | None, formats: FormatSettings) -> bool:
    """Return whether a picture has colours, by the headers of all and the pixels of up to ``N_SAMPLED`` RGB pictures.

    ``check`` lists pictures that cannot be read, and those in colour that are not in the sample.
    """
    stored_as_rgb = []
    for path in pictures:
        with suppress(ImageError):
            if read_grid(path, spacing=spacing, formats=formats)[0] > 1:
                stored_as_rgb.append(path)
    step = max(1, ceil(len(stored_as_rgb) / N_SAMPLED))
    for path in stored_as_rgb[::step]:  # spread over the folder
        with suppress(ImageError):
            if not is_grey(read_volume(path, spacing=spacing, formats=formats).array_CZYX):
                return True
    return False
