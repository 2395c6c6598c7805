"""Which structures of DICOM labels are used: classes that have none in some cases, and structures of no class."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from decathlete.dataset.check_report import Problem
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.errors import ImageError, printable
from decathlete.io.dicom_label import StructureMatch, match_structures

_LISTED = 5
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StructureUse:
    """How the structures of all label objects fit the classes.

    Attributes:
        missing: one problem for each class that has no structure in some cases.
        unused: names of the structures that no class uses, and the number of cases that have them; an empty text if
            there are none.
    """

    missing: tuple[Problem, ...] = ()
    unused: str = ""

    def log(self) -> None:
        """Log both, as warnings and as information."""
        for problem in self.missing:
            _log.warning("%s: %s", problem.message, problem.remedy)
        if self.unused:
            _log.info("%s", self.unused)


def match_all_structures(spec: DatasetSpec) -> StructureUse:
    """Compare the names of the structures in all label objects with the classes; only headers are read.

    Objects that cannot be read are left out: they are a problem of their case.
    """
    labelled = [case for case in spec.cases if case.structures is not None]
    without: dict[int, list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
    unused: Counter[str] = Counter()
    for case in labelled:
        try:
            match = _match(case)
        except ImageError:
            continue
        for value in match.missing:
            without[value].append((case.id, match.unused))
        unused.update(set(match.unused))
    return StructureUse(
        missing=tuple(
            _missing_class(c.name, without[c.value], len(labelled))
            for c in spec.labels.foreground
            if c.value in without
        ),
        unused=f"structures that no class uses: {_some(f'{n} ({k} cases)' for n, k in unused.most_common())}"
        if unused
        else "",
    )


def _match(case: Case) -> StructureMatch:
    assert case.label is not None  # for the type checker: labelled cases were chosen
    assert case.structures is not None
    return match_structures(case.label, case.structures)


def _missing_class(name: str, cases: list[tuple[str, tuple[str, ...]]], n_cases: int) -> Problem:
    listed = _some(f"{case_id} (without a class: {_some(names)})" if names else case_id for case_id, names in cases)
    return Problem(
        severity="warning",
        code="E-DATASET-CONTOURS",
        cases=tuple(case_id for case_id, _ in cases),
        message=f"class {name!r} has no structure in {len(cases)} of {n_cases} cases: {listed}",
        remedy="check the names of their structures (--structures, or dicom_structures in dataset.json), unless these "
        "cases do not contain the class",
    )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return printable(", ".join(listed[:_LISTED]) + more)
