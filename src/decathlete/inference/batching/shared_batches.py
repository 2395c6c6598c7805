"""Batches that are filled with windows of several cases.

Windows of one plan are all alike, whatever case they are cut from. Each case has sums of its own and takes its logits
in the order of its windows, so it finds what it would find alone; it is finished with its last window.
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
from decathlete.inference.output.probabilities import MakeStore, ProbabilityStore
from decathlete.inference.output.restore import Restorer
from decathlete.inference.predict import Prediction, Predictor, PreparedInput, translate_compute_error
from decathlete.inference.windows.flips import mean_over_all
from decathlete.inference.windows.sweep import VolumeSweep

Payload = TypeVar("Payload")


@dataclass(frozen=True, kw_only=True)
class CaseRequest(Generic[Payload]):
    """An image to be predicted.

    Attributes:
        about: whatever is to be handed on with the prediction; the image itself is not.
        probabilities: makes what takes them; ``None``: they are not asked for.
        scratch: folder for what waits on disk while memory is short; ``None``: the system's for temporary files.
    """

    ready: PreparedInput
    about: Payload
    probabilities: MakeStore | None = None
    scratch: Path | None = None


CaseResult = tuple[Payload, Prediction]


class SharedBatches(Generic[Payload]):
    """Cases under way, and their windows that wait until they fill a batch.

    Fewer windows than a batch wait at any time, so no more cases than windows of a batch are under way.

    Args:
        predictor: of models of one plan.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._ensemble = predictor.ensembles[0]
        self._cases: list[_CaseUnderWay[Payload]] = []
        self._waiting: list[_Window] = []

    @property
    def held_bytes(self) -> int:
        """What the cases under way hold between them."""
        return sum(case.held_bytes for case in self._cases)

    def add(self, case_id: str, asked: CaseRequest[Payload], *, held_bytes: int) -> list[Outcome[CaseResult[Payload]]]:
        """Take in a case, and compute what fills a batch; the cases that are finished by it."""
        ours = _CaseUnderWay(case_id=case_id, asked=asked, held_bytes=held_bytes)
        self._cases.append(ours)
        ours.attempt(partial(self._open, ours))
        volume = ours.volume
        if volume is not None:
            for image in volume.sweep.windows():
                self._waiting.append(_Window(case=ours, volume=volume, image=image))
                if len(self._waiting) == self._predictor.batch_of(self._ensemble):
                    self._compute()
        return self._finished()

    def finish(self) -> list[Outcome[CaseResult[Payload]]]:
        """Compute what still waits; all cases that were under way."""
        self._compute()
        return self._finished()

    def discard(self) -> None:
        """Forget all cases, and what was stored of them."""
        for case in self._cases:
            case.fail("cancelled")

    def _open(self, ours: _CaseUnderWay[Payload]) -> None:
        (prepared,) = ours.asked.ready.cases
        labels = self._predictor.labels
        if ours.asked.probabilities is not None:
            ours.store = ours.asked.probabilities(
                labels.n_outputs, ours.asked.ready.geometry, prepared.restoration.axes
            )
        settings = self._predictor.settings
        sweep = VolumeSweep(
            prepared.image_CZYX,
            plan=self._ensemble.plan,
            device=self._predictor.device,
            overlap=settings.overlap,
            blend=settings.blend,
        )
        restorer = Restorer(
            prepared.restoration, labels, probabilities=ours.store, temperature=self._ensemble.temperature
        )
        ours.volume = _Volume(sweep=sweep, restorer=restorer)

    def _compute(self) -> None:
        """The windows that wait; the time is shared out among them."""
        windows, self._waiting = [window for window in self._waiting if window.case.error is None], []
        began = time.perf_counter()
        self._compute_together(windows)
        for window in windows:
            window.case.seconds += (time.perf_counter() - began) / len(windows)

    @torch.inference_mode()
    def _compute_together(self, windows: Sequence[_Window]) -> None:
        """Where that fails, each case's alone: so that it fails only for those for which it must."""
        if not windows:
            return
        found = attempt("", self._logits, windows)
        groups = [list(group) for _, group in groupby(windows, key=lambda window: window.case.case_id)]
        if found.value is not None:
            for window, logits in zip(windows, found.value, strict=True):
                window.case.attempt(partial(window.volume.add, logits))
        elif len(groups) == 1:
            windows[0].case.fail(found.error)
        else:
            for group in groups:
                self._compute_together(group)

    def _logits(self, windows: Sequence[_Window]) -> Tensor:
        batch = torch.stack([window.image for window in windows])
        with translate_compute_error():
            return mean_over_all(self._ensemble.engines, batch, self._predictor.flips(self._ensemble))

    def _finished(self) -> list[Outcome[CaseResult[Payload]]]:
        done = [case for case in self._cases if case.done]
        self._cases = [case for case in self._cases if not case.done]
        return [self._outcome(case) for case in done]

    def _outcome(self, ours: _CaseUnderWay[Payload]) -> Outcome[CaseResult[Payload]]:
        found: list[CaseResult[Payload]] = []
        ours.attempt(lambda: found.append(self._answer(ours)))
        return Outcome(case_id=ours.case_id, value=found[0] if found else None, error=ours.error)

    def _answer(self, ours: _CaseUnderWay[Payload]) -> CaseResult[Payload]:
        assert ours.volume is not None  # for the type checker: it has not failed
        label_ZYX = ours.volume.restorer.finish()
        ready = ours.asked.ready
        return ours.asked.about, self._predictor.prediction(ready, label_ZYX, ours.store, seconds=ours.seconds)


@dataclass(kw_only=True)
class _CaseUnderWay(Generic[Payload]):
    case_id: str
    asked: CaseRequest[Payload]
    held_bytes: int
    volume: _Volume | None = None
    store: ProbabilityStore | None = None
    seconds: float = 0.0
    error: str | None = None

    @property
    def done(self) -> bool:
        return self.volume is None or self.volume.sweep.finished

    def attempt(self, step: Callable[[], None]) -> None:
        """Do a step, unless an earlier one has failed."""
        if self.error is None:
            outcome = attempt(self.case_id, _named, step)
            if outcome.error is not None:
                self.fail(outcome.error)

    def fail(self, error: str | None) -> None:
        self.error = error
        self.volume = None
        if self.store is not None:
            self.store.discard()
            self.store = None


def _named(step: Callable[[], None]) -> None:
    with translate_compute_error():
        step()


@dataclass(frozen=True, kw_only=True)
class _Volume:
    """The sums of a case and its way back. They stay in memory: small cases alone are here."""

    sweep: VolumeSweep
    restorer: Restorer

    def add(self, logits: Tensor) -> None:
        for slab_KZYX in self.sweep.add(logits):
            self.restorer.add(slab_KZYX)


@dataclass(frozen=True, kw_only=True)
class _Window:
    case: _CaseUnderWay[Any]
    volume: _Volume
    image: Tensor
