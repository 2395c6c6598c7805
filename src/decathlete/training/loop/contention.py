"""Fewer threads while other programs use the processors.

The threads of a step wait for one another many times. If one of them has to share its processor, all of them wait, and
a step on all processors can take longer than on one. Which number of threads is faster is measured, again and again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from statistics import median
from typing import Any

import lightning.pytorch as pl
import torch

from decathlete.core.machine import thread_wait_s

WINDOW_S = 4.0
"""Seconds of training that are compared."""
WINDOW_STEPS = 3
"""Fewest steps in them, unless they take ``SLOW_S``."""
SLOW_S = 12.0
"""A window ends after this time, seconds, even with fewer steps."""
BUSY_SHARE = 0.15
"""Share of the time that a thread waits for a processor, above which fewer threads are tried."""
FIRST_PAUSE_S = 20.0
"""Pause after a trial that changed the number of threads."""
LONGEST_PAUSE_S = 300.0
"""Longest pause between two trials; it doubles while they confirm the present number."""
MOST_STEP_SHARE = 0.95
"""Another number of threads is kept if a step takes at most this share of the time."""

log = logging.getLogger(__name__)


class ThreadChoice:
    """Chooses the number of threads by the durations of steps.

    Args:
        n_threads: threads of a machine that does nothing else.
    """

    def __init__(self, n_threads: int) -> None:
        self.threads = n_threads
        self._n_threads = n_threads
        self._alternative = n_threads
        self._step_s = 0.0  # with the present number, when it was last compared
        self._trial = False
        self._pause_s = FIRST_PAUSE_S
        self._next_trial_s = 0.0

    def record_window(self, now_s: float, *, step_s: float, waiting: float) -> None:
        """Update ``threads`` after some steps.

        Args:
            now_s: time, seconds.
            step_s: median duration of these steps.
            waiting: share of the time (0..1) that each thread waited for a processor.
        """
        if self._trial:
            self._end_trial(now_s, step_s)
        elif now_s >= self._next_trial_s and (self.threads < self._n_threads or waiting > BUSY_SHARE):
            self._begin_trial(step_s, waiting)

    def _begin_trial(self, step_s: float, waiting: float) -> None:
        fewer = min(self._n_threads - 1, max(1, round(self._n_threads * (1 - waiting))))
        self._step_s, self._alternative, self._trial = step_s, self.threads, True
        self.threads = fewer if self.threads == self._n_threads else self._n_threads

    def _end_trial(self, now_s: float, step_s: float) -> None:
        self._trial = False
        if step_s <= MOST_STEP_SHARE * self._step_s:
            self._pause_s = FIRST_PAUSE_S
            log.info(
                "training with %d of %d threads: a step takes %.2g s instead of %.2g s%s",
                self.threads,
                self._n_threads,
                step_s,
                self._step_s,
                " while other programs use the processors" if self.threads < self._n_threads else "",
            )
        else:
            self.threads = self._alternative
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._next_trial_s = now_s + self._pause_s


class AdaptThreads(pl.Callback):  # type: ignore[misc]
    """Adapts the threads of a CPU training with a time limit; others must repeat bit for bit, with the same threads.

    Args:
        wait_s: returns the seconds that the threads of this process have waited for a processor; ``None``: unknown.
        set_threads: sets their number.
    """

    def __init__(
        self,
        wait_s: Callable[[], float | None] = thread_wait_s,
        set_threads: Callable[[int], None] = torch.set_num_threads,
    ) -> None:
        self._wait_s, self._set_threads = wait_s, set_threads
        self._n_threads = torch.get_num_threads()
        self._choice = ThreadChoice(self._n_threads)
        self._steps_s: list[float] = []  # durations of the window's steps
        self._last_step_s = 0.0  # when the last step ended
        self._is_first_step = True  # it prepares kernels: slower than all others
        # Waiting between epochs does not count: it is kept at the end of an epoch, and counted from a new mark.
        self._waited_s = self._wait_at_mark_s = 0.0

    def _is_active(self, trainer: pl.Trainer, pl_module: Any) -> bool:
        on_cpu = trainer.strategy.root_device.type == "cpu" and trainer.world_size == 1
        return on_cpu and self._n_threads > 1 and pl_module.task.config.timed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Continue the window: what happens between two epochs is no step."""
        if self._is_active(trainer, pl_module):
            self._last_step_s, self._wait_at_mark_s = pl_module.clock.elapsed(), self._wait_s() or 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Pause the window."""
        if self._is_active(trainer, pl_module):
            self._waited_s += self._wait_after_mark()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Compare, at the end of a window."""
        if not self._is_active(trainer, pl_module):
            return
        now_s = pl_module.clock.elapsed()
        step_s, self._last_step_s = now_s - self._last_step_s, now_s
        if self._is_first_step:
            self._is_first_step, self._wait_at_mark_s = False, self._wait_s() or 0.0
            return
        self._steps_s.append(step_s)
        seconds = sum(self._steps_s)
        if seconds >= SLOW_S or (seconds >= WINDOW_S and len(self._steps_s) >= WINDOW_STEPS):
            self._close_window(now_s, seconds)

    def _close_window(self, now_s: float, seconds: float) -> None:
        threads = self._choice.threads
        waited_s = self._waited_s + self._wait_after_mark()
        self._choice.record_window(now_s, step_s=median(self._steps_s), waiting=waited_s / seconds / threads)
        if self._choice.threads != threads:
            self._set_threads(self._choice.threads)
        self._steps_s, self._waited_s, self._wait_at_mark_s = [], 0.0, self._wait_s() or 0.0

    def _wait_after_mark(self) -> float:
        return max(0.0, (self._wait_s() or 0.0) - self._wait_at_mark_s)

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """Restore the number of threads from before the training."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        """Restore the number of threads from before the training."""
        self._restore()

    def _restore(self) -> None:
        if self._choice.threads != self._n_threads:
            self._set_threads(self._n_threads)
