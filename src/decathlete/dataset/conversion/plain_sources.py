"""Sources without a ``dataset.json``: plain folders and tables, of which the user says what they hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from decathlete.core.progress import CaseProgress
from decathlete.dataset.conversion.folders import Folders, find_cases, parse_channels
from decathlete.dataset.conversion.source import Source, labels_of
from decathlete.dataset.conversion.table import Table, read_table
from decathlete.dataset.groups import assign_groups
from decathlete.dataset.spec import DatasetSpec
from decathlete.errors import OptionError

_CHANNELS_HELP = "name them, e.g. --channels CT or --channels T1,FLAIR: CT (in any case) is normalised as CT"


@dataclass(frozen=True, kw_only=True)
class FileNames:
    """How the files of such a source are called, and what they hold.

    Attributes:
        channels: ``MRI``, ``CT,PET``, or ``T1=_t1,T2=_t2``: names, and what the names of their files end with. ``CT``
            is normalised as CT. Of a table: the columns that are channels, or what its ``image`` files hold.
        classes: ``liver,tumour`` (values 1, 2) or ``liver=1,tumour=4,ignore=9``; without it, every value that occurs.
        images, labels, test_images: folders, relative to the source; label maps lie with the images if not said.
        label_suffix: what the names of label maps end with, before their kind.
    """

    channels: str | None = None
    classes: str | None = None
    images: Path | None = None
    labels: Path | None = None
    test_images: Path | None = None
    label_suffix: str = ""

    def folders(self, root: Path) -> tuple[Path, ...]:
        """Those that are read, where files are found in folders."""
        named = (self.images, self.labels, self.test_images)
        return tuple(root / folder for folder in named if folder is not None)


def read_undeclared(
    origin: Path,
    names: FileNames,
    *,
    group_by: str | None = None,
    workers: int = 2,
    progress: CaseProgress | None = None,
) -> Source:
    """The cases of a folder, or of a table if ``origin`` is a file.

    Args:
        progress: told of each label map that is read to see its values.

    Raises:
        DatasetError: with every problem of the folder or the table together.
        OptionError: channels are not named, or options that do not go with such a source.
    """
    if origin.is_file():
        table = _table(origin, names)
    else:
        table = _in_folders(origin, names)
    labels = labels_of(names.classes, table.cases, workers=workers, where=origin, progress=progress)
    groups = assign_groups([c.id for c in table.cases], group_by=group_by, declared=table.groups)
    spec = DatasetSpec(
        name=origin.resolve().stem,
        root=origin,
        layout="table" if origin.is_file() else "folders",
        channels=table.channels,
        labels=labels,
        cases=tuple(replace(case, group=groups.get(case.id)) for case in table.cases),
        test_cases=table.test_cases,
    )
    return Source(spec=spec, folds=table.folds)


def _in_folders(root: Path, names: FileNames) -> Table:
    if names.images is None or names.channels is None:
        raise OptionError("nothing says which channels the images have", where=root, remedy=_CHANNELS_HELP)
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


def _table(path: Path, names: FileNames) -> Table:
    if names.labels or names.test_images or names.label_suffix or "=" in (names.channels or ""):
        raise OptionError(
            "--labels, --test-images, --label-suffix and suffixes of channels are for plain folders",
            where=path,
            remedy="leave them out: a table names every file",
            code="E-OPTION-CONFLICT",
        )
    channels = tuple(parse_channels(names.channels)) if names.channels else ()
    table = read_table(path, channels=channels)
    if not (table.channels or channels):
        raise OptionError("nothing says which channels its images have", where=path, remedy=_CHANNELS_HELP)
    return replace(table, channels=table.channels or channels)
