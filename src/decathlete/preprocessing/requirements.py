"""The memory and the disk space that preparing a dataset needs, by its fingerprint or the headers of its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from math import prod
from pathlib import Path

from decathlete.core.estimates import USUAL_STORED_SHARE, CaseSize, prepare_bytes, stored_bytes
from decathlete.core.geometry import Geometry
from decathlete.core.limits import limit_workers, warn_of_disk_space
from decathlete.core.parallel import Workers
from decathlete.core.sizes import require_disk_space
from decathlete.dataset.spec import DatasetSpec
from decathlete.errors import DecathleteError
from decathlete.io.largest_images import size_of_image
from decathlete.planning.fingerprint import CaseFingerprint, Fingerprint
from decathlete.planning.grid import permute
from decathlete.planning.plan import Plan
from decathlete.preprocessing.resample import resampled_shape
from decathlete.preprocessing.store import COARSE_START


def limit_preparation(
    spec: DatasetSpec, plan: Plan, folder: Path, *, fingerprint: Fingerprint, workers: Workers
) -> Workers:
    """Check that the prepared cases fit on the disk; return how many of them fit into memory at a time.

    With a coarse start, the cases on its grid, which are prepared later, must fit too.

    Cases that are in ``folder`` already need no further space, even if they are prepared again.

    Raises:
        OutputError: the disk of ``folder`` has too little free space, even if the data are compressed well.
    """
    sizes = prepared_sizes(spec, plan, fingerprint)
    grids = [_new_sizes(sizes, folder)]
    if plan.coarse_start is not None:
        coarse = prepared_sizes(spec, plan.on_coarse_grid(), fingerprint)
        grids.append(_new_sizes(coarse, folder / COARSE_START))
    new = [size for grid in grids for size in grid.values()]
    n_cases = len({case for grid in grids for case in grid})
    needed_for = f"for {n_cases} prepared cases{' on two grids' if sum(map(bool, grids)) == 2 else ''}"
    remedy = "free disk space, or choose a folder on another disk (--prepared)"
    require_disk_space(folder, stored_bytes(new), needed_for=needed_for, remedy=remedy)
    warn_of_disk_space(folder, stored_bytes(new, share=USUAL_STORED_SHARE), needed_for=needed_for)
    return limit_workers(workers, {case: prepare_bytes(size) for case, size in sizes.items()}, doing="prepare")


def _new_sizes(sizes: Mapping[str, CaseSize], folder: Path) -> dict[str, CaseSize]:
    return {case: size for case, size in sizes.items() if not (folder / "cases" / case).exists()}


def prepared_sizes(spec: DatasetSpec, plan: Plan, fingerprint: Fingerprint) -> dict[str, CaseSize]:
    """Return the size of each case before and after it is prepared.

    Cases without a fingerprint are sized by their headers; those that cannot be read are left out.
    """
    measured = {case.case_id: case for case in fingerprint.cases}
    sizes = {}
    for case in spec.cases:
        if case.id in measured:
            sizes[case.id] = _size_of_measured(measured[case.id], plan)
        else:
            with suppress(DecathleteError, OSError):
                size = size_of_image(
                    case.images, spacing=case.spacing, formats=case.formats, prepared=prepared_voxels(plan)
                )
                sizes[case.id] = replace(size, n_masks=plan.n_previous)
    return sizes


def prepared_voxels(plan: Plan) -> Callable[[Geometry], int]:
    """Return a function that returns the voxels of an image on the prepared grid, if nothing is cropped."""

    def count(geometry: Geometry) -> int:
        working = plan.axes(geometry).geometry(geometry)
        spacing = working.spacing_ZYX
        return prod(resampled_shape(working.shape_ZYX, spacing, plan.target(spacing)))

    return count


def _size_of_measured(case: CaseFingerprint, plan: Plan) -> CaseSize:
    spacing, shape = permute(case.spacing, plan.axis_order), permute(case.shape, plan.axis_order)
    z, y, x = (round(edge) for edge in shape)
    return CaseSize(
        n_voxels=round(prod(case.shape) / case.crop_ratio),
        n_channels=len(plan.channels) + plan.foreground_channel,
        n_prepared=prod(resampled_shape((z, y, x), spacing, plan.target(spacing))),
        n_masks=plan.n_previous,
    )
