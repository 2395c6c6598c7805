"""Which folds are meant: ``0-4``, ``0,2,4``, or ``0-``, every fold from the first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from decathlete.errors import OptionError

_PART = re.compile(r"(\d+)(-(\d*))?")
_REMEDY = "write 0-4, or 0,2,4, or 0- for every fold of the split"


@dataclass(frozen=True)
class Folds:
    """Chosen folds, before it is known how many there are.

    Attributes:
        parts: first and last fold of each range; a last of ``None`` is the split's last.
    """

    parts: tuple[tuple[int, int | None], ...]

    @classmethod
    def of(cls, wanted: str | Sequence[int] | None) -> Self:
        """From a user's text, from numbers, or every fold (``None``).

        Raises:
            OptionError: it names no folds.
        """
        if wanted is None:
            return cls(((0, None),))
        if isinstance(wanted, str):
            return cls(tuple(_range(part) for part in wanted.replace(" ", "").split(",")))
        if not wanted or min(wanted) < 0:
            raise OptionError(
                f"folds {list(wanted)} cannot be done",
                remedy="name folds from 0, or leave folds out",
                code="E-OPTION-FOLD",
            )
        return cls(tuple((fold, fold) for fold in wanted))

    def among(self, n_folds: int) -> tuple[int, ...]:
        """The chosen ones of a split into ``n_folds``, in order, each once.

        Raises:
            OptionError: some do not exist.
        """
        chosen: set[int] = set()
        for first, last in self.parts:
            chosen |= {first, *range(first, n_folds if last is None else last + 1)}
        if missing := sorted(fold for fold in chosen if fold >= n_folds):
            raise OptionError(
                f"fold {format_folds(missing)} does not exist: this dataset is split into {n_folds}",
                remedy=f"choose among 0-{n_folds - 1}, or split it again with --n-folds and --overwrite",
                code="E-OPTION-FOLD",
            )
        return tuple(sorted(chosen))


def _range(part: str) -> tuple[int, int | None]:
    if part == "all":
        raise OptionError(
            "--folds all could mean two things",
            remedy="--folds 0- does every fold of the split, --fold all trains one model on every case",
            code="E-OPTION-FOLD",
        )
    found = _PART.fullmatch(part)
    if found is None:
        raise OptionError(
            f"--folds: {part!r} is neither a fold nor a range of folds", remedy=_REMEDY, code="E-OPTION-FOLD"
        )
    first = int(found[1])
    last = first if found[2] is None else int(found[3]) if found[3] else None
    if last is not None and last < first:
        raise OptionError(f"--folds: the range {part} is empty", remedy=_REMEDY, code="E-OPTION-FOLD")
    return first, last


def format_folds(folds: Sequence[int]) -> str:
    """Folds in order, as a user writes them.

    >>> format_folds([0, 1, 2, 4])
    '0-2,4'
    """
    ranges: list[list[int]] = []
    for fold in folds:
        if ranges and fold == ranges[-1][1] + 1:
            ranges[-1][1] = fold
        else:
            ranges.append([fold, fold])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
