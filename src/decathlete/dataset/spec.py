"""The cases, channels and labels that a raw dataset declares; no image is read. ``manifest`` makes these objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from decathlete.core.choices import DatasetLayout
from decathlete.core.documents import is_unicode
from decathlete.core.files import value_digest
from decathlete.core.geometry import Triple
from decathlete.core.labels import LabelSet
from decathlete.core.structure_codes import StructureCode
from decathlete.io.dicom_label import LabelStructures
from decathlete.io.format_lookup import files_of
from decathlete.io.format_settings import FormatSettings, changed_reading, check_effect

GroupSource = Literal["option", "manifest", "names"]
"""Origin of groups: ``--group-by``, ``groups`` in the manifest (or a table), or a guess from the names of the cases."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """An image (one file per channel, or one file with the channels last) and its label map.

    Attributes:
        images: one path per channel, or a single path with all channels.
        label: path of the label map; ``None`` for test cases. Of several DICOM objects with structures, the first.
        group: the patient; cases of one group are never split. ``None``: a group of its own.
        spacing: z, y, x in mm, for axes whose spacing its files do not contain; ``None``: such files are errors.
        formats: settings of the image formats of its files.
        structures: of a label that is a DICOM SEG object or RT structure set; ``None``: the label is an image.
        unannotated: values of the classes that were not annotated; empty: all were. One of ``LabelSet.unannotated``.
    """

    id: str
    images: tuple[Path, ...]
    label: Path | None = None
    group: str | None = None
    spacing: Triple | None = None
    formats: FormatSettings = ()
    structures: LabelStructures | None = None
    unannotated: tuple[int, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Its images, and the files of its label map if it has one."""
        return (*self.images, *self.label_files)

    @property
    def label_files(self) -> tuple[Path, ...]:
        """The file of its label map, or all DICOM objects with its structures; empty for test cases."""
        others = self.structures.others if self.structures is not None else ()
        return () if self.label is None else (self.label, *others)


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A dataset as its manifest declares it.

    Attributes:
        channels: names of the channels; ``"CT"`` (in any case) selects CT normalisation.
        layout: layout of the manifest; ``"folders"`` or ``"table"`` without a manifest.
        groups_from: origin of the cases' groups; ``None`` without groups. Groups from ``"names"`` are a guess.
        validation: ids of the cases that the manifest lists for validation; they are among ``cases``.
        fold_of: case id -> number of the fold that holds it out, if the manifest numbers folds.
        n_declared: numbers of training cases and test images that the manifest declares, if it does.
        unused: parts of the manifest that are not used, each with the reason.
        spacing, formats: of every case, see :class:`Case`.
        structure_codes: class or region -> its code in DICOM objects, which trained models keep.
    """

    name: str
    root: Path
    layout: DatasetLayout | Literal["folders", "table"]
    channels: tuple[str, ...]
    labels: LabelSet
    cases: tuple[Case, ...]
    test_cases: tuple[Case, ...] = ()
    groups_from: GroupSource | None = None
    validation: tuple[str, ...] = ()
    fold_of: Mapping[str, int] = field(default_factory=dict)
    n_declared: tuple[int | None, int | None] = (None, None)
    unused: tuple[str, ...] = ()
    spacing: Triple | None = None
    formats: FormatSettings = ()
    structure_codes: Mapping[str, StructureCode] = field(default_factory=dict)

    def read_with(self, *, spacing: Triple | None, formats: FormatSettings = ()) -> DatasetSpec:
        """Return a copy whose files are read with ``spacing`` where they contain none, and with settings of formats."""
        cases, test_cases = (
            tuple(replace(case, spacing=spacing, formats=formats) for case in part)
            for part in (self.cases, self.test_cases)
        )
        return replace(self, cases=cases, test_cases=test_cases, spacing=spacing, formats=formats)

    def check_formats(self) -> None:
        """Check that the settings of image formats change how files of this dataset are read.

        Raises:
            OptionError: a setting that changes how files are written, or of a format that no file has.
        """
        cases = (*self.cases, *self.test_cases)
        check_effect(self.formats, read=(path for case in cases for path in case.files))

    def digest(self) -> str:
        """Return a digest of the manifest's content and of every file's path, size and modification time.

        Files that belong to a listed one count, too: the voxels of a header, the slices of a folder.

        It is fast (no voxels are read) and changes when the data change.
        """

        def stamp(path: Path) -> tuple[str, int, int]:
            name = str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)
            if not path.exists():  # ``check`` reports it; the digest must not fail
                return (name, -1, -1)
            info = path.stat()
            return (name, info.st_size, info.st_mtime_ns)

        files = [stamp(file) for case in self.cases for path in case.files for file in files_of(path)]
        reading: list[object] = [] if self.spacing is None else [self.spacing]
        reading += [changed] if (changed := changed_reading(self.formats)) else []
        reading += [case.structures.names for case in self.cases if case.structures is not None]
        partial = {case.id: case.unannotated for case in self.cases if case.unannotated}
        reading += [partial] if partial else []
        return value_digest([self.name, self.channels, self.labels.model_dump(), files, *reading])


def id_problems(cases: Iterable[Case], part: str) -> list[str]:
    """Return the problems of case names: repeated names, and names that cannot name files and folders."""
    counts = Counter(case.id for case in cases)
    problems = [f"{n} {part} cases are called {case_id!r}" for case_id, n in counts.items() if n > 1]
    for case_id in counts:  # no name may lead to another folder
        if not case_id or case_id.startswith(".") or any(c in case_id for c in "/\\\0\r\n"):
            problems.append(f"{case_id!r} cannot be a case's name: it would not be the name of a file")
        elif not is_unicode(case_id):
            problems.append(f"the name of case {case_id} is not UTF-8, and cannot be stored: rename its files")
    return problems


def path_problems(root: Path) -> list[str]:
    """Return the problem of a folder whose path cannot be stored in JSON."""
    if is_unicode(str(root.resolve())):
        return []
    return [f"the path {root.resolve()} is not UTF-8, and cannot be stored: rename the folder"]
