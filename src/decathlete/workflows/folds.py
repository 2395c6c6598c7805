"""Parse a selection of folds: ``0-4``, ``0,2,4``, or ``0-`` for all folds from the first."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from decathlete.dataset.given_splits import count_cases, name_some
from decathlete.dataset.splits import Splits
from decathlete.errors import OptionError

_PART = re.compile(r"([0-9]{1,4})(-([0-9]{0,4}))?")
_REMEDY = "write 0-4, or 0,2,4, or 0- for every fold of the split"


@dataclass(frozen=True, kw_only=True)
class FoldSelection:
    """A selection of folds, before the number of folds is known.

    Attributes:
        parts: first and last fold of each range; ``None`` stands for the last fold of the split.
    """

    parts: tuple[tuple[int, int | None], ...]

    @classmethod
    def parse(cls, folds: str | Sequence[int] | None) -> Self:
        """Make a selection from text or numbers; ``None`` selects all folds.

        Raises:
            OptionError: the text or the numbers are not folds.
        """
        if folds is None:
            return cls(parts=((0, None),))
        if isinstance(folds, str):
            return cls(parts=tuple(_parse_range(part) for part in folds.replace(" ", "").split(",")))
        if not folds or min(folds) < 0:
            raise OptionError(
                f"folds {list(folds)} do not exist",
                remedy="name folds from 0, or leave folds out",
                code="E-OPTION-FOLD",
            )
        return cls(parts=tuple((fold, fold) for fold in folds))

    @property
    def named(self) -> tuple[int, ...]:
        """The numbers in the selection: the ends of its ranges."""
        return tuple(fold for part in self.parts for fold in part if fold is not None)

    def resolve(self, n_folds: int) -> tuple[int, ...]:
        """Return the selected folds of a split into ``n_folds``, in ascending order, each once.

        Raises:
            OptionError: some folds do not exist.
        """
        selected: set[int] = set()
        for first, last in self.parts:
            selected |= {first, *range(first, n_folds if last is None else last + 1)}
        if missing := sorted(fold for fold in selected if fold >= n_folds):
            raise OptionError(
                f"fold {format_folds(missing)} does not exist: this dataset is split into {n_folds}",
                remedy=f"choose folds 0-{n_folds - 1}, or split the dataset again with --n-folds and --overwrite",
                code="E-OPTION-FOLD",
            )
        return tuple(sorted(selected))


def require_held_out_cases(splits: Splits, folds: Sequence[int]) -> None:
    """Check that the folds hold out a case, and none twice, so that there will be scores of all of them together.

    Raises:
        OptionError: given folds that hold out none, or some cases twice.
    """
    times = Counter(case_id for fold in folds for case_id in splits.folds[fold].val)
    if twice := sorted(case_id for case_id, n in times.items() if n > 1):
        raise OptionError(
            f"folds {format_folds(folds)} hold out {count_cases(twice)} more than once ({splits.source}), so that "
            f"their scores cannot be combined: {name_some(twice)}",
            remedy="name folds that hold out different cases, or train each fold alone (--fold)",
            code="E-OPTION-FOLD",
        )
    if not any(splits.folds[fold].val for fold in folds):
        raise OptionError(
            f"fold {format_folds(folds)} holds out no case ({splits.source}), so that there would be no scores",
            remedy="name a fold that holds out cases, or train one model without scores (--fold)",
            code="E-OPTION-FOLD",
        )


def _parse_range(part: str) -> tuple[int, int | None]:
    if part == "all":
        raise OptionError(
            "--folds all is ambiguous",
            remedy="use --folds 0- for every fold of the split, or --fold all for one model trained on every case",
            code="E-OPTION-FOLD",
        )
    match = _PART.fullmatch(part)
    if match is None:
        raise OptionError(
            f"--folds: {part!r} is neither a fold nor a range of folds", remedy=_REMEDY, code="E-OPTION-FOLD"
        )
    first = int(match[1])
    last = first if match[2] is None else int(match[3]) if match[3] else None
    if last is not None and last < first:
        raise OptionError(f"--folds: the range {part} is empty", remedy=_REMEDY, code="E-OPTION-FOLD")
    return first, last


def format_folds(folds: Sequence[int]) -> str:
    """Format ascending folds as text.

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
