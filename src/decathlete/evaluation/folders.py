"""Folders of label maps: ids of the cases, and the declared classes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from decathlete.core.labels import LabelClass, LabelSet
from decathlete.dataset.manifest import DeclaredLabels, read_labels
from decathlete.errors import DatasetError, ManifestError, problems_found
from decathlete.io.image_files import image_suffixes, is_image_name, split_pictures, strip_suffix

_log = logging.getLogger(__name__)


def label_files(folder: Path) -> dict[str, Path]:
    """List the image files in ``folder`` (not below it): case id -> file, sorted by id.

    Raises:
        DatasetError: no such folder, no image in it, or two files of one id.
    """
    if not folder.is_dir():
        raise DatasetError(
            "is not a folder",
            where=folder,
            remedy="use the folder that contains the label maps",
            code="E-DATASET-NOT-FOUND",
        )
    files: dict[str, Path] = {}
    doubled = []
    for path in sorted(split_pictures(p for p in folder.iterdir() if not p.is_dir() and is_image_name(p))[0]):
        case_id = strip_suffix(path.name)
        if case_id in files:
            doubled.append(f"{files[case_id].name} and {path.name} are one case")
        files[case_id] = path
    if doubled:
        raise problems_found(doubled, where=folder, remedy="keep one file for each case")
    if not files:
        raise DatasetError(
            f"there are no label maps in this folder (looked for {', '.join(image_suffixes())})",
            where=folder,
            remedy="use the folder that contains the files themselves",
            code="E-DATASET-LABELS",
        )
    return dict(sorted(files.items()))


def declared_labels(folder: Path) -> DeclaredLabels | None:
    """Read the labels of the dataset that ``folder`` belongs to, if a manifest lies in it or above it."""
    for root in (folder, *folder.resolve().parents[:2]):
        if (root / "dataset.json").is_file():
            try:
                return read_labels(root, folder)
            except ManifestError as problem:
                _log.warning("the manifest beside the labels is not used: %s", problem)
    return None


def labels_of_values(values: Iterable[int]) -> LabelSet:
    """Make a label set of background and one class per other value, named ``class 1``, ...

    Raises:
        DatasetError: only background.
    """
    foreground = sorted(set(values) - {0})
    if not foreground:
        remedy = "compare label maps whose classes have the values 1, 2, ..."
        raise DatasetError("the label maps contain only zeros", remedy=remedy)
    classes = [LabelClass(name="background", value=0), *(LabelClass(name=f"class {v}", value=v) for v in foreground)]
    return LabelSet(classes=tuple(classes))
