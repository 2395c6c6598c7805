"""Check a dataset: list every problem with its file and its remedy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from decathlete.core.estimates import check_bytes
from decathlete.core.limits import limit_workers
from decathlete.core.parallel import Workers, map_cases
from decathlete.core.progress import CaseProgress
from decathlete.dataset.case_check import CaseFindings, check_case, failed_check
from decathlete.dataset.check_report import CheckReport, Problem
from decathlete.dataset.dataset_check import check_cohort, check_folds, check_manifest, check_names
from decathlete.dataset.duplicates import find_duplicates
from decathlete.dataset.label_structures import match_all_structures
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.dataset.split_options import SplitOptions
from decathlete.dataset.unused_files import unused_files
from decathlete.io.folder_tree import name_some
from decathlete.io.largest_images import sizes_of_largest


def check_dataset(
    spec: DatasetSpec,
    *,
    split: SplitOptions | None = None,
    workers: Workers = 2,
    progress: CaseProgress | None = None,
) -> CheckReport:
    """Read every file of a dataset once and list all problems; nothing is changed.

    Args:
        split: options of the folds that are checked, too; ``None``: folds are not checked.
    """
    cases = {f"train {c.id}": c for c in spec.cases} | {f"test {c.id}": c for c in spec.test_cases}
    findings: dict[str, CaseFindings] = {}
    declared = replace(spec, cases=(), test_cases=())  # all that one case is compared with
    workers = _limit_workers(workers, spec, cases)
    for outcome in map_cases(partial(check_case, declared), cases, workers=workers):
        case_id = cases[outcome.case_id].id
        findings[outcome.case_id] = outcome.value or failed_check(cases[outcome.case_id], outcome.cause)
        if progress:
            progress(len(findings), len(cases), case_id)
    ordered = [findings[key] for key in cases]
    problems = [p for f in ordered for p in f.problems]
    problems += find_duplicates(spec.channels, {key: f.digests for key, f in zip(cases, ordered, strict=True)})
    problems += _absent_classes(spec, ordered)
    problems += check_manifest(spec) + check_names(spec)
    structures = match_all_structures(spec)
    problems += structures.missing
    measured = zip(cases.items(), ordered, strict=True)
    problems += check_cohort(spec, [(case, f.measures) for (_, case), f in measured if f.measures is not None])
    notes: tuple[str, ...] = spec.unused + _note_grey(spec, sum(f.is_grey_rgb for f in ordered), len(ordered))
    notes += (structures.unused,) if structures.unused else ()
    if split is not None:
        fold_problems, fold_notes = check_folds(spec, split, _presence(spec, findings))
        problems, notes = problems + fold_problems, notes + fold_notes
    problems += _unused_files(spec)
    return CheckReport(
        dataset=spec.name,
        root=str(spec.root),
        n_cases=len(spec.cases),
        n_test_cases=len(spec.test_cases),
        problems=tuple(problems),
        notes=notes,
    )


def _limit_workers(workers: Workers, spec: DatasetSpec, cases: Mapping[str, Case]) -> Workers:
    """Lower ``workers`` to the number of cases that fit into memory; an executor is returned as it is."""
    if not isinstance(workers, int):
        return workers
    images = {key: case.images for key, case in cases.items()}
    sizes = sizes_of_largest(images, workers, spacing=spec.spacing, formats=spec.formats)
    return limit_workers(workers, {cases[key].id: check_bytes(size) for key, size in sizes.items()}, doing="check")


def _note_grey(spec: DatasetSpec, n_grey: int, n_cases: int) -> tuple[str, ...]:
    """Say how many images are grey and saved as RGB, and how they are read."""
    if not n_grey:
        return ()
    read = "one channel" if len(spec.channels) == 1 else "three equal channels"
    advice = "; declare one channel instead of three" if n_grey == n_cases and len(spec.channels) == 3 else ""
    return (f"{n_grey} of {n_cases} images are grey and saved as RGB; they are read as {read}{advice}",)


def _presence(spec: DatasetSpec, findings: Mapping[str, CaseFindings]) -> dict[str, frozenset[str]]:
    """Return the names of the foreground classes in each training case."""
    return {
        case.id: frozenset(c.name for c in spec.labels.foreground if c.value in findings[f"train {case.id}"].classes)
        for case in spec.cases
    }


def _unused_files(spec: DatasetSpec) -> list[Problem]:
    paths_of: dict[str, list[Path]] = defaultdict(list)
    for path, reason in unused_files(spec).items():
        paths_of[reason].append(path)
    return [
        Problem(
            severity="warning",
            code="E-DATASET-UNUSED",
            message=f"not used: {name_some(spec.root, paths)} ({reason})",
            remedy="list these files in dataset.json or move them to the right folder, or remove them",
        )
        for reason, paths in paths_of.items()
    ]


def _absent_classes(spec: DatasetSpec, findings: list[CaseFindings]) -> list[Problem]:
    present = {value for f in findings for value in f.classes}
    if not present:  # no label map could be read, which is a problem of its own
        return []
    return [
        Problem(
            severity="warning",
            code="E-DATASET-LABELS",
            message=f"class {c.name!r} (value {c.value}) is declared and occurs in no label map",
            remedy="remove it from dataset.json, or correct the label maps",
        )
        for c in spec.labels.foreground
        if c.value not in present
    ]
