"""Run the jobs of a conversion; a stopped conversion is resumed, and other results are never overwritten."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from decathlete.core.files import remove, remove_partials, value_digest, write_json
from decathlete.core.output_paths import check_output_path
from decathlete.core.parallel import map_cases
from decathlete.core.progress import CaseProgress
from decathlete.core.registry import ComponentSettings
from decathlete.core.schema import Schema
from decathlete.dataset.conversion.jobs import Job, PlaceFile, WriteLabel, run_job
from decathlete.dataset.conversion.requirements import limit_conversion
from decathlete.dataset.find_dataset import FOLDS, MANIFEST
from decathlete.dataset.splits import Fold
from decathlete.errors import CasesFailedError, DecathleteError, OutputError
from decathlete.io.format_lookup import files_of
from decathlete.io.format_settings import changed_settings, check_effect

RECORD = "conversion.json"
_PARTS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
_CONTENT = (MANIFEST, FOLDS, *_PARTS)
_NNUNET_NAME = re.compile(r"Dataset(\d{3})_[^/]+")


class ConversionResult(Schema):
    """The source and the settings of a converted dataset.

    Attributes:
        digest: digest of every source file (path, size, modification time), the new manifest, and the settings.
        linked, written: number of files.
        values: old label value -> new label value, for values that changed.
    """

    digest: str
    source: str
    linked: int
    written: int
    values: dict[int, int] = {}


def check_output(folder: Path, source: Path, *, source_folders: Sequence[Path], nnunet: bool) -> None:
    """Check that the new dataset may be written to ``folder``, before any work.

    Args:
        source_folders: folders that are read.

    Raises:
        OutputError: ``folder`` is the source, is inside of it or contains it; or nnU-Net would not find a dataset
            there.
    """
    for origin in source_folders:
        new, old = folder.resolve(), origin.resolve()
        if new.is_relative_to(old) or old.is_relative_to(new):
            remedy = "choose a separate folder: the source is never changed"
            raise OutputError(
                f"is, contains or is inside of the source {origin}",
                where=folder,
                remedy=remedy,
                code="E-OUTPUT-INPUT",
            )
    match = _NNUNET_NAME.fullmatch(folder.name)
    if nnunet and match is None:
        number = re.match(r"(?:Task|Dataset)(\d+)_(.+)", source.resolve().name)
        example = f"Dataset{int(number[1]):03d}_{number[2]}" if number else f"Dataset100_{source.resolve().stem}"
        raise OutputError(
            "does not have a name that nnU-Net recognises as a dataset",
            where=folder,
            remedy=f"use Dataset, three digits, underscore, name: {folder.parent / example}",
        )
    if nnunet and match is not None:
        same = [p.name for p in folder.parent.glob(f"Dataset{match[1]}_*") if p.name != folder.name]
        if same:
            raise OutputError(
                f"has the same number as {same[0]}: nnU-Net would reject both",
                where=folder,
                remedy="choose another number",
            )


def run_jobs(
    jobs: Mapping[str, tuple[Job, ...]],
    folder: Path,
    *,
    source: str,
    manifest: Mapping[str, object],
    folds: tuple[Fold, ...] = (),
    values: Mapping[int, int],
    numbering: Sequence[object] = (),
    copy: bool = False,
    image_formats: Sequence[ComponentSettings] = (),
    overwrite: bool = False,
    workers: int = 2,
    progress: CaseProgress | None = None,
) -> ConversionResult:
    """Create every file, then ``dataset.json``; files of an earlier, stopped run of the same conversion are kept.

    Args:
        jobs: case -> jobs of its files.
        source: absolute path of the source, for the record.
        values: old label value -> new one, for the record.
        numbering: the same of each of several sources.
        image_formats: settings of the formats of the files that are read and written.
        overwrite: replace the result of another conversion; other files are never replaced.

    Raises:
        OptionError: no file is read or written in the format of some settings.
        OutputError: ``folder`` cannot be written, contains other files, or its disk has too little free space.
        CasesFailedError: some cases could not be converted; the others are kept, ``dataset.json`` is not written.
    """
    all_jobs = [job for case_jobs in jobs.values() for job in case_jobs]
    check_effect(
        image_formats,
        read=(path for job in all_jobs for path in job.sources),
        written=(path for job in all_jobs if not isinstance(job, PlaceFile) for path in job.targets),
    )
    n_placed = sum(isinstance(job, PlaceFile) for job in all_jobs)
    settings: list[object] = [manifest, [f.model_dump() for f in folds], dict(values), copy]
    if numbering:
        settings.append(list(numbering))
    if changed := changed_settings(image_formats):
        settings.append(changed)
    record = ConversionResult(
        digest=digest_jobs(all_jobs, folder, settings),
        source=source,
        linked=0 if copy else n_placed,
        written=sum(len(job.targets) for job in all_jobs) - (0 if copy else n_placed),
        values=dict(values),
    )
    _reject_own_sources(all_jobs, folder)
    _prepare_folder(folder, record, overwrite=overwrite)
    at_once = limit_conversion(jobs, folder, copy=copy, workers=workers)
    failures = {}
    convert_case = partial(_convert_case, copy=copy, image_formats=image_formats)
    for done, outcome in enumerate(map_cases(convert_case, dict(jobs.items()), workers=at_once), start=1):
        if outcome.error is not None:
            failures[outcome.case_id.partition(" ")[2]] = outcome.error
        if progress:
            progress(done, len(jobs), outcome.case_id)
    if failures:
        raise CasesFailedError(failures, n_done=len(jobs) - len(failures), doing="convert")
    if folds:
        write_json(folder / FOLDS, [f.model_dump(mode="json") for f in folds])
    write_json(folder / MANIFEST, manifest)
    return record


def _convert_case(jobs: tuple[Job, ...], *, copy: bool, image_formats: Sequence[ComponentSettings]) -> None:
    for job in jobs:
        run_job(job, copy=copy, image_formats=image_formats)


def digest_jobs(jobs: list[Job], folder: Path, settings: list[object]) -> str:
    files = []
    for job in jobs:
        sources = [part for path in job.sources for part in files_of(path)]
        stamps = [(str(p.resolve()), (i := p.stat()).st_size, i.st_mtime_ns) for p in sources]
        reading: list[object] = [] if isinstance(job, PlaceFile) or job.spacing is None else [job.spacing]
        reading += [job.structures.names] if isinstance(job, WriteLabel) and job.structures is not None else []
        files.append([type(job).__name__, stamps, [str(t.relative_to(folder)) for t in job.targets], *reading])
    return value_digest([files, settings])


def _reject_own_sources(jobs: list[Job], folder: Path) -> None:
    """Reject a target folder that contains source files: tables and links may point to files anywhere."""
    place = folder.resolve()
    for path in {path for job in jobs for path in job.sources}:
        if path.parent.resolve().is_relative_to(place) or path.resolve().is_relative_to(place):
            raise OutputError(
                f"contains the source file {path}",
                where=folder,
                remedy="choose a separate folder",
                code="E-OUTPUT-INPUT",
            )


def check_replaceable(folder: Path) -> None:
    """Check that ``folder`` is absent, empty, or the result of a conversion, before files are read.

    Raises:
        OutputError: it contains files that a conversion did not create.
    """
    check_output_path(folder.parent)
    if folder.exists() and not folder.is_dir():
        raise OutputError("is a file, not a folder", where=folder, remedy="choose another folder")
    if _has_content(folder):
        _existing_record(folder)


def _has_content(folder: Path) -> bool:
    return folder.is_dir() and any(not p.name.startswith(".") for p in folder.iterdir())


def _prepare_folder(folder: Path, record: ConversionResult, *, overwrite: bool) -> None:
    if _has_content(folder):
        _clear(folder, record, overwrite=overwrite)
    remove_partials(folder)
    for part in _PARTS:
        remove_partials(folder / part)
    record.save(folder / RECORD)


def _clear(folder: Path, record: ConversionResult, *, overwrite: bool) -> None:
    """Remove the result of another conversion."""
    existing = _existing_record(folder)
    if existing.digest == record.digest:
        return
    if not overwrite:
        raise OutputError(
            f"contains a dataset converted from other files or with other settings ({existing.source})",
            where=folder,
            remedy="choose another folder, or add --overwrite to replace it",
            code="E-OUTPUT-EXISTS",
        )
    for name in _CONTENT:
        remove(folder / name)


def _existing_record(folder: Path) -> ConversionResult:
    """Return the record of the conversion that created ``folder``; anything else may be a dataset of the user.

    Raises:
        OutputError: there is none.
    """
    try:
        return ConversionResult.load(folder / RECORD)
    except DecathleteError:
        raise OutputError(
            "contains files that `decathlete convert` did not create",
            where=folder,
            remedy="choose another folder, or empty this one yourself",
            code="E-OUTPUT-EXISTS",
        ) from None
