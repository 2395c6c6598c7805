"""Options of a training that were given and have no effect beside the others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Literal

from decathlete.loading.samplers import SAMPLERS

if TYPE_CHECKING:
    from decathlete.training.config import TrainConfig

    Use = tuple[tuple[str, ...], Callable[[TrainConfig], bool], str]

VALIDATION = ("skip_first", "val_every", "val_overlap", "val_blend", "val_batch_size")
"""Options that only validations use."""

USED_BY: tuple[Use, ...] = (
    (("steps_per_epoch", "val_every"), lambda c: not c.timed, "a training by epochs, not by max_time"),
    (VALIDATION, lambda c: c.validation.cases > 0, "validations, and val_cases is 0"),
)
"""Options, whether a config uses them, and what they are for. Settings of components are checked by the components."""


def find_ineffective_options(
    config: TrainConfig,
    given: Collection[str],
    *,
    dims: int | None = None,
    fold: int | Literal["all"] | None = None,
) -> Iterator[str]:
    """Yield a message for each of the ``given`` options that changes nothing.

    Args:
        dims: spatial axes of the model, where they are known.
        fold: the held-out fold, if it is known.
    """
    reported: set[str] = set()
    held_out: Use = (
        ("val_cases", *VALIDATION),
        lambda _: fold != "all",
        "validations, and fold all has none",
    )
    for names, is_used, purpose in (held_out, *USED_BY):
        if not is_used(config):
            idle = [name for name in names if name in given and name not in reported]
            reported.update(idle)
            yield from (f"{name} is for {purpose}: leave it out" for name in idle)
    if dims is not None:
        sampler = SAMPLERS.resolve(config.sampler.component).cls
        for problem in sampler.problems(config.sampler, dims=dims, global_batch=None):
            yield f"{problem}: leave it out"
