"""``--set FIELD=VALUE``: which assignments change the plan, and which the training."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from decathlete.core.assignments import parse_value
from decathlete.errors import OptionError
from decathlete.planning.overrides import READ_ONLY_FIELDS
from decathlete.planning.plan import Plan
from decathlete.training.config import TrainConfig
from decathlete.training.short_forms import SHORT_FORMS

TRAIN = "train."
"""Before a name that both the plan and the training have: ``train.batch_size``."""


@dataclass(frozen=True, kw_only=True)
class Assignments:
    """Assignments by what they change.

    Attributes:
        plan: ``field=value``, in order.
        train: dotted name of a field of ``TrainConfig`` (or a short form) -> value.
    """

    plan: tuple[str, ...] = ()
    train: dict[str, Any] = field(default_factory=dict)


def split_assignments(assignments: Iterable[str]) -> Assignments:
    """Sort assignments; a name that both have is the plan's, unless ``train.`` stands before it.

    >>> split_assignments(["patch_size=40,56,40", "loss.gamma=1.5", "train.batch_size=4"]).train
    {'loss.gamma': 1.5, 'batch_size': 4}

    Raises:
        OptionError: a name that neither has.
    """
    plan: list[str] = []
    train: dict[str, Any] = {}
    for text in assignments:
        name, separator, value = text.partition("=")
        name = name.strip().replace("-", "_")
        head = name.removeprefix(TRAIN).partition(".")[0]
        is_train = name.startswith(TRAIN) or head not in (*Plan.model_fields, *READ_ONLY_FIELDS)
        if not is_train or not separator or not value.strip():
            plan.append(text)  # what is malformed is reported there
        elif head in TrainConfig.model_fields or head in SHORT_FORMS:
            train[name.removeprefix(TRAIN)] = parse_value(value.strip())
        else:
            raise _unknown(text, head)
    return Assignments(plan=tuple(plan), train=train)


def _unknown(text: str, head: str) -> OptionError:
    names = [n for n in (*Plan.model_fields, *TrainConfig.model_fields, *SHORT_FORMS) if n not in READ_ONLY_FIELDS]
    close = difflib.get_close_matches(head, names, n=1)
    return OptionError(
        f"--set {text}: there is no field {head}",
        remedy=f"did you mean {close[0]}?" if close else f"choose one of: {', '.join(sorted(set(names)))}",
    )
