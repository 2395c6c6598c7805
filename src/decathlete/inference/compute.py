"""Compute the label map of one prepared image: each plan's windows, restored to the image's grid, and their mean."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from decathlete.core.geometry import AxisTransform, Geometry
from decathlete.core.memory import translate_out_of_memory
from decathlete.core.scratch import scratch_folder
from decathlete.core.sliding_window import SlidingWindow
from decathlete.inference.ensemble import PlanEnsemble
from decathlete.inference.output.apply_postprocessing import build_steps, postprocess
from decathlete.inference.output.averaging import average
from decathlete.inference.output.probabilities import MakeStore, ProbabilityFile, ProbabilityStore
from decathlete.inference.output.restore import Restorer
from decathlete.inference.prediction import PreparedInput, PreviousInput
from decathlete.inference.windows.memory import sums_limit
from decathlete.inference.windows.sweep import ReportShare, sweep
from decathlete.models.record import planned_postprocessing
from decathlete.preprocessing.prepared import PreparedCase
from decathlete.preprocessing.previous_stage import add_previous_stage

_PREDICTION_TOO_LARGE = (
    "choose a smaller --batch-size, set --memory (sums beyond it are written to disk), choose --device cpu if an "
    "accelerator's memory is full, or use a computer with more memory"
)

LabelMapAndStore = tuple[NDArray[np.integer[Any]], ProbabilityStore | None]


class LabelMapComputer:
    """Computes label maps with models of one dataset.

    Args:
        ensembles: models by plan.
        device: of the networks.
        window: how the networks are moved over an image.
    """

    def __init__(self, ensembles: Sequence[PlanEnsemble], *, device: torch.device, window: SlidingWindow) -> None:
        self._ensembles = tuple(ensembles)
        self._labels = self._ensembles[0].plan.labels
        self._device = device
        self._window = window

    def compute(
        self, prepared: PreparedInput, make: MakeStore | None, scratch: Path | None, progress: ReportShare | None
    ) -> LabelMapAndStore:
        """Return the label map, and the store of its probabilities.

        Args:
            make: makes the store that receives the probabilities; ``None``: they are not stored.
            scratch: folder for sums that are spilled to disk; ``None``: the system's temporary folder.
            progress: called after each batch of windows with the share of the windows that are done, 0..1.
        """
        compute = self._compute_average if len(self._ensembles) > 1 else self._compute_single
        return compute(prepared, make, scratch, progress)

    @property
    def _plan_weights(self) -> Sequence[float]:
        """Weight of each plan in the mean of probabilities; empty: all count equally."""
        weights = [ensemble.weight for ensemble in self._ensembles]
        return weights if len(set(weights)) > 1 else ()

    def _compute_single(
        self, prepared: PreparedInput, make: MakeStore | None, scratch: Path | None, progress: ReportShare | None
    ) -> LabelMapAndStore:
        case = prepared.cases[0]
        with ExitStack() as on_failure:
            store = self._make_store(make, prepared.geometry, case.restoration.axes, on_failure)
            previous = prepared.previous_of(0)
            label_ZYX = self._sweep_and_restore(self._ensembles[0], case, store, scratch, progress, previous)
            on_failure.pop_all()
        return label_ZYX, store

    def _compute_average(
        self, prepared: PreparedInput, make: MakeStore | None, scratch: Path | None, progress: ReportShare | None
    ) -> LabelMapAndStore:
        """Compute plan after plan; probabilities of each are written to disk, for memory would not hold them all."""
        with ExitStack() as on_failure, ExitStack() as always:
            folder = scratch or always.enter_context(scratch_folder())
            store = self._make_store(make, prepared.geometry, AxisTransform(), on_failure)
            parts = []
            for number, (ensemble, case) in enumerate(zip(self._ensembles, prepared.cases, strict=True)):
                part = ProbabilityFile(folder, self._labels.n_outputs, prepared.geometry, case.restoration.axes)
                always.callback(part.discard)
                of_all = partial(_report_part, progress, number, len(self._ensembles)) if progress else None
                self._sweep_and_restore(ensemble, case, part, scratch, of_all, prepared.previous_of(number))
                parts.append(part)
            label_ZYX = average(parts, self._labels, prepared.geometry.shape_ZYX, store, weights=self._plan_weights)
            on_failure.pop_all()
        return label_ZYX, store

    def _make_store(
        self, make: MakeStore | None, geometry: Geometry, axes: AxisTransform, on_failure: ExitStack
    ) -> ProbabilityStore | None:
        if make is None:
            return None
        store = make(self._labels.n_outputs, geometry, axes)
        on_failure.callback(store.discard)
        return store

    @torch.inference_mode()
    def _sweep_and_restore(
        self,
        ensemble: PlanEnsemble,
        case: PreparedCase,
        store: ProbabilityStore | None,
        scratch: Path | None,
        progress: ReportShare | None,
        previous: PreviousInput | None = None,
    ) -> NDArray[np.integer[Any]]:
        if ensemble.previous is not None:
            assert previous is not None  # for the type checker: ``prepare`` made it
            first_ZYX = self._sweep_and_restore(ensemble.previous, previous.case, None, scratch, None)
            # As in the predictions that the second stage was trained on.
            steps = build_steps(planned_postprocessing(ensemble.previous.plan), ensemble.plan.labels)
            first_ZYX = postprocess(first_ZYX, previous.case.restoration.geometry, ensemble.plan.labels, steps)
            case = add_previous_stage(case, first_ZYX, ensemble.plan, restoration=previous.restoration)
        restorer = Restorer(case.restoration, self._labels, probabilities=store, temperature=ensemble.temperature)
        slabs = sweep(
            ensemble.engines,
            case.image_CZYX,
            plan=ensemble.plan,
            window=self._window,
            mirror_axes=ensemble.mirror_axes,
            sums_bytes=sums_limit(
                self._window,
                plan=ensemble.plan,
                restoration=case.restoration,
                engines=ensemble.engines,
                device=self._device,
            ),
            scratch=scratch,
            progress=progress,
        )
        for slab_KZYX in slabs:
            restorer.add(slab_KZYX)
        return restorer.finish()


def _report_part(progress: ReportShare, number: int, n_parts: int, share: float) -> None:
    """Report the share of part ``number`` of ``n_parts`` equal ones as a share of all."""
    progress((number + share) / n_parts)


def translate_compute_error() -> AbstractContextManager[None]:
    """Raise memory that runs out inside as a InsufficientMemoryError about the prediction."""
    return translate_out_of_memory("the prediction of this case", remedy=_PREDICTION_TOO_LARGE)
