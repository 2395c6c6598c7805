"""What becomes of each file: placed as it is (a link or a copy), or written anew."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from decathlete.core.files import atomic_path
from decathlete.core.geometry import Geometry
from decathlete.errors import ImageError, OutputError
from decathlete.io.images import read_label, read_volume, write_label, write_volume


@dataclass(frozen=True, kw_only=True)
class Place:
    """The file as it is, under a new name."""

    source: Path
    target: Path


@dataclass(frozen=True, kw_only=True)
class WriteImage:
    """Channels of several files into one, of one into several, or one file in another format or on another grid.

    Attributes:
        targets: one for all channels, or one for each.
        geometry: that all targets get.
    """

    sources: tuple[Path, ...]
    targets: tuple[Path, ...]
    geometry: Geometry


@dataclass(frozen=True, kw_only=True)
class WriteLabel:
    """A label map as integers, some of its values replaced.

    Attributes:
        values: old value -> new value.
        known: where values are replaced: all that may occur.
    """

    source: Path
    target: Path
    geometry: Geometry
    values: Mapping[int, int] = field(default_factory=dict)
    known: tuple[int, ...] = ()


Job = Place | WriteImage | WriteLabel


def targets(job: Job) -> tuple[Path, ...]:
    """The files that a job makes."""
    return job.targets if isinstance(job, WriteImage) else (job.target,)


def sources(job: Job) -> tuple[Path, ...]:
    """The files that a job reads."""
    return job.sources if isinstance(job, WriteImage) else (job.source,)


def perform(job: Job, *, copy: bool) -> None:
    """Make the job's files, unless they are there: each is whole or absent.

    Args:
        copy: place copies instead of links.

    Raises:
        ImageError: a source cannot be read, or a label map holds what it may not.
        OutputError: a target cannot be written.
    """
    if all(target.exists() for target in targets(job)):
        return
    if isinstance(job, Place):
        _place(job, copy=copy)
    elif isinstance(job, WriteImage):
        _write_image(job)
    else:
        _write_label(job)


def _place(job: Place, *, copy: bool) -> None:
    with atomic_path(job.target) as partial:
        if copy:
            shutil.copyfile(job.source, partial)
            return
        try:
            # from where the target really lies, to the file itself: a chain of links would break at any of its parts
            partial.symlink_to(os.path.relpath(job.source.resolve(), job.target.parent.resolve()))
        except (OSError, ValueError) as problem:  # no links on this disk, or another drive
            raise OutputError(
                f"cannot be a link ({problem})", where=job.target, remedy="add --copy, which copies the files"
            ) from problem


def _write_image(job: WriteImage) -> None:
    volumes = [read_volume(path).array_CZYX for path in job.sources]
    kind = np.result_type(*volumes)
    image_CZYX = np.concatenate(volumes).astype(kind if kind.kind in "iu" else np.float32, copy=False)
    if len(job.targets) == 1:
        write_volume(job.targets[0], image_CZYX, job.geometry)
        return
    for target, channel_ZYX in zip(job.targets, image_CZYX, strict=True):
        write_volume(target, channel_ZYX[None], job.geometry)


def _write_label(job: WriteLabel) -> None:
    label_ZYX = read_label(job.source).array_ZYX
    if job.values:
        label_ZYX = _replaced(label_ZYX.astype(np.int64), job)
    write_label(job.target, label_ZYX, job.geometry)


def _replaced(
    label_ZYX: np.ndarray[tuple[int, ...], np.dtype[np.int64]], job: WriteLabel
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    strangers = sorted(set(np.unique(label_ZYX).tolist()) - set(job.known))
    if strangers:
        raise ImageError(
            f"holds values that are not declared: {', '.join(map(str, strangers[:10]))}",
            where=job.source,
            remedy="declare them or remove them: where values are renumbered, these might become others",
            code="E-IMAGE-VALUES",
        )
    old = np.array(job.known)
    new = np.array([job.values.get(value, value) for value in job.known])
    order = np.argsort(old)
    return new[order][np.searchsorted(old[order], label_ZYX)]
