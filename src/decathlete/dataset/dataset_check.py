"""Check what concerns several cases: the manifest, deviating cases, and the folds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from decathlete.core.structure_codes import FIELD
from decathlete.dataset.case_measures import CaseMeasures
from decathlete.dataset.check_report import Problem
from decathlete.dataset.cohort import Deviation, find_deviations
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.dataset.split_cases import split_cases
from decathlete.dataset.split_options import SplitOptions
from decathlete.dataset.stratify import Presence
from decathlete.errors import DatasetError, ManifestError

MANIFEST = "dataset.json"


def check_manifest(spec: DatasetSpec) -> list[Problem]:
    """Compare the declared numbers of cases with the cases, and the structures that have codes with the labels."""
    n_listed = len(spec.cases) - len(spec.validation)
    counts = (
        ("numTraining", spec.n_declared[0], {len(spec.cases), n_listed}, len(spec.cases), "training cases"),
        ("numTest", spec.n_declared[1], {len(spec.test_cases)}, len(spec.test_cases), "test images"),
    )
    known = {one.name for one in spec.labels.classes} | {region.name for region in spec.labels.regions}
    uncoded = ", ".join(sorted(set(spec.structure_codes) - known))
    problems = []
    if uncoded:
        problems.append(
            _warning(
                "E-DATASET-MANIFEST",
                f"{FIELD} has codes for structures that are neither classes nor regions: {uncoded}",
                "use the names of labels and regions, unless --regions or --brats declares these",
                file=MANIFEST,
            )
        )
    problems.extend(
        _warning(
            "E-DATASET-MANIFEST",
            f"{field} is {declared}, but there are {n} {what}",
            "add the missing cases, or correct the number",
            file=MANIFEST,
        )
        for field, declared, expected, n, what in counts
        if declared is not None and declared not in expected
    )
    return problems


def check_names(spec: DatasetSpec) -> list[Problem]:
    """Find cases whose names differ only in upper and lower case: some disks store their files under one name."""
    problems = []
    for cases in (spec.cases, spec.test_cases):
        names_of: dict[str, list[str]] = {}
        for case in cases:
            names_of.setdefault(case.id.casefold(), []).append(case.id)
        problems += [
            _warning(
                "E-DATASET-NAMES",
                f"the names of these cases differ only in upper and lower case: {', '.join(names)}",
                "rename them; on disks that do not distinguish the two (most of Windows and macOS), one case "
                "overwrites the other",
                cases=names,
            )
            for names in names_of.values()
            if len(names) > 1
        ]
    return problems


def check_cohort(spec: DatasetSpec, measured: Sequence[tuple[Case, CaseMeasures]]) -> list[Problem]:
    """Compare the cases with each other, and return a problem for each property in which some deviate."""
    cases = {str(number): case for number, (case, _) in enumerate(measured)}
    measures = {str(number): found for number, (_, found) in enumerate(measured)}
    return [
        _deviation(spec, found, [cases[key] for key in found.keys], len(cases)) for found in find_deviations(measures)
    ]


def _deviation(spec: DatasetSpec, found: Deviation, cases: Sequence[Case], n_cases: int) -> Problem:
    names = [case.id if case.label is not None else f"{case.id} (test)" for case in cases]
    path = cases[0].images[0] if len(cases) == 1 else None  # several cases are named in the message
    training = any(case.label is not None for case in cases)
    listed = f"{len(cases)} of {n_cases} cases: " if path is None else ""
    return Problem(
        severity="error" if found.impossible and training else "warning",
        code="E-DATASET-COHORT",
        case_id=cases[0].id if path is not None else None,
        file=_relative(path, spec.root),
        cases=tuple(case.id for case in cases),
        message=f"{listed}{found.message}" + (f" ({', '.join(names)})" if path is None else ""),
        remedy=found.remedy,
    )


def check_folds(spec: DatasetSpec, split: SplitOptions, presence: Presence) -> tuple[list[Problem], tuple[str, ...]]:
    """Choose the folds as ``preprocess`` does, and return their problems and notes.

    Raises:
        OptionError: ``--splits`` contradicts ``--group-by``.
    """
    try:
        choice = split_cases(spec, split, presence)
    except DatasetError as problem:
        file = _relative(problem.where, spec.root) if isinstance(problem, ManifestError) else None
        return [
            Problem(
                severity="error",
                code=problem.code,
                file=file,
                message=problem.problem,
                remedy=problem.remedy or "add cases",
            )
        ], ()
    remedy = "add cases, or choose other folds (--splits, --n-folds, --split-seed)"
    if choice.splits.source is not None:
        remedy = f"correct {choice.splits.source}, if this is not intended"
    return [_warning("E-DATASET-FOLDS", warning, remedy) for warning in choice.warnings], choice.notes


def _relative(path: Path | str | None, root: Path) -> str | None:
    if path is None:
        return None
    return str(Path(path).relative_to(root) if Path(path).is_relative_to(root) else path)


def _warning(code: str, message: str, remedy: str, *, file: str | None = None, cases: Sequence[str] = ()) -> Problem:
    return Problem(severity="warning", code=code, file=file, cases=tuple(cases), message=message, remedy=remedy)
