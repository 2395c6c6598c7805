"""Read datasets without a ``dataset.json``: plain folders and tables, which the user's options describe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from decathlete.core.geometry import Triple
from decathlete.core.progress import CaseProgress
from decathlete.dataset.conversion.dicom_folders import (
    find_dicom_cases,
    holds_dicom_series,
    parse_structures,
    with_structures,
)
from decathlete.dataset.conversion.folders import Folders, find_cases, parse_channels
from decathlete.dataset.conversion.source import Source, find_labels
from decathlete.dataset.conversion.table import Table, read_table
from decathlete.dataset.groups import assign_groups
from decathlete.dataset.spec import DatasetSpec, path_problems
from decathlete.errors import DatasetError, OptionError
from decathlete.io.dicom_label import structure_names
from decathlete.io.format_settings import FormatSettings

_CHANNELS_HELP = "name them, e.g. --channels CT or --channels T1,FLAIR: CT (in any case) is normalised as CT"


@dataclass(frozen=True, kw_only=True)
class FileNames:
    """File names and content of a dataset without a manifest.

    Attributes:
        channels: ``MRI``, ``CT,PET``, or ``T1=_t1,T2=_t2``: names of channels and ends of file names. ``CT`` is
            normalised as CT. For a table: the columns that are channels, or the channels of its ``image`` files.
        classes: ``liver,tumour`` (values 1, 2) or ``liver=1,tumour=4,ignore=9``; ``None``: every value that occurs.
        images, labels, test_images: folders, relative to the dataset; ``labels`` is that of the images by default.
        label_suffix: end of the names of label maps, before the suffix of the format.
        structures: ``tumour=GTV*,liver=Liver``: classes, and the names of their structures in DICOM labels.
    """

    channels: str | None = None
    classes: str | None = None
    images: Path | None = None
    labels: Path | None = None
    test_images: Path | None = None
    label_suffix: str = ""
    structures: str | None = None

    def folders(self, root: Path) -> tuple[Path, ...]:
        """Return the folders that are read."""
        named = (self.images, self.labels, self.test_images)
        return tuple(root / folder for folder in named if folder is not None)


def read_plain_source(
    origin: Path,
    names: FileNames,
    *,
    group_by: str | None = None,
    spacing: Triple | None = None,
    formats: FormatSettings = (),
    workers: int = 2,
    progress: CaseProgress | None = None,
) -> Source:
    """Read the cases of a folder, or of a table if ``origin`` is a file.

    Args:
        spacing, formats: see :mod:`decathlete.io.images`.
        progress: called after each label map that is read to find its values.

    Raises:
        DatasetError: the folder or the table is not valid; lists every problem.
        OptionError: channels are not named, or options do not apply to such a dataset.
    """
    if problems := path_problems(origin):
        raise DatasetError(problems[0], remedy="rename it, since other programs cannot read it either")
    if _is_dicom(origin, names):
        return _read_dicom(origin, names, group_by=group_by, spacing=spacing, formats=formats)
    table = _read_table_file(origin, names) if origin.is_file() else _read_folders(origin, names)
    cases = [replace(case, spacing=spacing, formats=formats) for case in table.cases]
    labels = find_labels(names.classes, cases, workers=workers, where=origin, progress=progress)
    groups = assign_groups([c.id for c in table.cases], group_by=group_by, declared=table.groups)
    spec = DatasetSpec(
        name=origin.resolve().stem,
        root=origin,
        layout="table" if origin.is_file() else "folders",
        channels=table.channels,
        labels=labels,
        cases=tuple(replace(case, group=groups.of.get(case.id)) for case in table.cases),
        test_cases=table.test_cases,
        groups_from=groups.source,
    )
    return Source(spec=spec.read_with(spacing=spacing, formats=formats), folds=table.folds)


def _read_folders(root: Path, names: FileNames) -> Table:
    if names.images is None or names.channels is None:
        raise OptionError("the channels of the images are not named", where=root, remedy=_CHANNELS_HELP)
    channels = parse_channels(names.channels)
    folders = Folders(
        root=root,
        images=names.images,
        labels=names.labels or names.images,
        test_images=names.test_images,
        channels=channels,
        label_suffix=names.label_suffix,
    )
    cases, test_cases = find_cases(folders)
    return Table(cases=cases, test_cases=test_cases, channels=tuple(channels))


def _is_dicom(origin: Path, names: FileNames) -> bool:
    """Return whether the images are DICOM series; beside other images they are used only if structures are named."""
    folder = origin / names.images if names.images is not None else None
    is_folder = folder is not None and origin.is_dir() and folder.is_dir()
    if names.structures is not None and not is_folder:
        raise OptionError(
            "--structures is for DICOM series in a folder",
            where=origin,
            remedy="leave it out, or name the folder of the series with --images",
            code="E-OPTION-CONFLICT",
        )
    return names.structures is not None or (folder is not None and is_folder and holds_dicom_series(folder))


def _read_dicom(
    root: Path, names: FileNames, *, group_by: str | None, spacing: Triple | None, formats: FormatSettings
) -> Source:
    """Read DICOM series and the SEG objects or structure sets that refer to them."""
    if names.images is None or names.channels is None:
        raise OptionError("the channels of the images are not named", where=root, remedy=_CHANNELS_HELP)
    if names.label_suffix or "=" in names.channels or (names.structures and names.classes):
        raise OptionError(
            "--label-suffix, suffixes of channels, and --classes beside --structures have no effect on DICOM series",
            where=root,
            remedy="leave them out: labels belong to the series that they refer to",
            code="E-OPTION-CONFLICT",
        )
    channels = tuple(parse_channels(names.channels))
    found = find_dicom_cases(root, names.images, names.labels or names.images, channels, test_images=names.test_images)
    every = {n.replace(",", " ").replace("=", " "): n for n in found.structure_names}
    patterns = parse_structures(names.structures) if names.structures else {} if names.classes else every
    classes = names.classes or ",".join(patterns)
    labels = find_labels(classes, (), workers=1, where=root)
    values = {c.name: c.value for c in labels.foreground}
    cases = with_structures(found.cases, structure_names(values, patterns))
    groups = assign_groups([c.id for c in cases], group_by=group_by, declared=found.groups)
    spec = DatasetSpec(
        name=root.resolve().stem,
        root=root,
        layout="folders",
        channels=channels,
        labels=labels,
        cases=tuple(replace(case, group=groups.of.get(case.id)) for case in cases),
        test_cases=found.test_cases,
        groups_from=groups.source,
    )
    return Source(spec=spec.read_with(spacing=spacing, formats=formats))


def _read_table_file(path: Path, names: FileNames) -> Table:
    if names.labels or names.test_images or names.label_suffix or "=" in (names.channels or ""):
        raise OptionError(
            "--labels, --test-images, --label-suffix and suffixes of channels are for plain folders",
            where=path,
            remedy="leave them out: a table lists the path of every file",
            code="E-OPTION-CONFLICT",
        )
    channels = tuple(parse_channels(names.channels)) if names.channels else ()
    table = read_table(path, channels=channels)
    if not (table.channels or channels):
        raise OptionError("the channels of its images are not named", where=path, remedy=_CHANNELS_HELP)
    return replace(table, channels=table.channels or channels)
