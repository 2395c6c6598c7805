"""Writing the store: each case whole or not at all, and never over data that another plan made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.files import atomic_path, remove, remove_partials, value_digest, writable_folder
from decathlete.core.lazy_import import lazy_import
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.dataset.splits import Splits
from decathlete.errors import DecathleteError, OutputError, StoreError
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.network_spec import Dims
from decathlete.planning.plan import Plan
from decathlete.planning.plan_versions import digest_form
from decathlete.preprocessing.prepared import PreparedCase
from decathlete.preprocessing.store import STORE_VERSION, CaseRecord, RawImage, StoreSource, read_finished_record

blosc2 = lazy_import("blosc2")

_CHUNK = 64
"""Voxels per axis that are stored together: about a patch, so that a patch costs a few seeks."""
_BLOCK = 16
"""Voxels per axis that are decompressed together: a fraction of a patch, so that little is read in vain."""
_PREPARATION = (
    "dims", "channels", "labels", "orientation", "axis_order", "preprocessing_order", "target_spacing", "normalization",
    "foreground_channel", "foreground_rule", "resampling",
)  # fmt: skip
"""Fields of the plan that the prepared arrays depend on; the others (patch, network, ...) may differ for one store."""
_CONTENT = ("plan.json", "fingerprint.json", "splits.json", "source.json", "cases")


def preparation_digest(plan: Plan) -> str:
    """Return the digest of everything in the plan that prepared arrays depend on."""
    return value_digest([STORE_VERSION, digest_form(plan.model_dump(mode="json", include=set(_PREPARATION)))])


def case_digest(case: Case, plan: Plan) -> str:
    """Return the digest of the preparation and of the case's raw files (name, size, time of change).

    Raises:
        OSError: a file is missing.
    """
    files = [*case.images, *([case.label] if case.label else [])]
    stamps = [(p.name, i.st_size, i.st_mtime_ns) for p in files for i in [p.stat()]]
    reading = [] if case.spacing is None else [case.spacing]
    return value_digest([preparation_digest(plan), case.id, stamps, *reading])


def begin(
    folder: Path, spec: DatasetSpec, plan: Plan, *, fingerprint: Fingerprint, splits: Splits, overwrite: bool
) -> None:
    """Make ``folder`` ready for cases prepared by ``plan``; cases that it prepared before are kept.

    Raises:
        OutputError: the folder cannot be written, or holds anything else and ``overwrite`` is not given.
    """
    obstacle = _find_obstacle(folder, plan, splits)
    if obstacle and not overwrite:
        raise OutputError(obstacle, where=folder, remedy="choose another folder, or use --overwrite to replace it")
    if obstacle:
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
        spacing=spec.spacing,
    ).save(folder / "source.json")


def _find_obstacle(folder: Path, plan: Plan, splits: Splits) -> str | None:
    """Why ``plan``'s cases cannot simply go into ``folder``."""
    if folder.is_file():
        raise OutputError("is a file, not a folder", where=folder, remedy="choose another folder")
    present = {p.name for p in folder.iterdir() if not p.name.startswith(".")} if folder.is_dir() else set()
    if not present:
        return None
    if "plan.json" not in present:
        return f"contains something else ({', '.join(sorted(present)[:3])})"
    try:
        found = Plan.load(folder / "plan.json")
    except DecathleteError:
        return "contains data prepared by a plan that cannot be read"
    if preparation_digest(found) != preparation_digest(plan):
        return "contains data prepared by another plan"
    return _other_split(folder / "splits.json", splits)


def _other_split(path: Path, splits: Splits) -> str | None:
    """A new deal of the cases would let models of other folds be scored on cases that they were trained on."""
    if not path.is_file():
        return None
    try:
        same = Splits.load(path) == splits
    except DecathleteError:
        same = False
    return None if same else "contains cases that are split into other folds (other options, or another list of cases)"


def is_current(folder: Path, digest: str) -> bool:
    """Whether the case's folder holds, whole, what would be made again."""
    try:
        return read_finished_record(folder).digest == digest
    except StoreError:
        return False


def write_case(folder: Path, prepared: PreparedCase, *, digest: str, dims: Dims, raw: RawImage | None = None) -> None:
    """Write one case to ``folder``, replacing what is there, in one step.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_path(folder) as partial:
        partial.mkdir()
        _write_array(partial / "image.b2nd", prepared.image_CZYX, dims)
        if prepared.label_ZYX is not None:
            _write_array(partial / "label.b2nd", prepared.label_ZYX, dims)
        places: dict[str, Any] = {str(index): flat for index, flat in prepared.foreground.items()}
        np.savez(partial / "foreground.npz", **places)
        CaseRecord(
            case_id=prepared.case_id,
            n_channels=prepared.image_CZYX.shape[0],
            has_label=prepared.label_ZYX is not None,
            restoration=prepared.restoration,
            digest=digest,
            sizes={p.name: p.stat().st_size for p in sorted(partial.iterdir())},
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
