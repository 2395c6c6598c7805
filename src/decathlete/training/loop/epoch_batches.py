"""The batches of one epoch, whose length is known only when it is over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from decathlete.augmentation.batch import RawBatch
from decathlete.training.loop.batches import UNENDING, make_loader

if TYPE_CHECKING:
    from decathlete.training.loop.module import SegmentationModule


class EpochBatches:
    """The open epoch's batches: each ``iter`` continues where the last stopped, until the epoch is over.

    It declares an unending length, for without one Lightning would fetch a batch ahead and lose it at the end.
    """

    def __init__(self, module: SegmentationModule) -> None:
        self._module = module
        self._batches: Iterator[RawBatch] | None = None
        self._coarse = False  # grid of these batches

    def __len__(self) -> int:
        return UNENDING

    def __iter__(self) -> Iterator[RawBatch]:
        module = self._module
        module.choose_grid()
        if self._coarse != module.state.coarse:
            self._batches, self._coarse = None, module.state.coarse
        while not self._paused():
            if self._batches is None:
                self._batches = iter(self._make_batches())
                batch = next(self._batches)
                module.restart_step_time()
                yield batch
            else:
                yield next(self._batches)
        if self._ended():
            self._batches = None  # no more are wanted: ends the readers

    def _make_batches(self) -> Iterable[RawBatch]:
        module = self._module
        store = module.task.store_of(coarse=self._coarse)
        return make_loader(replace(module.task, store=store), module.device, first_step=module.state.step)

    def _paused(self) -> bool:
        module = self._module
        return self._ended() or (module.finishing is None and module.budget.epoch_over(module.state))

    def _ended(self) -> bool:
        module, state = self._module, self._module.state
        if module.finishing is not None:
            return module.finishing.finished(state)
        return bool(state.stopped_by) or module.budget.finished(state)
