"""Folds that the user gave: ``--splits FILE``, ``splits_final.json`` beside ``dataset.json``, or in the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from decathlete.core.documents import read_json
from decathlete.core.schema import describe
from decathlete.dataset.find_dataset import FOLDS
from decathlete.dataset.groups import all_groups
from decathlete.dataset.spec import DatasetSpec
from decathlete.dataset.splits import Fold, Splits
from decathlete.errors import ManifestError, problems_found
from decathlete.io.image_files import strip_suffix

FOLD_NUMBERS = "'fold' in dataset.json"

VALIDATION = "'validation' in dataset.json"

_FORM = 'a list of folds, each with the case names "train" and "val": [{"train": ["a", "b"], "val": ["c"]}, ...]'
_N_NAMES = 10


def find_given_splits(spec: DatasetSpec, *, file: Path | None = None) -> Splits | None:
    """Return the folds that the user gave, or ``None``.

    Args:
        file: a list of folds that is used instead of those beside or in the manifest.

    Raises:
        ManifestError: the folds are not valid; lists every problem.
    """
    if file is not None:
        return _splits(spec, read_folds(file, spec), str(file))
    if (spec.root / FOLDS).exists():
        return _splits(spec, read_folds(spec.root / FOLDS, spec), FOLDS)
    if spec.fold_of:
        return _splits(spec, numbered_folds(spec), FOLD_NUMBERS)
    if spec.validation:
        return _splits(spec, (validation_fold(spec),), VALIDATION)
    return None


def numbered_folds(spec: DatasetSpec) -> tuple[Fold, ...]:
    """Return the folds of MONAI's data lists, where each case has the number of the fold that holds it out.

    A case without a number is in the training part of every fold, unless the manifest lists it for validation.
    """
    numbers = spec.fold_of
    usable = [case.id for case in spec.cases if case.id in numbers or case.id not in spec.validation]
    return tuple(
        Fold(
            train=tuple(case_id for case_id in usable if numbers.get(case_id) != number),
            val=tuple(case_id for case_id in usable if numbers.get(case_id) == number),
        )
        for number in range(max(numbers.values()) + 1)
    )


def validation_fold(spec: DatasetSpec) -> Fold:
    """Return the fold that holds out the cases that the manifest lists for validation."""
    held_out = frozenset(spec.validation)
    return Fold(train=tuple(c.id for c in spec.cases if c.id not in held_out), val=spec.validation)


def read_folds(path: Path, spec: DatasetSpec) -> tuple[Fold, ...]:
    """Read a list of folds in the form of nnU-Net's ``splits_final.json``, or a ``splits.json`` of prepared data.

    Raises:
        ManifestError: the file cannot be read, or the folds do not fit the cases of ``spec``; lists every problem.
    """
    if not path.exists():
        raise ManifestError("does not exist", where=path, remedy="check the path", code="E-DATASET-SPLITS")
    remedy = f"correct it or remove it: it must be {_FORM}"
    content = read_json(path, error=ManifestError, remedy=remedy, code="E-DATASET-SPLITS")
    if isinstance(content, dict) and "folds" in content:
        content = content["folds"]
    try:
        folds = TypeAdapter(tuple[Fold, ...]).validate_python(content)
    except ValidationError as problem:
        raise problems_found(
            describe(problem), where=path, remedy=remedy, kind=ManifestError, code="E-DATASET-SPLITS"
        ) from None
    if problems := fold_problems(folds, (case.id for case in spec.cases)):
        raise problems_found(problems, where=path, remedy=remedy, kind=ManifestError, code="E-DATASET-SPLITS")
    return folds


def fold_problems(folds: Iterable[Fold], ids: Iterable[str]) -> list[str]:
    """Return the problems of folds of the cases ``ids``."""
    known, problems, number = frozenset(ids), [], -1
    for number, fold in enumerate(folds):
        if unknown := sorted({*fold.train, *fold.val} - known):
            are_files = all(strip_suffix(Path(name).name).removesuffix("_0000") in known for name in unknown)
            hint = "; a case is named without folder, suffix and number of a channel" if are_files else ""
            problems.append(f"fold {number} has cases that are not in the dataset: {name_some(unknown)}{hint}")
        if both := sorted(set(fold.train) & set(fold.val)):
            problems.append(f"fold {number} trains on cases that it holds out: {name_some(both)}")
        if twice := sorted(i for part in (fold.train, fold.val) for i, n in Counter(part).items() if n > 1):
            problems.append(f"fold {number} lists cases twice: {name_some(twice)}")
        if not fold.train:
            problems.append(f"fold {number} has no case to train on")
    return problems if number >= 0 else ["it contains no folds"]


def describe_given(spec: DatasetSpec, folds: Sequence[Fold], group_of: Mapping[str, str]) -> list[str]:
    """Return what is unusual about given folds: unused cases, cases held out twice, patients that are split.

    Args:
        group_of: group of each case.
    """
    found = []
    for number, fold in enumerate(folds):
        if unused := [case.id for case in spec.cases if case.id not in {*fold.train, *fold.val}]:
            found.append(f"fold {number} neither trains on nor holds out {count_cases(unused)}: {name_some(unused)}")
        if not fold.val:
            found.append(f"fold {number} holds out no case, so that its model gets no scores")
        if divided := find_divided(fold, group_of):
            found.append(
                f"fold {number} trains on and holds out cases of the same patient, so that its scores are too good: "
                f"{name_some(divided)}"
            )
    times = Counter(i for fold in folds for i in fold.val)
    if twice := sorted(i for i, n in times.items() if n > 1):
        found.append(
            f"several folds hold out {count_cases(twice)}, so that the scores of these folds cannot be combined: "
            f"{name_some(twice)}"
        )
    return found


def find_divided(fold: Fold, group_of: Mapping[str, str]) -> list[str]:
    """Return the cases that the fold holds out although it trains on another case of their group."""
    trained = {group_of[case_id] for case_id in fold.train}
    return [case_id for case_id in fold.val if group_of[case_id] in trained]


def name_some(names: Sequence[str]) -> str:
    """Return names as text; of a long list, the first ones and how many others there are."""
    more = len(names) - _N_NAMES
    return ", ".join(names[:_N_NAMES]) + (f" and {more} more" if more > 0 else "")


def count_cases(cases: Sequence[object]) -> str:
    """Return ``1 case`` or ``3 cases``."""
    return f"{len(cases)} case{'s' if len(cases) != 1 else ''}"


def _splits(spec: DatasetSpec, folds: tuple[Fold, ...], source: str) -> Splits:
    grouped = len(set(all_groups(spec).values())) < len(spec.cases) and spec.groups_from != "names"
    return Splits(seed=0, grouped=grouped, folds=folds, source=source)
