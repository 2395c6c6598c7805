"""The memory and the disk space that predictions need, from the headers of the images and the plans of the models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path

from decathlete.core import machine
from decathlete.core.estimates import (
    FLOAT_BYTES,
    MEMORY_SHARE,
    CaseSize,
    plan_files_bytes,
    predicted_files_bytes,
    prediction_bytes,
    read_for_prediction_bytes,
    spilled_bytes,
)
from decathlete.core.geometry import Triple
from decathlete.core.sizes import format_bytes, require_disk_space
from decathlete.errors import DecathleteError
from decathlete.inference.batching.case_predictor import CasePredictor, LocalCasePredictor
from decathlete.inference.ensemble import PlanEnsemble
from decathlete.inference.output.files import Job
from decathlete.inference.predict import Predictor
from decathlete.inference.windows.memory import default_sums_bytes, network_bytes
from decathlete.io.format_settings import FormatSettings
from decathlete.io.largest_images import size_of_image, sizes_of_largest, stored_file_bytes
from decathlete.preprocessing.requirements import prepared_voxels

log = logging.getLogger(__name__)

_N_LARGEST = 2
"""Images whose headers are read to find the largest one, twice as many."""
_REMEDY = "free disk space, or choose an output folder on another disk"


def limit_prediction(
    models: CasePredictor,
    jobs: Mapping[str, Job],
    output: Path,
    *,
    spacing: Triple | None = None,
    formats: FormatSettings = (),
) -> None:
    """Check that the predictions fit on the disk, and predict one case at a time if memory is short.

    Raises:
        OutputError: the disk of ``output`` has too little free space for the predictions.
    """
    if not jobs:
        return
    local = models.predictor if isinstance(models, LocalCasePredictor) else None
    sizes = _sizes_of_largest(jobs, () if local is None else _stages(local), spacing, formats)
    if not sizes:
        return
    n_outputs = models.facts.labels.n_outputs
    n_bytes = _files_bytes(jobs, sizes, n_outputs, partial(size_of_image, spacing=spacing, formats=formats))
    if local is not None:
        limit, n_plans = sums_limit_of(local), len(local.ensembles)
        n_bytes += max(
            spilled_bytes(stages, n_outputs, sums_limit=limit)
            + plan_files_bytes(stages[0].n_voxels, n_outputs, n_plans=n_plans)
            for stages in sizes.values()
        )
    require_disk_space(output, n_bytes, needed_for=f"for {len(jobs)} predictions", remedy=_REMEDY)
    if isinstance(models, LocalCasePredictor):
        _limit_memory(models, sizes, n_outputs)


def _stages(predictor: Predictor) -> list[PlanEnsemble]:
    """Return the models of each plan, with those of the first stages of cascades."""
    of_each = ((e,) if e.previous is None else (e, e.previous) for e in predictor.ensembles)
    return [stage for stages in of_each for stage in stages]


def sums_limit_of(predictor: Predictor) -> int | None:
    """Return the most bytes of window sums in memory, about; ``None``: no limit."""
    default = default_sums_bytes(predictor.device)
    return default if default is None or predictor.window.memory_bytes is None else predictor.window.memory_bytes


def _sizes_of_largest(
    jobs: Mapping[str, Job], stages: Sequence[PlanEnsemble], spacing: Triple | None, formats: FormatSettings
) -> dict[str, tuple[CaseSize, ...]]:
    """Return the sizes of the largest images, as each stage prepares them."""
    stored = {case_id: job.stored for case_id, job in jobs.items() if job.stored is not None}
    if stored:  # one prepared image for all plans
        return {
            case_id: (
                CaseSize(
                    n_voxels=prod(case.restoration.geometry.shape_ZYX),
                    n_channels=case.n_channels,
                    n_prepared=prod(case.shape),
                ),
            )
            for case_id, case in stored.items()
        }
    images = {case_id: job.images for case_id, job in jobs.items()}
    read = partial(sizes_of_largest, images, _N_LARGEST, spacing=spacing, formats=formats)
    if not stages:
        return {case_id: (size,) for case_id, size in read().items()}
    found = [(stage.plan.n_previous, read(prepared=prepared_voxels(stage.plan))) for stage in stages]
    return {case_id: tuple(replace(sizes[case_id], n_masks=n) for n, sizes in found) for case_id in found[0][1]}


def _files_bytes(
    jobs: Mapping[str, Job],
    sizes: Mapping[str, Sequence[CaseSize]],
    n_outputs: int,
    size_of: Callable[[Sequence[Path]], CaseSize],
) -> int:
    """Return the size of the written files: with probabilities from all headers, else as the files' sizes suggest."""
    if any(job.probabilities for job in jobs.values()):
        n_voxels = 0
        for case_id, job in jobs.items():
            with suppress(DecathleteError, OSError):
                n_voxels += (sizes[case_id][0] if case_id in sizes else size_of(job.images)).n_voxels
        return predicted_files_bytes(n_voxels, n_outputs, probabilities=True)
    stored = {case_id: sum(map(stored_file_bytes, job.images)) for case_id, job in jobs.items()}
    seen = sum(stored[case_id] for case_id in sizes)
    n_seen = sum(stages[0].n_voxels for stages in sizes.values())
    n_voxels = n_seen if seen == 0 else round(n_seen / seen * sum(stored.values()))
    return predicted_files_bytes(n_voxels, n_outputs, probabilities=False)


def _limit_memory(models: LocalCasePredictor, sizes: Mapping[str, Sequence[CaseSize]], n_outputs: int) -> None:
    predictor, available = models.predictor, machine.available_memory_bytes()
    on_cpu = predictor.device.type == "cpu"
    limit = sums_limit_of(predictor) if on_cpu else 0
    of_network = max(map(partial(_network_bytes, predictor), _stages(predictor))) if on_cpu else 0
    needed = {
        case_id: (
            read_for_prediction_bytes(stages),
            prediction_bytes(stages, n_outputs, sums_limit=limit, network_bytes=of_network),
        )
        for case_id, stages in sizes.items()
    }
    largest = max(needed, key=lambda case_id: sum(needed[case_id]))
    figures = f"the largest case ({largest}) needs about %s of memory, {format_bytes(available)} are free"
    if len(sizes) > 1 and sum(needed[largest]) > MEMORY_SHARE * available and not models.one_at_a_time:
        models.one_at_a_time = True
        log.info(f"predict one case at a time: with the next one, {figures}", format_bytes(sum(needed[largest])))
    if max(needed[largest]) > MEMORY_SHARE * available and predictor.window.memory_gb is None:
        log.warning(f"memory may run out: {figures}; --memory limits it", format_bytes(max(needed[largest])))
    _warn_of_device_memory(str(predictor.device), [size for stages in sizes.values() for size in stages], n_outputs)


def _network_bytes(predictor: Predictor, stage: PlanEnsemble) -> int:
    return network_bytes(predictor.window, plan=stage.plan, n_networks=len(stage.engines), device=predictor.device)


def _warn_of_device_memory(device: str, sizes: Sequence[CaseSize], n_outputs: int) -> None:
    """Log a warning if the sums of the windows of the largest case do not fit into the memory of an accelerator."""
    free = machine.free_device_memory_bytes(device)
    needed = FLOAT_BYTES * n_outputs * max(size.n_prepared for size in sizes)
    if free is not None and needed > MEMORY_SHARE * free:
        log.warning(
            "the memory of %s may run out: the largest case needs about %s beside the network, %s are free; "
            "--device cpu uses the disk",
            device,
            format_bytes(needed),
            format_bytes(free),
        )
