"""Files in the folder of a dataset to which its manifest does not lead."""

from __future__ import annotations

import os
from pathlib import Path

from decathlete.dataset.spec import DatasetSpec
from decathlete.io.folder_tree import HIDDEN, NO_IMAGE, FolderTree, image_parts, why_no_image
from decathlete.io.image_files import is_image_name

PARTS = ("imagesTr", "labelsTr", "imagesTs")
"""The folders of a dataset that are read."""


def unused_files(spec: DatasetSpec) -> dict[Path, str]:
    """Return what the dataset's folder contains and no case uses: path -> reason. No image is opened.

    Hidden files and documents beside ``dataset.json`` are left out. Other folders are named if they contain images.
    """
    used = {os.path.normpath(path) for case in (*spec.cases, *spec.test_cases) for path in case.files}
    unused: dict[Path, str] = {}
    for part in PARTS:
        if (spec.root / part).is_dir():
            unused |= _unused_of_part(spec, spec.root / part, used)
    unused |= _beside_slices(spec, used)
    tree = FolderTree(root=spec.root)
    holders = {os.path.dirname(path) for path in used}  # noqa: PTH120 - of texts
    for entry in tree.entries(spec.root):
        if entry.is_dir() and entry.name not in PARTS and not any(_is_inside(h, entry) for h in holders):
            if tree.has_images(entry):
                unused[entry] = f"only {', '.join(PARTS)} and the files that dataset.json lists are read"
        elif entry.is_file() and is_image_name(entry, pictures=False) and os.path.normpath(entry) not in used:
            unused[entry] = "an image beside dataset.json, which does not list it"
    return unused


def _unused_of_part(spec: DatasetSpec, folder: Path, used: set[str]) -> dict[Path, str]:
    tree = FolderTree(root=folder)
    entries = tree.entries(folder)
    unused = {path: reason for path, reason in tree.unused.items() if reason != HIDDEN}
    parts = image_parts(entry for entry in entries if entry.is_file() and is_image_name(entry))
    for entry in entries:
        if os.path.normpath(entry) in used or entry in parts:
            continue
        if entry.is_dir():
            if not any(_is_inside(path, entry) for path in used):
                unused[entry] = "a folder that dataset.json does not list"
        elif not is_image_name(entry):
            unused[entry] = why_no_image(entry) or NO_IMAGE
        elif spec.layout == "nnunet":
            unused[entry] = "another suffix than the file_ending of dataset.json, or not listed there"
        else:
            unused[entry] = "not listed in dataset.json"
    return unused


def _beside_slices(spec: DatasetSpec, used: set[str]) -> dict[Path, str]:
    """Return what lies beside DICOM slices in the folders that are images."""
    unused: dict[Path, str] = {}
    for folder in {path for case in (*spec.cases, *spec.test_cases) for path in case.images if path.is_dir()}:
        tree = FolderTree(root=folder)
        tree.list_beside_slices(tree.entries(folder))
        unused |= {
            path: reason
            for path, reason in tree.unused.items()
            if reason != HIDDEN and not any(_is_inside(one, path) for one in used)
        }
    return unused


def _is_inside(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(os.path.normpath(folder))
