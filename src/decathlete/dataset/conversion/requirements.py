"""The memory and the disk space that a conversion needs, from the headers of its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path

from decathlete.core.estimates import (
    LABEL_BYTES_PER_VOXEL,
    LEAST_CONVERTED_SHARE,
    CaseSize,
    check_bytes,
    convert_bytes,
    read_label_bytes,
)
from decathlete.core.geometry import Geometry
from decathlete.core.limits import limit_workers, warn_of_disk_space
from decathlete.core.parallel import Workers
from decathlete.core.sizes import require_disk_space
from decathlete.dataset.conversion.jobs import Job, PlaceFile, WriteImage, WriteLabel
from decathlete.dataset.spec import Case
from decathlete.errors import ImageError
from decathlete.io.format_lookup import files_of, is_picture
from decathlete.io.format_settings import FormatSettings
from decathlete.io.images import holds_integers
from decathlete.io.largest_images import sizes_of_largest, stored_file_bytes


def limit_label_reading(workers: int, labelled: Mapping[str, Case]) -> Workers:
    """Return how many label maps of these cases can be read at a time to find their values."""
    labels = {case_id: (case.label,) for case_id, case in labelled.items() if case.label is not None}
    sizes = _sizes_of_largest(labels, labelled, workers)
    needed = {key: read_label_bytes(size, in_floats=_has_float_label(labelled[key])) for key, size in sizes.items()}
    return limit_workers(workers, needed, doing="read")


def limit_survey(workers: int, cases: Mapping[str, Case]) -> Workers:
    """Return how many cases can be surveyed at a time: their headers need no memory, but some files are read whole."""
    sizes = _sizes_of_largest({key: case.images for key, case in cases.items()}, cases, workers)
    needed = {key: _survey_bytes(cases[key], size) for key, size in sizes.items()}
    return limit_workers(workers, {key: n_bytes for key, n_bytes in needed.items() if n_bytes}, doing="read")


def limit_conversion(jobs: Mapping[str, Sequence[Job]], folder: Path, *, copy: bool, workers: int) -> Workers:
    """Check that the new files fit on the disk; return how many cases fit into memory at a time.

    Args:
        jobs: case -> jobs of its files; files that exist already need nothing.
        copy: whether files are copied instead of linked.

    Raises:
        OutputError: the disk of ``folder`` has too little free space.
    """
    missing = {key: [job for job in of_case if not _is_done(job)] for key, of_case in jobs.items()}
    _check_disk_space([job for of_case in missing.values() for job in of_case], folder, copy=copy)
    needed = {key: max(map(_memory_bytes, of_case), default=0) for key, of_case in missing.items()}
    return limit_workers(workers, {key: n_bytes for key, n_bytes in needed.items() if n_bytes}, doing="convert")


def _sizes_of_largest(
    images: Mapping[str, Sequence[Path]], cases: Mapping[str, Case], workers: int
) -> dict[str, CaseSize]:
    if not images:
        return {}
    first = next(iter(cases.values()))  # all cases of a dataset are read with the same settings
    return sizes_of_largest(images, workers, spacing=first.spacing, formats=first.formats)


def _survey_bytes(case: Case, size: CaseSize) -> int:
    """Return the memory for what the survey reads whole: a picture, which may be grey, and labels in floating point."""
    of_picture = check_bytes(size) if is_picture(case.images[0]) else 0
    return max(of_picture, read_label_bytes(size, in_floats=True) if _has_float_label(case) else 0)


def _has_float_label(case: Case) -> bool:
    return case.label is not None and case.structures is None and _has_floats(case.label, case.formats)


def _has_floats(path: Path, formats: FormatSettings) -> bool:
    with suppress(ImageError):  # whoever reads it reports it
        return not holds_integers(path, formats=formats)
    return False


def _is_done(job: Job) -> bool:
    return all(target.exists() for target in job.targets)


def _memory_bytes(job: Job) -> int:
    if isinstance(job, PlaceFile):
        if not job.known or job.geometry is None:
            return 0
        return read_label_bytes(_size(job.geometry), in_floats=_has_floats(job.source, job.formats))
    size = _size(job.geometry, job.n_stored if isinstance(job, WriteImage) else 1)
    return convert_bytes(size, renumber=isinstance(job, WriteLabel) and bool(job.values))


def _check_disk_space(jobs: Sequence[Job], folder: Path, *, copy: bool) -> None:
    """Check the space for copies, new images and new label maps; links need none."""
    copies = [job for job in jobs if isinstance(job, PlaceFile) and copy]
    images = [job for job in jobs if isinstance(job, WriteImage)]
    labels = [job for job in jobs if isinstance(job, WriteLabel)]
    converted_bytes = _stored_bytes(images)
    other_bytes = _stored_bytes(copies) + round(
        LABEL_BYTES_PER_VOXEL * sum(_size(job.geometry).n_voxels for job in labels)
    )
    new: list[Job] = [*copies, *images, *labels]
    needed_for = f"for {sum(len(job.targets) for job in new)} new files"
    remedy = "free disk space, or choose a folder on another disk"
    remedy += ", or leave out --copy to link the files" if copies else ""
    least_bytes = other_bytes + round(LEAST_CONVERTED_SHARE * converted_bytes)
    require_disk_space(folder, least_bytes, needed_for=needed_for, remedy=remedy)
    warn_of_disk_space(folder, other_bytes + converted_bytes, needed_for=needed_for)


def _stored_bytes(jobs: Iterable[Job]) -> int:
    return sum(stored_file_bytes(part) for job in jobs for path in job.sources for part in files_of(path))


def _size(geometry: Geometry, n_channels: int = 1) -> CaseSize:
    return CaseSize(n_voxels=prod(geometry.shape_ZYX), n_channels=n_channels)
