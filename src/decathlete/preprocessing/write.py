"""Writing the store: each case whole or not at all, and never over data that another plan made."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.checksums import file_crc32
from decathlete.core.files import (
    atomic_path,
    file_digest,
    remove,
    remove_partials,
    translate_native_write_error,
    value_digest,
)
from decathlete.core.lazy_import import lazy_import
from decathlete.core.locks import require_no_readers
from decathlete.core.output_paths import writable_folder
from decathlete.dataset.annotated import annotated_of
from decathlete.dataset.groups import given_groups
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.dataset.splits import Splits
from decathlete.errors import DecathleteError, OutputError, StoreError
from decathlete.io.format_lookup import files_of
from decathlete.io.format_settings import changed_reading
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.network_spec import Dims
from decathlete.planning.plan import Plan
from decathlete.planning.plan_versions import digest_form
from decathlete.preprocessing.prepared import PreparedCase
from decathlete.preprocessing.store import (
    CASE_VERSION,
    COARSE_START,
    FOREGROUND,
    IMAGE,
    LABEL,
    PREPARATION_FIELDS,
    STORE_VERSION,
    CaseRecord,
    RawImage,
    StoredCase,
    StoreSource,
    read_finished_record,
)

log = logging.getLogger(__name__)

blosc2 = lazy_import("blosc2")

_CHUNK = 64
"""Voxels per axis that are stored together: about a patch, so that a patch costs a few seeks."""
_BLOCK = 16
"""Voxels per axis that are decompressed together: a fraction of a patch, so that little is read in vain."""
_CONTENT = ("plan.json", "fingerprint.json", "splits.json", "source.json", "cases", COARSE_START)


def preparation_digest(plan: Plan) -> str:
    """Return the digest of everything in the plan that prepared arrays depend on."""
    return value_digest([STORE_VERSION, digest_form(plan.model_dump(mode="json", include=set(PREPARATION_FIELDS)))])


def case_digest(case: Case, plan: Plan, predicted: Path | None = None) -> str:
    """Return the digest of the preparation and of the case's raw files (name, size, time of change).

    Args:
        predicted: label map of a cascade's previous stage; its content counts.

    Raises:
        OSError: a file is missing.
    """
    stamps = [(p.name, i.st_size, i.st_mtime_ns) for file in case.files for p in files_of(file) for i in [p.stat()]]
    reading: list[object] = [] if case.spacing is None else [case.spacing]
    reading += [changed] if (changed := changed_reading(case.formats)) else []
    reading += [] if case.structures is None else [case.structures.names]
    reading += [case.unannotated] if case.unannotated else []
    previous = [] if predicted is None else [file_digest(predicted)]
    return value_digest([preparation_digest(plan), case.id, stamps, *reading, *previous])


def begin(
    folder: Path, spec: DatasetSpec, plan: Plan, *, fingerprint: Fingerprint, splits: Splits, overwrite: bool
) -> None:
    """Make ``folder`` ready for cases prepared by ``plan``; cases that it prepared before are kept.

    Raises:
        OutputError: the folder cannot be written, or holds anything else and ``overwrite`` is not given; or another
            process reads what would be replaced.
    """
    obstacle = find_obstacle(folder, spec, plan, splits)
    if obstacle and not overwrite:
        raise OutputError(obstacle, where=folder, remedy="choose another folder, or use --overwrite to replace it")
    if obstacle:
        require_no_readers(folder)
        for name in _CONTENT:
            remove(folder / name)
    writable_folder(folder / "cases")
    remove_partials(folder / "cases")
    remove_partials(folder)
    plan.save(folder / "plan.json")
    fingerprint.save(folder / "fingerprint.json")
    splits.save(folder / "splits.json")
    StoreSource(
        dataset=spec.name,
        root=str(spec.root.resolve()),
        dataset_digest=spec.digest(),
        case_ids=tuple(case.id for case in spec.cases),
        splits_digest=_splits_digest(splits),
        spacing=spec.spacing,
        image_formats=changed_reading(spec.formats),
        annotated=annotated_of(spec),
        groups=given_groups(spec),
    ).save(folder / "source.json")


def find_obstacle(folder: Path, spec: DatasetSpec, plan: Plan, splits: Splits) -> str | None:
    """Return why cases of ``spec`` that ``plan`` prepares cannot be added to ``folder``; ``None``: they can.

    Raises:
        OutputError: ``folder`` is a file.
    """
    if folder.is_file():
        raise OutputError("is a file, not a folder", where=folder, remedy="choose another folder")
    present = {p.name for p in folder.iterdir() if not _is_hidden_or_empty(p)} if folder.is_dir() else set()
    if not present:
        return None
    source = _load_source(folder)
    if "plan.json" not in present and source is None:
        return f"contains something else ({', '.join(sorted(present)[:3])})"
    if source is not None and (renamed := _describe_renamed(source, spec)):
        return f"contains the same cases with other names ({renamed})"
    try:
        found = Plan.load(folder / "plan.json")
    except DecathleteError:
        if not _contains_only(folder / "cases", spec.cases, plan):
            return "contains data prepared by a plan that cannot be read"
    else:
        if _grids(found) != _grids(plan):
            return f"contains data prepared by another plan{_describe_differences(found, plan)}"
    return _other_split(folder, splits)


def _describe_renamed(source: StoreSource, spec: DatasetSpec) -> str | None:
    """Return the first case of unchanged files that has another name in the dataset now."""
    pairs = [(before, case.id) for before, case in zip(source.case_ids, spec.cases, strict=False) if before != case.id]
    if not pairs or source.dataset_digest != spec.digest():
        return None
    return f"{pairs[0][0]}, now {pairs[0][1]}"


def _describe_differences(found: Plan, plan: Plan) -> str:
    fields = [name for name in found.differing_fields(plan) if name in (*PREPARATION_FIELDS, COARSE_START)]
    return f" (different {', '.join(fields)})" if fields else ""


def _grids(plan: Plan) -> tuple[str, str]:
    """Return the digests of the preparation on the plan's grid and on that of its coarse start."""
    return preparation_digest(plan), preparation_digest(plan.on_coarse_grid())


def _is_hidden_or_empty(path: Path) -> bool:
    """Return whether a path is hidden, or a folder without visible content, such as one that is only locked."""
    return path.name.startswith(".") or (path.is_dir() and all(p.name.startswith(".") for p in path.iterdir()))


def _contains_only(folder: Path, cases: Sequence[Case], plan: Plan) -> bool:
    """Return whether all readable cases were prepared by ``plan``: then only the file of their plan is damaged."""
    found = []
    for case in cases:
        with suppress(StoreError):
            found.append(read_finished_record(folder / case.id).digest == case_digest(case, plan))
    return all(found)


def _other_split(folder: Path, splits: Splits) -> str | None:
    """Return the error for other folds: models would be scored on cases that they were trained on."""
    if not (folder / "splits.json").is_file():
        return None
    try:
        same = Splits.load(folder / "splits.json") == splits
    except DecathleteError:
        source = _load_source(folder)
        if source is None or source.splits_digest != _splits_digest(splits):
            return "contains a damaged splits.json, so that its folds are unknown"
        log.warning("%s is damaged and is written again", folder / "splits.json")
        return None
    return None if same else "contains cases that are split into other folds (other options, or another list of cases)"


def _load_source(folder: Path) -> StoreSource | None:
    with suppress(DecathleteError):
        return StoreSource.load(folder / "source.json")
    return None


def _splits_digest(splits: Splits) -> str:
    return value_digest(splits.model_dump(mode="json"))


def is_current(folder: Path, digest: str) -> bool:
    """Return whether the case's folder contains, complete, what would be made again.

    Every file is read once and compared with its checksum (0.45 s for each GB in the page cache). A case that an older
    release wrote without checksums is decompressed instead, and gets them.
    """
    try:
        record = read_finished_record(folder)
        if record.digest != digest:
            return False
        StoredCase.of(folder, record).verify()
    except StoreError as problem:
        if problem.code != "E-STORE-MISSING":
            log.warning("%s: %s; the case is prepared again", problem.where, problem.problem)
        return False
    if not record.crc32:
        checksums = _checksums(folder / name for name in record.sizes)
        record.revised(version=CASE_VERSION, crc32=checksums).save(folder / "case.json")
    return True


def _checksums(paths: Iterable[Path]) -> dict[str, int]:
    return {path.name: file_crc32(path) for path in paths}


def write_case(folder: Path, prepared: PreparedCase, *, digest: str, dims: Dims, raw: RawImage | None = None) -> None:
    """Write one case to ``folder``, replacing what is there, in one step.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_path(folder) as partial:
        partial.mkdir()
        _write_array(partial / IMAGE, prepared.image_CZYX, dims)
        if prepared.label_ZYX is not None:
            _write_array(partial / LABEL, prepared.label_ZYX, dims)
        places: dict[str, Any] = {str(index): flat for index, flat in prepared.foreground.items()}
        np.savez(partial / FOREGROUND, **places)
        files = sorted(partial.iterdir())
        CaseRecord(
            case_id=prepared.case_id,
            n_channels=prepared.image_CZYX.shape[0],
            has_label=prepared.label_ZYX is not None,
            restoration=prepared.restoration,
            digest=digest,
            sizes={path.name: path.stat().st_size for path in files},
            crc32=_checksums(files),
            raw=raw,
        ).save(partial / "case.json")
        remove(folder)


def _write_array(path: Path, array: NDArray[Any], dims: Dims) -> None:
    along_0 = (8, 1) if dims == 2 else (_CHUNK, _BLOCK)  # 2D models read single slices
    in_plane = (_CHUNK, _CHUNK) if dims == 2 else (_CHUNK, _BLOCK)
    sizes = [along_0, in_plane, in_plane]
    lead = array.shape[:-3]
    chunks, blocks = (tuple(min(size[i], n) for size, n in zip(sizes, array.shape[-3:], strict=True)) for i in range(2))
    try:
        with translate_native_write_error(path):
            blosc2.asarray(
                np.ascontiguousarray(array),
                urlpath=str(path),
                chunks=(*lead, *chunks),
                blocks=(*(1 for _ in lead), *blocks),
                cparams={"codec": blosc2.Codec.ZSTD, "clevel": 1, "nthreads": 1},  # shuffled by default
                dparams={"nthreads": 1},
            )
    except RuntimeError as problem:
        raise OutputError(
            f"cannot be written ({problem})", where=path, remedy="make room on its disk and run the command again"
        ) from problem
