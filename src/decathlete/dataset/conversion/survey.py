"""Read the headers of all files and derive the jobs of a conversion, or list every problem."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from decathlete.core.choices import DatasetLayout
from decathlete.core.geometry import Geometry
from decathlete.core.header_transforms import transform_distance_mm, transform_tolerance_mm
from decathlete.core.parallel import map_cases
from decathlete.core.progress import CaseProgress
from decathlete.dataset.case_check import DIRECTION_TOLERANCE, GRID_TOLERANCE_MM
from decathlete.dataset.conversion.jobs import Job, PlaceFile, WriteImage, WriteLabel
from decathlete.dataset.conversion.requirements import limit_survey
from decathlete.dataset.label_structures import match_all_structures
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.errors import DatasetError, ImageError, problems_found
from decathlete.io.format_lookup import DEFAULT_SUFFIX, files_of, is_picture, output_suffix
from decathlete.io.format_settings import FormatSettings
from decathlete.io.images import Image, holds_integers, match_channels, read_grid, read_label, read_volume

log = logging.getLogger(__name__)

_SIDECAR = ".json"
"""Suffix of files that have the spacing of a TIFF; they are placed with it under the name of its case."""
_REMEDY = "fix these files, or leave them out; nothing was written"


@dataclass(frozen=True, kw_only=True)
class Target:
    """The dataset to create.

    Attributes:
        suffix: suffix of all files.
        channels: number of channels of each case.
        values: old label value -> new label value, for values that change.
        known: all label values that may occur.
        check_values: whether other values are errors even if no value changes.
    """

    layout: DatasetLayout
    folder: Path
    suffix: str
    channels: int
    values: Mapping[int, int] = field(default_factory=dict)
    known: tuple[int, ...] = ()
    check_values: bool = False

    @property
    def checked_values(self) -> tuple[int, ...]:
        """All values that a label map may contain; empty: they are not checked."""
        return self.known if self.values or self.check_values else ()

    def images(self, case_id: str, part: str) -> tuple[Path, ...]:
        """Return the image files of a case: nnU-Net has one per channel, the Decathlon one."""
        stems = [f"{case_id}_{c:04d}" for c in range(self.channels)] if self.layout == "nnunet" else [case_id]
        return tuple(self.folder / f"images{part}" / f"{stem}{self.suffix}" for stem in stems)

    def label(self, case_id: str, part: str) -> Path:
        """Return the path of the label map of a case."""
        return self.folder / f"labels{part}" / f"{case_id}{self.suffix}"


def choose_suffix(spec: DatasetSpec, suffix: str | None) -> str:
    """Return the suffix of all new files: ``suffix``, or that of the existing files.

    Raises:
        DatasetError: the existing files have several suffixes, and ``suffix`` is ``None``.
    """
    if suffix is not None:
        return suffix
    files = [p for c in (*spec.cases, *spec.test_cases) for p in (*c.images, *([c.label] if c.label else []))]
    counts = Counter(s for path in files if path.name.lower().endswith(s := output_suffix(path)))
    if len(counts) > 1:
        listed = ", ".join(f"{n} {ending}" for ending, n in counts.most_common())
        raise DatasetError(
            f"its files have several formats ({listed}); the new dataset needs one",
            where=spec.root,
            remedy=f"add e.g. --suffix {counts.most_common(1)[0][0]}: the other files are converted",
        )
    return next(iter(counts), DEFAULT_SUFFIX)


def survey(
    spec: DatasetSpec, target: Target, *, workers: int = 2, progress: CaseProgress | None = None
) -> dict[str, tuple[Job, ...]]:
    """Return the jobs of each case, by ``train ID`` or ``test ID``; only headers are read, nothing is written.

    Raises:
        DatasetError: files are missing or unreadable, have too many or too few channels, or do not share the grid of
            their case; lists every problem.
    """
    cases = {f"train {c.id}": ("Tr", c) for c in spec.cases} | {f"test {c.id}": ("Ts", c) for c in spec.test_cases}
    surveys: dict[str, _CaseSurvey] = {}
    at_once = limit_survey(workers, {key: case for key, (_, case) in cases.items()})
    for outcome in map_cases(partial(_survey_case, target=target), cases, workers=at_once):
        surveys[outcome.case_id] = outcome.value or _CaseSurvey(problems=(outcome.error or "failed",))
        if progress:
            progress(len(surveys), len(cases), cases[outcome.case_id][1].id)
    problems = [problem for key in cases for problem in surveys[key].problems]
    if problems:
        raise problems_found(problems, where=spec.root, remedy=_REMEDY, kind=DatasetError)
    match_all_structures(spec).log()
    _log_disagreements((found for key in cases for found in surveys[key].disagreements), target.suffix)
    return {key: surveys[key].jobs for key in cases}


def _log_disagreements(found: Iterable[tuple[Path, float]], suffix: str) -> None:
    """Say once which of two transforms is used, for all files whose qform and sform disagree."""
    if distances := dict(found):
        worst = max(distances, key=lambda path: distances[path])
        kept = "both are kept" if suffix.startswith(".nii") else f"{suffix} has no place for the qform"
        log.warning(
            "%d files have a qform and a sform that disagree (%s: by %.3g mm); the sform is used, %s",
            len(distances),
            worst,
            distances[worst],
            kept,
        )


@dataclass(frozen=True, kw_only=True)
class _CaseSurvey:
    """What the headers of a case say.

    Attributes:
        disagreements: files whose qform and sform disagree, and by how much, mm.
    """

    jobs: tuple[Job, ...] = ()
    problems: tuple[str, ...] = ()
    disagreements: tuple[tuple[Path, float], ...] = ()


def _survey_case(part_and_case: tuple[str, Case], *, target: Target) -> _CaseSurvey:
    part, case = part_and_case
    problems: list[str] = []
    paths = (*case.images, *([case.label] if case.label and case.structures is None else []))
    headers = {path: header for path in paths if (header := _read_header(path, case, problems))}
    if problems:
        return _CaseSurvey(problems=tuple(problems))
    first = headers[case.images[0]][1]
    if case.label is not None and case.structures is not None:
        headers[case.label] = (1, first)  # it has no grid by itself
    stored = [headers[path][0] for path in case.images]
    counts = _matched_counts(case, stored, target.channels)
    problems += _channel_problems(case, counts, target.channels)
    if case.label is not None and headers[case.label][0] != 1 and not _is_grey_label(case.label, case):
        problems.append(f"{case.label}: contains {headers[case.label][0]} channels, a label map has one")
    for path in paths[1:]:
        differences = first.differences(headers[path][1], tolerance_mm=GRID_TOLERANCE_MM, tolerance=DIRECTION_TOLERANCE)
        problems += [f"{path}: does not share the grid of {case.images[0].name}: {d}" for d in differences]
    if problems:
        return _CaseSurvey(problems=tuple(problems))
    grids = [headers[path][1] for path in case.images]
    new_count = None if counts == stored else counts[0]
    jobs = _image_jobs(case, target.images(case.id, part), grids, stored=stored, n_channels=new_count)
    if case.label is not None:
        jobs.append(_label_job(case, target.label(case.id, part), first, headers[case.label], target))
    jobs += _sidecar_jobs(case.id, jobs)
    distances = ((path, geometry, transform_distance_mm(geometry)) for path, (_, geometry) in headers.items())
    disagreements = tuple((path, mm) for path, geometry, mm in distances if mm > transform_tolerance_mm(geometry))
    return _CaseSurvey(jobs=tuple(jobs), disagreements=disagreements)


def _read_header(path: Path, case: Case, problems: list[str]) -> tuple[int, Geometry] | None:
    try:
        return read_grid(path, spacing=case.spacing, formats=case.formats)
    except ImageError as problem:
        problems.append(f"{path}: {problem.problem}{f'; {problem.remedy}' if problem.remedy else ''}")
        return None


def _matched_counts(case: Case, stored: list[int], n_declared: int) -> list[int]:
    """Return the channels of each file as training reads it: a grey picture may be saved with 1 or 3 channels."""
    path = case.images[0]
    if stored == [n_declared] or len(stored) > 1 or not is_picture(path):
        return stored
    volume = read_volume(path, spacing=case.spacing, formats=case.formats)
    image = Image(array_CZYX=volume.array_CZYX, geometry=volume.geometry)
    return [len(match_channels(path, image, n_declared).array_CZYX)]


def _is_grey_label(path: Path, case: Case) -> bool:
    """Return whether a label map with several channels is grey that was saved as RGB."""
    try:
        return is_picture(path) and read_label(path, spacing=case.spacing, formats=case.formats) is not None
    except ImageError:
        return False


def _channel_problems(case: Case, counts: list[int], n_declared: int) -> list[str]:
    if sum(counts) != n_declared:
        return [f"{case.images[0]}: {case.id} has {sum(counts)} channels, the dataset declares {n_declared}"]
    multichannel = [p for p, n in zip(case.images, counts, strict=True) if n > 1 and len(counts) > 1]
    return [f"{path}: contains several channels, where one file per channel was expected" for path in multichannel]


def _image_jobs(
    case: Case, targets: tuple[Path, ...], grids: list[Geometry], *, stored: list[int], n_channels: int | None
) -> list[Job]:
    """Return the jobs of the images of a case; ``stored`` are the channels of each file."""
    if len(case.images) != len(targets) or n_channels is not None:
        return [
            WriteImage(
                sources=case.images,
                targets=targets,
                geometry=grids[0],
                spacing=case.spacing,
                formats=case.formats,
                n_stored=sum(stored),
                n_channels=n_channels,
            )
        ]
    return [
        # nnU-Net rejects channels whose spacings differ in the last digit
        PlaceFile(source=source, target=to)
        if _may_be_linked(source, to, case) and grid.affine == grids[0].affine
        else WriteImage(
            sources=(source,),
            targets=(to,),
            geometry=grids[0].revised(header=grid.header),
            spacing=case.spacing,
            formats=case.formats,
            n_stored=count,
        )
        for source, to, grid, count in zip(case.images, targets, grids, stored, strict=True)
    ]


def _label_job(case: Case, to: Path, image_grid: Geometry, header: tuple[int, Geometry], target: Target) -> Job:
    n_channels, label_grid = header
    source = case.label
    assert source is not None  # for the type checker: the caller has checked it
    if case.structures is not None:
        return _write_label(case, source, to, image_grid, target)
    close = np.allclose(label_grid.spacing_ZYX, image_grid.spacing_ZYX, rtol=1e-5, atol=1e-8)  # nnU-Net's tolerance
    may_be_linked = n_channels == 1 and _may_be_linked(source, to, case)
    if may_be_linked and close and not target.values and _has_whole_numbers(source, case.formats):
        return PlaceFile(
            source=source, target=to, known=target.checked_values, geometry=label_grid, formats=case.formats
        )
    return _write_label(case, source, to, image_grid, target)


def _sidecar_jobs(case_id: str, jobs: list[Job]) -> list[Job]:
    """Place the spacing of placed TIFF files beside them: a file for all channels of a case, as nnU-Net reads it."""
    places: dict[Path, Path] = {}
    for job in jobs:
        if isinstance(job, PlaceFile):
            for sidecar in files_of(job.source)[1:]:
                places.setdefault(job.target.with_name(f"{case_id}{sidecar.suffix}"), sidecar)
    return [PlaceFile(source=sidecar, target=to) for to, sidecar in places.items()]


def _write_label(case: Case, source: Path, to: Path, image_grid: Geometry, target: Target) -> Job:
    return WriteLabel(
        source=source,
        target=to,
        geometry=image_grid,
        values=target.values,
        known=target.checked_values,
        spacing=case.spacing,
        formats=case.formats,
        structures=case.structures,
    )


def _may_be_linked(source: Path, target: Path, case: Case) -> bool:
    """Return whether a file has the format of the target, its own voxels (not those of another file), and a spacing."""
    return (
        source.is_file()
        and all(part.suffix == _SIDECAR for part in files_of(source)[1:])
        and output_suffix(source) == output_suffix(target)
        and source.name.lower().endswith(output_suffix(target))
        and (case.spacing is None or _has_spacing(source, case.formats))
    )


def _has_spacing(path: Path, formats: FormatSettings) -> bool:
    try:
        return read_grid(path, formats=formats)[1].unit == "mm"
    except ImageError:
        return False


def _has_whole_numbers(path: Path, formats: FormatSettings) -> bool:
    """Return whether all voxels are integers; voxels are read only if the file stores floating-point numbers."""
    if holds_integers(path, formats=formats):
        return True
    array_CZYX = read_volume(path, formats=formats).array_CZYX
    return bool((array_CZYX == np.rint(array_CZYX)).all())
