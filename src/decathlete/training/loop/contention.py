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
TRIAL_RESERVE_S = 60.0
"""No trial begins with less of the training time left: a step of it may take half a minute."""
MOST_STEP_SHARE = 0.95
"""Another number of threads is kept if a step takes at most this share of the time."""

log = logging.getLogger(__name__)


class ThreadChoice:
    """Chooses the number of threads by the durations of steps.

    Args:
        n_threads: threads of a machine that does nothing else.

    Attributes:
        threads: the number to train with.
        is_trial: whether this number is only tried.
    """

    def __init__(self, n_threads: int) -> None:
        self.threads = n_threads
        self._n_threads = n_threads
        self._alternative = n_threads
        self._step_s = 0.0  # with the present number, when it was last compared
        self._tried_all = False  # the last trial with fewer threads than all was one of all
        self.is_trial = False
        self._pause_s = FIRST_PAUSE_S
        self._next_trial_s = 0.0

    def record_window(self, now_s: float, *, step_s: float, waiting: float, time_left_s: float = float("inf")) -> None:
        """Update ``threads`` after some steps.

        Args:
            now_s: time, seconds.
            step_s: median duration of these steps.
            waiting: share of the time (0..1) that each thread waited for a processor.
            time_left_s: of the training, seconds.
        """
        if self.is_trial:
            self._end_trial(now_s, step_s)
        elif (
            now_s >= self._next_trial_s
            and time_left_s >= TRIAL_RESERVE_S
            and (self.threads < self._n_threads or waiting > BUSY_SHARE)
        ):
            self._begin_trial(step_s, waiting)

    @property
    def usual_threads(self) -> int:
        """The number of threads outside a trial."""
        return self._alternative if self.is_trial else self.threads

    def abandon_trial(self) -> None:
        """Return to the number of threads from before a trial, if there is one."""
        self.threads, self.is_trial = self.usual_threads, False

    def _begin_trial(self, step_s: float, waiting: float) -> None:
        fewer = min(self.threads - 1, max(1, round(self.threads * (1 - waiting))))
        is_reduced = self.threads < self._n_threads
        # with fewer threads already, all and still fewer are tried in turn
        tries_fewer = not is_reduced or (self._tried_all and waiting > BUSY_SHARE and fewer > 0)
        self._step_s, self._alternative, self.is_trial = step_s, self.threads, True
        self._tried_all = not tries_fewer
        self.threads = fewer if tries_fewer else self._n_threads

    def _end_trial(self, now_s: float, step_s: float) -> None:
        self.is_trial = False
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
        self._n_threads = self._threads = torch.get_num_threads()
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
            if pl_module.finishing is not None:  # seconds are left: no time to try anything
                self._choice.abandon_trial()
            self._apply(pl_module)
            self._last_step_s, self._wait_at_mark_s = pl_module.clock.elapsed(), self._wait_s() or 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Pause the window; what happens between two epochs, such as a validation, is no part of a trial."""
        if self._is_active(trainer, pl_module):
            self._waited_s += self._wait_after_mark()
            self._set(self._choice.usual_threads)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Compare, at the end of a window."""
        if not self._is_active(trainer, pl_module) or pl_module.finishing is not None:
            return
        now_s = pl_module.clock.elapsed()
        step_s, self._last_step_s = now_s - self._last_step_s, now_s
        if self._is_first_step:
            self._is_first_step, self._wait_at_mark_s = False, self._wait_s() or 0.0
            return
        self._steps_s.append(step_s)
        seconds = sum(self._steps_s)
        if seconds >= SLOW_S or (seconds >= WINDOW_S and len(self._steps_s) >= WINDOW_STEPS):
            self._close_window(pl_module, now_s, seconds)

    def _close_window(self, pl_module: Any, now_s: float, seconds: float) -> None:
        waited_s = self._waited_s + self._wait_after_mark()
        tried, step_s = self._choice.threads if self._choice.is_trial else None, median(self._steps_s)
        self._choice.record_window(
            now_s,
            step_s=step_s,
            waiting=waited_s / seconds / self._choice.threads,
            time_left_s=pl_module.budget.deadline(pl_module.state) - now_s,
        )
        self._apply(pl_module)
        if self._choice.threads == tried:
            pl_module.state.step_s = step_s  # of the number that was kept
        self._steps_s, self._waited_s, self._wait_at_mark_s = [], 0.0, self._wait_s() or 0.0

    def _apply(self, pl_module: Any) -> None:
        """Train with the chosen number of threads; steps of a trial say nothing about those that follow."""
        pl_module.has_usual_steps = not self._choice.is_trial
        self._set(self._choice.threads)

    def _set(self, threads: int) -> None:
        if threads != self._threads:
            self._threads = threads
            self._set_threads(threads)

    def _wait_after_mark(self) -> float:
        return max(0.0, (self._wait_s() or 0.0) - self._wait_at_mark_s)

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """Restore the number of threads from before the training."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        """Restore the number of threads from before the training."""
        self._restore()

    def _restore(self) -> None:
        self._set(self._n_threads)
