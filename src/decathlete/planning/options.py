"""What a user says about the plan, on its way from the command line to the planner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from decathlete.core.choices import Block, Norm, Order, Orientation
from decathlete.errors import OptionError, problems_found

CHOICES: dict[str, Any] = {"orientation": Orientation, "order": Order, "block": Block, "norm": Norm}


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """How to plan and split a dataset.

    Attributes:
        memory_gb: GPU memory that training may fill, GB; patch and batch are sized for it.
        orientation: work in RAS order (``canonical``), or as the files store their arrays.
        order: of preprocessing's steps: ``nnunet`` normalises, then resamples; ``recipe`` the other way round.
        block: of the encoder.
        norm: normalisation layers.
        overrides: ``field=value`` assignments onto the plan, which have the last word.
        n_folds: of the split, 2 or more.
        split_seed: of the split.
        group_by: regular expression with one group that names a case's patient; the split keeps patients together.

    Raises:
        OptionError: with every problem together.
    """

    memory_gb: float = 8.0
    orientation: Orientation = "canonical"
    order: Order = "nnunet"
    block: Block = "plain"
    norm: Norm = "instance"
    overrides: tuple[str, ...] = ()
    n_folds: int = 5
    split_seed: int = 12345
    group_by: str | None = None

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise problems_found(problems, where="plan options", remedy="mend these options", kind=OptionError)

    def _problems(self) -> Iterator[str]:
        for name, choice in CHOICES.items():
            if (value := getattr(self, name)) not in get_args(choice):
                yield f"{name} is {value!r}; choose {' or '.join(get_args(choice))}"
        if not self.memory_gb > 0:
            yield f"a memory of {self.memory_gb:g} GB holds nothing; give --memory in GB, e.g. 8"
        if self.n_folds < 2:
            yield f"{self.n_folds} folds hold nothing out; take 2 or more"
        overrides: object = self.overrides
        if isinstance(overrides, str):  # which is a sequence, too: of letters
            yield f"overrides is a text; write ({overrides!r},)"
