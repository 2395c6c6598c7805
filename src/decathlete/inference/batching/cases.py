"""Predict case after case; small ones share batches, so that many small images fill a device's batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from math import prod

from decathlete.core.parallel import Outcome
from decathlete.inference.batching.shared_batches import CaseRequest, CaseResult, Payload, SharedBatches
from decathlete.inference.predict import Predictor
from decathlete.inference.windows.sweep import window_grid
from decathlete.inference.windows.tiles import FLOAT_BYTES
from decathlete.networks.outputs import file_dtype

SHARED_BYTES = 2**29
"""Memory for cases that share batches: images, sums, and label maps that are not written yet."""


def predict_cases(
    predictor: Predictor, cases: Iterable[Outcome[CaseRequest[Payload]]]
) -> Iterator[list[Outcome[CaseResult[Payload]]]]:
    """Predict ``cases``, which are read one by one; yield those that were finished at the same time.

    A case is small if it does not fill a batch (:func:`small_case_bytes`): its windows wait for those of the next
    cases. Every other case is computed alone, with nothing else in memory. A case that failed before or fails here is
    an outcome with its message and does not affect the others. Nor do the others affect a prediction, except by
    rounding: a network may compute batches of different sizes by different kernels.
    """
    small = SharedBatches[Payload](predictor)
    try:
        for case in cases:
            request = case.value
            if request is None:
                yield [Outcome(case_id=case.case_id, error=case.error, cause=case.cause)]
                continue
            held_bytes = small_case_bytes(predictor, request)
            if held_bytes is None or small.held_bytes + held_bytes > SHARED_BYTES:
                yield small.finish()
            if held_bytes is None:
                yield [case.then(partial(_predict_alone, predictor))]
            else:
                yield small.add(case.case_id, request, held_bytes=held_bytes)
        yield small.finish()
    finally:
        small.discard()


def _predict_alone(predictor: Predictor, request: CaseRequest[Payload]) -> CaseResult[Payload]:
    prediction = predictor.compute(request.prepared, probabilities=request.probabilities, scratch=request.scratch)
    return request.payload, prediction


def small_case_bytes(predictor: Predictor, request: CaseRequest[Payload]) -> int | None:
    """Return the memory that a small case needs while it is computed; ``None`` for a case to be computed alone.

    A case is computed alone if its windows fill a batch, if it needs more than :data:`SHARED_BYTES`, and always where
    models of several plans are computed or memory is limited.
    """
    several = len(predictor.ensembles) > 1 or predictor.ensembles[0].previous is not None
    if predictor.window.memory_gb is not None or several:
        return None
    (ensemble,), (case,) = predictor.ensembles, request.prepared.cases
    channels, z, y, x = case.image_CZYX.shape
    grid = window_grid((z, y, x), plan=ensemble.plan, window=predictor.window)
    if prod(len(starts) for starts in grid.starts) >= predictor.batch_size(ensemble):
        return None
    n_outputs = predictor.labels.n_outputs
    floats = (2 * channels + n_outputs) * prod(grid.padded)  # the image, padded, and the sums
    voxel_bytes = file_dtype(predictor.labels).itemsize + (FLOAT_BYTES * n_outputs if request.probabilities else 0)
    held_bytes = FLOAT_BYTES * floats + voxel_bytes * prod(request.prepared.geometry.shape_ZYX)
    return held_bytes if held_bytes <= SHARED_BYTES else None
