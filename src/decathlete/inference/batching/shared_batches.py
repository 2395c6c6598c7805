"""Batches of windows from several cases.

All windows of one plan have the same shape, whatever case they are cut from. Each case has its own sums, to which its
logits are added in the order of its windows, so it gets the result that it would get alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from decathlete.core.parallel import Outcome, attempt
from decathlete.inference.compute import translate_compute_error
from decathlete.inference.output.probabilities import MakeStore, ProbabilityStore
from decathlete.inference.output.restore import Restorer
from decathlete.inference.predict import Predictor
from decathlete.inference.prediction import Prediction, PreparedInput
from decathlete.inference.windows.flips import mean_over_flips
from decathlete.inference.windows.sweep import VolumeSweep

Payload = TypeVar("Payload")


@dataclass(frozen=True, kw_only=True)
class CaseRequest(Generic[Payload]):
    """An image to predict.

    Attributes:
        prepared: the image.
        payload: data of the caller, returned beside the prediction.
        probabilities: makes the store that receives them; ``None``: they are not stored.
        scratch: folder for sums that are spilled to disk; ``None``: the system's temporary folder.
    """

    prepared: PreparedInput
    payload: Payload
    probabilities: MakeStore | None = None
    scratch: Path | None = None


CaseResult = tuple[Payload, Prediction]


class SharedBatches(Generic[Payload]):
    """Open cases, and their windows that wait until they fill a batch.

    Fewer windows than a batch wait at any time, so there are at most as many open cases as a batch has windows.

    Args:
        predictor: of models of one plan.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._ensemble = predictor.ensembles[0]
        self._cases: list[_OpenCase[Payload]] = []
        self._waiting: list[_Window] = []

    @property
    def held_bytes(self) -> int:
        """Memory of all open cases."""
        return sum(case.held_bytes for case in self._cases)

    def add(
        self, case_id: str, request: CaseRequest[Payload], *, held_bytes: int
    ) -> list[Outcome[CaseResult[Payload]]]:
        """Add a case, compute every batch that is full, and return the cases that this finished."""
        case = _OpenCase(case_id=case_id, request=request, held_bytes=held_bytes)
        self._cases.append(case)
        case.attempt(partial(self._open, case))
        volume = case.volume
        if volume is not None:
            for image in volume.sweep.windows():
                self._waiting.append(_Window(case=case, volume=volume, image=image))
                if len(self._waiting) == self._predictor.batch_size(self._ensemble):
                    self._compute()
        return self._pop_finished()

    def finish(self) -> list[Outcome[CaseResult[Payload]]]:
        """Compute the windows that wait, and return all open cases."""
        self._compute()
        return self._pop_finished()

    def discard(self) -> None:
        """Drop all open cases, and the probabilities that were stored of them."""
        for case in self._cases:
            case.fail("cancelled")

    def _open(self, case: _OpenCase[Payload]) -> None:
        prepared, labels = case.request.prepared, self._predictor.labels
        (image,) = prepared.cases
        if case.request.probabilities is not None:
            case.store = case.request.probabilities(labels.n_outputs, prepared.geometry, image.restoration.axes)
        sweep = VolumeSweep(
            image.image_CZYX,
            plan=self._ensemble.plan,
            device=self._predictor.device,
            window=self._predictor.window,
        )
        restorer = Restorer(image.restoration, labels, probabilities=case.store, temperature=self._ensemble.temperature)
        case.volume = _Volume(sweep=sweep, restorer=restorer)

    def _compute(self) -> None:
        """Compute the windows that wait; each accounts for the same share of the time."""
        windows, self._waiting = [window for window in self._waiting if window.case.error is None], []
        began = time.perf_counter()
        self._compute_windows(windows)
        for window in windows:
            window.case.seconds += (time.perf_counter() - began) / len(windows)

    @torch.inference_mode()
    def _compute_windows(self, windows: Sequence[_Window]) -> None:
        """Compute all in one batch; if that fails, those of each case by themselves, so that others are not lost."""
        if not windows:
            return
        outcome = attempt("", self._logits, windows)
        groups = [list(group) for _, group in groupby(windows, key=lambda window: window.case.case_id)]
        if outcome.value is not None:
            for window, logits in zip(windows, outcome.value, strict=True):
                window.case.attempt(partial(window.volume.add, logits))
        elif len(groups) == 1:
            windows[0].case.fail(outcome.error)
        else:
            for group in groups:
                self._compute_windows(group)

    def _logits(self, windows: Sequence[_Window]) -> Tensor:
        batch = torch.stack([window.image for window in windows])
        with translate_compute_error():
            return mean_over_flips(
                self._ensemble.engines,
                batch,
                self._predictor.flip_axes(self._ensemble),
                side_swap=self._ensemble.plan.side_swap,
            )

    def _pop_finished(self) -> list[Outcome[CaseResult[Payload]]]:
        done = [case for case in self._cases if case.done]
        self._cases = [case for case in self._cases if not case.done]
        return [self._outcome(case) for case in done]

    def _outcome(self, case: _OpenCase[Payload]) -> Outcome[CaseResult[Payload]]:
        results: list[CaseResult[Payload]] = []
        case.attempt(lambda: results.append(self._result(case)))
        return Outcome(case_id=case.case_id, value=results[0] if results else None, error=case.error)

    def _result(self, case: _OpenCase[Payload]) -> CaseResult[Payload]:
        assert case.volume is not None  # for the type checker: it has not failed
        label_ZYX = case.volume.restorer.finish()
        prediction = self._predictor.describe(case.request.prepared, label_ZYX, case.store, seconds=case.seconds)
        return case.request.payload, prediction


@dataclass(kw_only=True)
class _OpenCase(Generic[Payload]):
    case_id: str
    request: CaseRequest[Payload]
    held_bytes: int
    volume: _Volume | None = None
    store: ProbabilityStore | None = None
    seconds: float = 0.0
    error: str | None = None

    @property
    def done(self) -> bool:
        return self.volume is None or self.volume.sweep.finished

    def attempt(self, step: Callable[[], None]) -> None:
        """Run a step, unless an earlier one failed."""
        if self.error is None:
            outcome = attempt(self.case_id, _run_translated, step)
            if outcome.error is not None:
                self.fail(outcome.error)

    def fail(self, error: str | None) -> None:
        self.error = error
        self.volume = None
        if self.store is not None:
            self.store.discard()
            self.store = None


def _run_translated(step: Callable[[], None]) -> None:
    with translate_compute_error():
        step()


@dataclass(frozen=True, kw_only=True)
class _Volume:
    """The sums of a small case, in memory, and its restoration."""

    sweep: VolumeSweep
    restorer: Restorer

    def add(self, logits: Tensor) -> None:
        for slab_KZYX in self.sweep.add(logits):
            self.restorer.add(slab_KZYX)


@dataclass(frozen=True, kw_only=True)
class _Window:
    case: _OpenCase[Any]
    volume: _Volume
    image: Tensor
