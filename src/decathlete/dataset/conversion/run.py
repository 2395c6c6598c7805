"""The work itself, into a folder that is refused where it holds anything else; a stopped run goes on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from decathlete.core.files import remove, remove_partials, value_digest, writable_folder, write_json
from decathlete.core.parallel import map_cases
from decathlete.core.progress import CaseProgress
from decathlete.core.schema import Schema
from decathlete.dataset.conversion.jobs import Job, Place, perform, sources, targets
from decathlete.dataset.conversion.source import FOLDS
from decathlete.dataset.manifest import MANIFEST
from decathlete.dataset.splits import Fold
from decathlete.errors import CasesFailedError, DecathleteError, OutputError

RECORD = "conversion.json"
_PARTS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
_CONTENT = (MANIFEST, FOLDS, *_PARTS)
_NNUNET_NAME = re.compile(r"Dataset(\d{3})_[^/]+")


class Record(Schema):
    """What a converted dataset was made from.

    Attributes:
        digest: of every file of the source (path, size, time of change), the new manifest, and the settings.
        linked, written: how many files.
        values: label values that became others.
    """

    digest: str
    source: str
    linked: int
    written: int
    values: dict[int, int] = {}


def check_place(folder: Path, source: Path, *, kept_clean: Sequence[Path], nnunet: bool) -> None:
    """Refuse a place where the new dataset may not lie, before any work.

    Args:
        kept_clean: folders of the source.

    Raises:
        OutputError: it is the source, lies in it or around it; or nnU-Net would not find a dataset there.
    """
    for origin in kept_clean:
        place, there = folder.resolve(), origin.resolve()
        if place == there or place.is_relative_to(there) or there.is_relative_to(place):
            remedy = "choose a folder apart: the source stays as it is"
            raise OutputError(
                f"is, lies in or lies around {origin}, which is read",
                where=folder,
                remedy=remedy,
                code="E-OUTPUT-INPUT",
            )
    match = _NNUNET_NAME.fullmatch(folder.name)
    if nnunet and match is None:
        number = re.match(r"(?:Task|Dataset)(\d+)_(.+)", source.resolve().name)
        example = f"Dataset{int(number[1]):03d}_{number[2]}" if number else f"Dataset100_{source.resolve().stem}"
        raise OutputError(
            "is no name by which nnU-Net finds a dataset",
            where=folder,
            remedy=f"call the folder Dataset, three digits, underscore, name: {folder.parent / example}",
        )
    if nnunet and match is not None:
        same = [p.name for p in folder.parent.glob(f"Dataset{match[1]}_*") if p.name != folder.name]
        if same:
            raise OutputError(
                f"has the number of {same[0]}: nnU-Net takes neither", where=folder, remedy="choose another number"
            )


def run_jobs(
    jobs: Mapping[str, tuple[Job, ...]],
    folder: Path,
    *,
    source: Path,
    manifest: Mapping[str, object],
    folds: tuple[Fold, ...] = (),
    values: Mapping[int, int],
    copy: bool = False,
    overwrite: bool = False,
    workers: int = 2,
    progress: CaseProgress | None = None,
) -> Record:
    """Make every file, then ``dataset.json``; what an earlier, stopped run of the same made is kept.

    Args:
        jobs: case -> its files.
        overwrite: replace what a conversion of something else made; what no conversion made is never replaced.

    Raises:
        OutputError: ``folder`` cannot be written, or something else is in the way.
        CasesFailedError: some cases could not be converted; the others are kept, ``dataset.json`` is not written.
    """
    every = [job for of_case in jobs.values() for job in of_case]
    placed = sum(isinstance(job, Place) for job in every)
    record = Record(
        digest=_digest(every, folder, [manifest, [f.model_dump() for f in folds], dict(values), copy]),
        source=str(source.resolve()),
        linked=0 if copy else placed,
        written=sum(len(targets(job)) for job in every) - (0 if copy else placed),
        values=dict(values),
    )
    _refuse_own_sources(every, folder)
    _begin(folder, record, overwrite=overwrite)
    failures = {}
    one = partial(_convert_case, copy=copy)
    for done, outcome in enumerate(map_cases(one, dict(jobs.items()), workers=workers), start=1):
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


def _convert_case(jobs: tuple[Job, ...], *, copy: bool) -> None:
    for job in jobs:
        perform(job, copy=copy)


def _digest(jobs: list[Job], folder: Path, settings: list[object]) -> str:
    files = []
    for job in jobs:
        stamps = [(str(p.resolve()), (i := p.stat()).st_size, i.st_mtime_ns) for p in sources(job)]
        files.append([type(job).__name__, stamps, [str(t.relative_to(folder)) for t in targets(job)]])
    return value_digest([files, settings])


def _refuse_own_sources(jobs: list[Job], folder: Path) -> None:
    """A table may name files anywhere, and links lead anywhere: also where the new dataset replaces what was there."""
    place = folder.resolve()
    for path in {path for job in jobs for path in sources(job)}:
        if path.parent.resolve().is_relative_to(place) or path.resolve().is_relative_to(place):
            raise OutputError(
                f"holds {path}, which is read", where=folder, remedy="choose a folder apart", code="E-OUTPUT-INPUT"
            )


def _begin(folder: Path, record: Record, *, overwrite: bool) -> None:
    writable_folder(folder.parent)
    if folder.exists() and not folder.is_dir():
        raise OutputError("is a file, not a folder", where=folder, remedy="choose another folder")
    if folder.is_dir() and any(not p.name.startswith(".") for p in folder.iterdir()):
        _clear(folder, record, overwrite=overwrite)
    for part in _PARTS:
        remove_partials(folder / part)
    record.save(folder / RECORD)


def _clear(folder: Path, record: Record, *, overwrite: bool) -> None:
    """Make room for another conversion; nothing else is ever removed, for it might be a dataset of its own."""
    try:
        kept = Record.load(folder / RECORD)
    except DecathleteError:
        raise OutputError(
            "holds files that `decathlete convert` did not make",
            where=folder,
            remedy="choose another folder, or empty this one yourself",
            code="E-OUTPUT-EXISTS",
        ) from None
    if kept.digest == record.digest:
        return
    if not overwrite:
        raise OutputError(
            f"holds a dataset converted from other files or with other settings ({kept.source})",
            where=folder,
            remedy="choose another folder, or give --overwrite to replace it",
            code="E-OUTPUT-EXISTS",
        )
    for name in _CONTENT:
        remove(folder / name)
