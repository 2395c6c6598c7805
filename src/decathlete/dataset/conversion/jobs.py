"""The jobs of a conversion: link or copy a file, or write it in another form."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.files import atomic_path
from decathlete.core.geometry import Geometry, Triple
from decathlete.core.registry import ComponentSettings
from decathlete.errors import ImageError, OutputError
from decathlete.io.dicom_label import LabelStructures
from decathlete.io.format_settings import FormatSettings
from decathlete.io.images import Image, match_channels, read_label, read_volume, write_label, write_volume


@dataclass(frozen=True, kw_only=True)
class PlaceFile:
    """Link or copy a file under a new name.

    Attributes:
        known: all values that a label map may contain; empty: they are not checked.
        geometry: grid of a label map.
        formats: settings of image formats that the source is read with, to check it.
    """

    source: Path
    target: Path
    known: tuple[int, ...] = ()
    geometry: Geometry | None = None
    formats: FormatSettings = ()

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files that the job reads."""
        return (self.source,)

    @property
    def targets(self) -> tuple[Path, ...]:
        """The files that the job creates."""
        return (self.target,)


@dataclass(frozen=True, kw_only=True)
class WriteImage:
    """Write images: merge or split channels, or change the format or the grid.

    Attributes:
        sources: the files that the job reads.
        targets: the files that the job creates: one for all channels, or one for each channel.
        geometry: grid of all targets.
        spacing, formats: of the sources, see :mod:`decathlete.io.images`.
        n_stored: channels of all sources together.
        n_channels: of a grey picture that was saved with 1 or 3 channels instead; ``None``: as they are stored.
    """

    sources: tuple[Path, ...]
    targets: tuple[Path, ...]
    geometry: Geometry
    spacing: Triple | None = None
    formats: FormatSettings = ()
    n_stored: int = 1
    n_channels: int | None = None


@dataclass(frozen=True, kw_only=True)
class WriteLabel:
    """Write a label map as integers, with some values replaced.

    Attributes:
        values: old value -> new value.
        known: all values that may occur; empty: any, if none is replaced.
        spacing, formats: of the source, see :mod:`decathlete.io.images`.
        structures: of a source that is a DICOM SEG object or RT structure set.
    """

    source: Path
    target: Path
    geometry: Geometry
    values: Mapping[int, int] = field(default_factory=dict)
    known: tuple[int, ...] = ()
    spacing: Triple | None = None
    formats: FormatSettings = ()
    structures: LabelStructures | None = None

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files that the job reads."""
        return (self.source, *(self.structures.others if self.structures is not None else ()))

    @property
    def targets(self) -> tuple[Path, ...]:
        """The files that the job creates."""
        return (self.target,)


Job = PlaceFile | WriteImage | WriteLabel


def run_job(job: Job, *, copy: bool, image_formats: Sequence[ComponentSettings] = ()) -> None:
    """Create the files of a job, unless they exist; each is complete or absent.

    Args:
        copy: copy files instead of linking them.
        image_formats: settings of the formats of the files that are written.

    Raises:
        ImageError: a source cannot be read, or a label map contains values that are not declared.
        OutputError: a target cannot be written.
    """
    if all(target.exists() for target in job.targets):
        return
    if isinstance(job, PlaceFile):
        _place(job, copy=copy)
    elif isinstance(job, WriteImage):
        _write_image(job, image_formats)
    else:
        _write_label(job, image_formats)


def _place(job: PlaceFile, *, copy: bool) -> None:
    if job.known:
        _check_values(read_label(job.source, formats=job.formats).array_ZYX, job.known, job.source)
    with atomic_path(job.target) as partial:
        if copy:
            shutil.copyfile(job.source, partial)
            return
        try:
            # relative, and to the file itself: a chain of links breaks if any of them is removed
            partial.symlink_to(os.path.relpath(job.source.resolve(), job.target.parent.resolve()))
        except (OSError, ValueError) as problem:  # a file system without links, or another drive
            raise OutputError(
                f"cannot be a link ({problem})", where=job.target, remedy="add --copy to copy the files"
            ) from problem


def _write_image(job: WriteImage, settings: Sequence[ComponentSettings]) -> None:
    read = [read_volume(path, spacing=job.spacing, formats=job.formats) for path in job.sources]
    volumes = [
        match_channels(path, Image(array_CZYX=v.array_CZYX, geometry=v.geometry), job.n_channels).array_CZYX
        for path, v in zip(job.sources, read, strict=True)
    ]
    kind = np.result_type(*volumes)
    image_CZYX = np.concatenate(volumes).astype(kind if kind.kind in "iu" else np.float32, copy=False)
    if len(job.targets) == 1:
        write_volume(job.targets[0], image_CZYX, job.geometry, settings=settings)
        return
    for target, channel_ZYX in zip(job.targets, image_CZYX, strict=True):
        write_volume(target, channel_ZYX[None], job.geometry, settings=settings)


def _write_label(job: WriteLabel, settings: Sequence[ComponentSettings]) -> None:
    label_ZYX = read_label(job.source, spacing=job.spacing, formats=job.formats, structures=job.structures).array_ZYX
    if job.known:
        _check_values(label_ZYX, job.known, job.source)
    if job.values:
        label_ZYX = _replace_values(label_ZYX.astype(np.int64), job)
    write_label(job.target, label_ZYX, job.geometry, settings=settings)


def _check_values(label_ZYX: NDArray[np.integer[Any]], known: Sequence[int], where: Path) -> None:
    undeclared = sorted(set(np.unique(label_ZYX).tolist()) - set(known))
    if undeclared:
        raise ImageError(
            f"contains values that are not declared: {', '.join(map(str, undeclared[:10]))}",
            where=where,
            remedy="declare them (of plain folders: --classes NAME=VALUE), or remove them: in the new dataset they "
            "could be other classes",
            code="E-IMAGE-VALUES",
        )


def _replace_values(label_ZYX: NDArray[np.int64], job: WriteLabel) -> NDArray[np.int64]:
    old = np.array(job.known)
    new = np.array([job.values.get(value, value) for value in job.known])
    order = np.argsort(old)
    return new[order][np.searchsorted(old[order], label_ZYX)]
