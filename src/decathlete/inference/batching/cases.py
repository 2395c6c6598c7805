"""Case after case; windows of small ones are computed together, so that many small images fill a device's batch."""

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

TOGETHER_BYTES = 2**29
"""What cases that are computed together may hold between them: images, sums, and what is to be written."""


def predict_together(
    predictor: Predictor, cases: Iterable[Outcome[CaseRequest[Payload]]]
) -> Iterator[list[Outcome[CaseResult[Payload]]]]:
    """Predict ``cases``, which are taken as they are needed; yield those that were finished at one time.

    A case is small if it fills no batch by itself (:func:`small_case_bytes`): its windows wait for those of the next
    ones. Any other case is computed alone, and then nothing is held beside it. A case that has failed before, or that
    fails here, is an outcome with its message, and no concern of the others. What is predicted does not depend on the
    others either, but for rounding: a network may compute a batch of another size otherwise.
    """
    small = SharedBatches[Payload](predictor)
    try:
        for found in cases:
            asked = found.value
            if asked is None:
                yield [Outcome(case_id=found.case_id, error=found.error)]
                continue
            held_bytes = small_case_bytes(predictor, asked)
            if held_bytes is None or small.held_bytes + held_bytes > TOGETHER_BYTES:
                yield small.finish()
            if held_bytes is None:
                yield [found.then(partial(_alone, predictor))]
            else:
                yield small.add(found.case_id, asked, held_bytes=held_bytes)
        yield small.finish()
    finally:
        small.discard()


def _alone(predictor: Predictor, asked: CaseRequest[Payload]) -> CaseResult[Payload]:
    return asked.about, predictor.compute(asked.ready, probabilities=asked.probabilities, scratch=asked.scratch)


def small_case_bytes(predictor: Predictor, asked: CaseRequest[Payload]) -> int | None:
    """Bytes that a small case holds at most while it is computed; ``None`` for a case to be computed alone.

    Alone are cases whose windows fill a batch, those that would hold more than all together may, and every case where
    models of several plans are averaged or the process is told how much memory it may fill.
    """
    if predictor.memory_bytes is not None or len(predictor.ensembles) > 1:
        return None
    (ensemble,), (prepared,) = predictor.ensembles, asked.ready.cases
    channels, z, y, x = prepared.image_CZYX.shape
    settings = predictor.settings
    grid = window_grid(ensemble.plan, (z, y, x), overlap=settings.overlap, blend=settings.blend)
    if prod(len(starts) for starts in grid.starts) >= predictor.batch_of(ensemble):
        return None
    n_outputs = predictor.labels.n_outputs
    floats = (2 * channels + n_outputs) * prod(grid.padded)  # the image, padded, and the sums
    voxel_bytes = file_dtype(predictor.labels).itemsize + (FLOAT_BYTES * n_outputs if asked.probabilities else 0)
    held_bytes = FLOAT_BYTES * floats + voxel_bytes * prod(asked.ready.geometry.shape_ZYX)
    return held_bytes if held_bytes <= TOGETHER_BYTES else None
