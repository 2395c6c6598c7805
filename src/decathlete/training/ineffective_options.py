"""Options of a training that were given and do nothing beside the others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from decathlete.training.config import TrainConfig

    Use = tuple[tuple[str, ...], Callable[[TrainConfig], bool], str]

VALIDATION = ("skip_first", "val_every", "val_overlap", "val_blend", "val_batch_size")
"""What only validations heed."""

USED_BY: tuple[Use, ...] = (
    (("factor",), lambda c: c.schedule in ("multistep", "plateau"), "the schedules multistep and plateau"),
    (("lr_patience",), lambda c: c.schedule == "plateau", "the schedule plateau"),
    (("restarts",), lambda c: c.schedule == "cosine", "the schedule cosine"),
    (("warmup",), lambda c: c.schedule != "none", "every schedule but none"),
    (("momentum",), lambda c: c.optimizer == "sgd", "the optimizer sgd"),
    (("steps_per_epoch", "val_every"), lambda c: not c.timed, "a training by epochs, not by max_time"),
    (VALIDATION, lambda c: c.val_cases > 0, "validations, and val_cases is 0"),
    (("wandb_mode",), lambda c: "wandb" in (c.loggers or ()), "the logger wandb"),
    (("mlflow_uri",), lambda c: "mlflow" in (c.loggers or ()), "the logger mlflow"),
)
"""Fields, whether a config uses them, and what they are for."""


def find_ineffective_options(
    config: TrainConfig,
    given: Collection[str],
    *,
    dims: int | None = None,
    fold: int | Literal["all"] | None = None,
) -> Iterator[str]:
    """Each of the ``given`` fields that changes nothing, with what it is for.

    Args:
        dims: of the model, where they are known.
        fold: that is to be trained, where it is known.
    """
    told: set[str] = set()
    held_out: Use = (
        ("val_cases", *VALIDATION),
        lambda _: fold != "all",
        "validations, and fold all holds no case out",
    )
    for names, used, purpose in (held_out, *USED_BY):
        if not used(config):
            idle = [name for name in names if name in given and name not in told]
            told.update(idle)
            yield from (f"{name} is for {purpose}: leave it out" for name in idle)
    if dims == 3 and "nvol" in given:
        yield "nvol is for 2D models, whose batches are slices: leave it out"
