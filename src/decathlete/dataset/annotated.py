"""Which classes were annotated in each case, where not all were: from the manifest or a CSV file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from decathlete.core.labels import LabelSet
from decathlete.dataset.csv_rows import read_rows
from decathlete.dataset.spec import DatasetSpec
from decathlete.errors import ManifestError, problems_found

AnnotatedClasses = Mapping[str, Sequence[str]]
"""Case id -> names of the foreground classes that were annotated in it; all others in cases without an entry."""


class AnnotatedFile(dict[str, tuple[str, ...]]):
    """The annotated classes that a CSV file or a manifest lists.

    Attributes:
        path: the file, for messages.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path


COLUMNS = ("case", "annotated")
_HELP = "write the columns case and annotated, the classes separated by semicolons: P1,liver;left kidney"


def read_annotated(path: Path) -> AnnotatedFile:
    """Read a CSV file with the columns ``case`` and ``annotated`` (classes separated by semicolons).

    Raises:
        ManifestError: the file cannot be read, has other columns or no rows, or a case has two rows; lists every
            problem.
    """
    header, rows = read_rows(path, COLUMNS, error=ManifestError, remedy=_HELP)
    if missing := [name for name in COLUMNS if name not in header]:
        found = f"it has {', '.join(header)}" if header else "it is empty"
        raise ManifestError(f"lacks the column(s) {', '.join(missing)}; {found}", where=path, remedy=_HELP)
    if not rows:
        raise ManifestError("lists no cases", where=path, remedy=_HELP)
    annotated = AnnotatedFile(path)
    problems = []
    for line, cells in rows:
        row = dict(zip(header, cells, strict=False))
        case_id = row.get("case", "")
        if not case_id or case_id in annotated:
            problems.append(f"line {line}: " + (f"case {case_id!r} occurs twice" if case_id else "has no case"))
        if len(cells) > len(header):
            problems.append(
                f'line {line}: {len(cells)} cells, but {len(header)} columns: write "liver;spleen" in quotation marks'
            )
        annotated[case_id] = tuple(
            stripped for name in row.get("annotated", "").split(";") if (stripped := name.strip())
        )
    if problems:
        raise problems_found(problems, where=path, remedy=_HELP, kind=ManifestError)
    return annotated


def annotation_problems(annotated: AnnotatedClasses, labels: LabelSet, case_ids: Sequence[str]) -> list[str]:
    """Return the problems of a list of annotated classes: unknown cases and classes, and cases without any."""
    names, known = {c.name for c in labels.foreground}, set(case_ids)
    problems = [f"annotated: there is no case {case_id!r}" for case_id in annotated if case_id not in known]
    for case_id, classes in annotated.items():
        if unknown := sorted(set(classes) - names):
            problems.append(f"annotated.{case_id}: classes that are not declared: {', '.join(unknown)}")
        if not classes:
            problems.append(f"annotated.{case_id} names no class: leave the case out of the dataset")
    return problems


def with_annotated(spec: DatasetSpec, annotated: AnnotatedClasses, *, where: Path) -> DatasetSpec:
    """Return a copy of a dataset whose cases have these annotated classes.

    Args:
        where: file that lists them, for messages.

    Raises:
        ManifestError: unknown cases or classes; lists every problem. Or there are more different sets of annotated
            classes than label maps can tell apart.
    """
    missing = unannotated_values(annotated, spec.labels, [case.id for case in spec.cases], where=where)
    sets = sorted(set(missing.values()))
    if len(sets) > (n_possible := spec.labels.max_unannotated):
        raise ManifestError(
            f"lists {len(sets)} different sets of annotated classes; with {spec.labels.n_classes} classes at most "
            f"{n_possible} are possible",
            where=where,
            remedy="annotate further classes in some cases, so that fewer sets differ, or declare fewer classes",
        )
    return replace(
        spec,
        labels=spec.labels.revised(unannotated=tuple(sets)),
        cases=tuple(replace(case, unannotated=missing.get(case.id, ())) for case in spec.cases),
    )


def unannotated_values(
    annotated: AnnotatedClasses, labels: LabelSet, case_ids: Sequence[str], *, where: Path
) -> dict[str, tuple[int, ...]]:
    """Return the values of the classes that were not annotated, for each case in ``annotated`` that lacks some.

    Args:
        case_ids: all cases that may be listed.
        where: file that lists them, for messages.

    Raises:
        ManifestError: unknown cases or classes; lists every problem.
    """
    if problems := annotation_problems(annotated, labels, case_ids):
        remedy = f"correct these; the dataset declares: {', '.join(c.name for c in labels.foreground)}"
        raise problems_found(problems, where=where, remedy=remedy, kind=ManifestError)
    missing = {
        case_id: tuple(c.value for c in labels.foreground if c.name not in classes)
        for case_id, classes in annotated.items()
    }
    return {case_id: values for case_id, values in missing.items() if values}


def annotated_of(spec: DatasetSpec) -> dict[str, tuple[str, ...]]:
    """Return the annotated classes of the cases that lack some, by case id."""
    return {
        case.id: tuple(c.name for c in spec.labels.foreground if c.value not in case.unannotated)
        for case in spec.cases
        if case.unannotated
    }
