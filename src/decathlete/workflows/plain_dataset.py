"""Describe two folders of images and label maps by a ``dataset.json`` elsewhere, so that every command can use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from decathlete.core.documents import read_json
from decathlete.core.files import write_json
from decathlete.core.geometry import Triple
from decathlete.core.locks import locked_output
from decathlete.core.output_paths import check_output_path, check_outside
from decathlete.core.progress import CaseProgress
from decathlete.dataset.conversion.plain_sources import FileNames
from decathlete.dataset.find_dataset import MANIFEST
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.plain_folders import PlainDataset, read_plain_folders
from decathlete.dataset.spec import DatasetSpec
from decathlete.errors import DecathleteError, ManifestError, OptionError, OutputError
from decathlete.io.format_settings import format_settings
from decathlete.workflows.workspace import Workspace

DATASETS = "datasets"
"""Folder below the prepared data."""


def describe_folders(
    files: FileNames,
    *,
    name: str | None = None,
    workspace: Workspace = Workspace(),
    group_by: str | None = None,
    spacing: Triple | None = None,
    image_formats: Mapping[str, Mapping[str, Any]] | None = None,
    workers: int = 2,
    overwrite: bool = False,
    progress: CaseProgress | None = None,
    on_found: Callable[[PlainDataset], None] = lambda _: None,
) -> Path:
    """Write a ``dataset.json`` that lists the files of plain folders, and return its folder.

    Nothing is written beside the files. The result is a dataset for every other function.

    Args:
        files: the folders (``images``, ``labels``), and what their names mean; channels are found without
            ``channels``.
        name: of the dataset; default: that of the folder with the images, or of the folder above it.
        workspace: the result is ``workspace.prepared / "datasets" / name``.
        group_by: regular expression with one group that matches a case's patient.
        spacing: z, y, x in mm, for files that do not contain their spacing.
        image_formats: settings of image formats that change how files are read, by the name of the format.
        overwrite: replace the description of other files.
        progress: called after each label map that is read.
        on_found: receives what was understood.

    Raises:
        OptionError: the name is a path.
        DatasetError: files do not fit together; lists every problem.
        OutputError: the folder describes other files, or cannot be written.
    """
    if name is not None:
        _check_name(name)
    formats = format_settings(image_formats or {})
    found = read_plain_folders(
        files, group_by=group_by, spacing=spacing, formats=formats, workers=workers, progress=progress
    )
    on_found(found)
    called = name or _default_name(found)
    folder = workspace.prepared / DATASETS / called
    for source in found.folders:
        check_outside(folder, source)
    check_output_path(workspace.prepared)
    manifest = found.manifest(called)
    with locked_output(folder):
        path = folder / MANIFEST
        if path.exists() and not overwrite:
            before = read_json(path, error=ManifestError)
            if before == manifest:
                return folder
            if renamed := _find_renamed(folder, found.spec):
                raise OutputError(
                    f"describes the same images with other names of the cases ({renamed[0]}, now {renamed[1]}): other "
                    "options, or another version of Decathlete, named them",
                    where=path,
                    remedy="add --overwrite, which also replaces what was prepared and trained with the old names, or "
                    "choose another name for the dataset (the argument DATASET). To keep the old names, leave "
                    f"--images out and use this folder as DATASET: {folder}",
                    code="E-OUTPUT-EXISTS",
                )
            _check_same(path, before, manifest)
        write_json(path, manifest)
    return folder


def _check_name(name: str) -> None:
    """Check that a dataset's name is that of a folder below the prepared data, and no path to another place.

    Raises:
        OptionError: it is not.
    """
    if name != Path(name).name or name in ("", "..") or "\\" in name:
        raise OptionError(
            f"{name!r} cannot be the name of a dataset that --images describes",
            remedy="write a name without folders, for example MyData; or leave it out: it is then that of the folder",
        )


def _find_renamed(folder: Path, spec: DatasetSpec) -> tuple[str, str] | None:
    """Return the described and the new name of the first training case that the description names differently."""
    described: Mapping[tuple[Path, ...], str] = {}
    with suppress(DecathleteError):  # damaged: the manifests are compared
        described = {case.images: case.id for case in read_dataset(folder).cases}
    names = ((described.get(case.images, case.id), case.id) for case in spec.cases)
    return next(((before, after) for before, after in names if before != after), None)


def _check_same(path: Path, before: object, manifest: Mapping[str, object]) -> None:
    """Check that a new manifest describes the training cases as the one before did, and lists all its test images.

    Raises:
        OutputError: it does not.
    """
    old, new = _without(before, "test", "numTest"), _without(manifest, "test", "numTest")
    if old == new and _tests(before) <= _tests(manifest):
        return
    replaced = "or add --overwrite, which also replaces what was prepared and trained with this name"
    if old != new and _without(old, "groups") == _without(new, "groups"):
        raise OutputError(
            "describes the same files with other patients: --group-by was another one, or was not used",
            where=path,
            remedy="use --group-by as in the command that described these files; choose another name for the dataset "
            f"(the argument DATASET); {replaced}",
            code="E-OUTPUT-EXISTS",
        )
    raise OutputError(
        "describes other files, or the same files with other names of channels or classes",
        where=path,
        remedy=f"choose another name for the dataset (the argument DATASET), {replaced}",
        code="E-OUTPUT-EXISTS",
    )


def _without(manifest: object, *fields: str) -> object:
    """Return the content of a manifest without some fields."""
    if not isinstance(manifest, Mapping):
        return manifest
    return {key: value for key, value in manifest.items() if key not in fields}


def _tests(manifest: object) -> set[str]:
    """Return the test images that a manifest lists."""
    listed = manifest.get("test", ()) if isinstance(manifest, Mapping) else ()
    if not isinstance(listed, Sequence):
        return set()
    return {str(entry["image"] if isinstance(entry, Mapping) else entry) for entry in listed}


def _default_name(found: PlainDataset) -> str:
    """Return the name of the folder of images, or that of the folder above if it only says what it holds."""
    images = found.folders[0]
    general = images.name.lower().startswith(("image", "img", "scan", "raw")) or images.name.lower() in ("data", "x")
    return images.parent.name or images.name if general else images.name
