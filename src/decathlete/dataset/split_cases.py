"""Choose the folds of a dataset: recorded, given or random; and what the user should know about them."""

from __future__ import annotations

from dataclasses import dataclass

from decathlete.dataset.find_dataset import FOLDS
from decathlete.dataset.given_splits import (
    FOLD_NUMBERS,
    VALIDATION,
    count_cases,
    describe_given,
    find_divided,
    find_given_splits,
    name_some,
)
from decathlete.dataset.groups import describe_guess, groups_in_force
from decathlete.dataset.spec import DatasetSpec
from decathlete.dataset.split_options import SplitOptions
from decathlete.dataset.splits import Fold, Splits, make_splits, split_as_release_0_1
from decathlete.dataset.stratify import Presence
from decathlete.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class SplitChoice:
    """Folds, and what the user should know about them.

    Attributes:
        notes: how the cases are split, and which lists of folds are not used.
        warnings: what may be wrong with the folds.
    """

    splits: Splits
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def split_cases(
    spec: DatasetSpec, options: SplitOptions, presence: Presence, *, recorded: Splits | None = None
) -> SplitChoice:
    """Choose the folds: those of ``options.file``, else those beside or in the manifest, else a random split.

    Args:
        presence: classes of each case.
        recorded: folds of prepared data. They are kept if the same options requested them, even if this release splits
            the cases in another way or did not use a list of folds before.

    Raises:
        DatasetError: no case can be held out.
        ManifestError: the given folds are not valid.
        OptionError: ``options.file`` separates cases that ``--group-by`` puts into one group.
    """
    given = None if options.is_random_split else find_given_splits(spec, file=options.file)
    if given is None or _ignored_list_before(recorded, given, spec, options):
        return _split_at_random(spec, options, presence, recorded, given)
    group_of = groups_in_force(spec, options.n_folds)
    _reject_divided_groups(spec, given, group_of)
    return SplitChoice(
        splits=recorded if recorded is not None and recorded.folds == given.folds else given,
        notes=(f"{_count_folds(given)} from {given.source}", *_unused_lists(spec, given)),
        warnings=(*describe_given(spec, given.folds, group_of), *find_untrained(given, presence)),
    )


def _split_at_random(
    spec: DatasetSpec, options: SplitOptions, presence: Presence, recorded: Splits | None, given: Splits | None
) -> SplitChoice:
    splits = make_splits(spec, n_folds=options.n_folds, seed=options.seed, presence=presence)
    notes, warnings = [guess] if (guess := describe_guess(spec, options.n_folds)) else [], []
    if recorded is not None and (recorded.folds == splits.folds or _answers(recorded, splits, spec, options)):
        if recorded.folds != splits.folds:
            notes.append("the folds that are recorded with the prepared data are kept")
        splits = recorded
    if given is not None:
        warnings.append(
            f"{given.source} is not used: the data were prepared with other folds, which are kept; use --overwrite to "
            "prepare them with these folds"
        )
    if splits.grouped and spec.groups_from != "names":
        n_groups = len(set(groups_in_force(spec, options.n_folds).values()))
        notes.append(f"split by patient: {n_groups} patients in {count_cases(spec.cases)}")
    notes += _unused_lists(spec, splits) if given is None else []
    return SplitChoice(splits=splits, notes=tuple(notes), warnings=(*warnings, *find_untrained(splits, presence)))


def _ignored_list_before(recorded: Splits | None, given: Splits, spec: DatasetSpec, options: SplitOptions) -> bool:
    """Return whether the folds are a random split although the dataset has a list of folds, as in release 0.1."""
    if recorded is None or recorded.source is not None or options.file is not None or recorded.folds == given.folds:
        return False
    return _answers(recorded, make_splits(spec, n_folds=options.n_folds, seed=options.seed), spec, options)


def _answers(recorded: Splits, fresh: Splits, spec: DatasetSpec, options: SplitOptions) -> bool:
    """Return whether the recorded folds are a random split for these options."""
    if recorded.source is not None:
        return False
    group_of = groups_in_force(spec, options.n_folds)
    same_request = (
        (recorded.seed, recorded.grouped, len(recorded.folds)) == (fresh.seed, fresh.grouped, len(fresh.folds))
        and sorted(i for fold in recorded.folds for i in fold.val) == sorted(group_of)
        and not any(find_divided(fold, group_of) for fold in recorded.folds)
    )
    return same_request or recorded == split_as_release_0_1(spec, n_folds=options.n_folds, seed=options.seed)


def _reject_divided_groups(spec: DatasetSpec, given: Splits, group_of: dict[str, str]) -> None:
    if spec.groups_from != "option":
        return
    for number, fold in enumerate(given.folds):
        if divided := find_divided(fold, group_of):
            raise OptionError(
                f"fold {number} of {given.source} separates cases that --group-by puts into one group: "
                f"{name_some(divided)}",
                remedy="correct the folds or the pattern, or leave out --group-by",
                code="E-OPTION-CONFLICT",
            )


def _unused_lists(spec: DatasetSpec, used: Splits) -> list[str]:
    """Return a line for each list of folds of the dataset that is not used, with the reason."""
    lists = [FOLDS] if (spec.root / FOLDS).exists() else []
    lists += [FOLD_NUMBERS] if spec.fold_of else []
    lists += [VALIDATION] if spec.validation else []
    reason = f"{used.source} is used instead" if used.source else "--n-folds or --split-seed request other folds"
    return [f"{name} is not used as a list of folds: {reason}" for name in lists if name != used.source]


def find_untrained(splits: Splits, presence: Presence) -> list[str]:
    """Return a line for each fold that trains without a class that occurs in the dataset."""
    lines = (describe_untrained(number, fold, presence) for number, fold in enumerate(splits.folds))
    return [line for line in lines if line is not None]


def describe_untrained(number: int, fold: Fold, presence: Presence) -> str | None:
    """Return one line about the classes that a fold trains without, or ``None`` if it trains on every class."""
    trained = frozenset().union(*(presence.get(case_id, frozenset()) for case_id in fold.train))
    others = {i: classes - trained for i, classes in presence.items() if classes - trained}
    if not others:
        return None
    missing = sorted(frozenset().union(*others.values()))
    where = f"only in cases that it does not train on ({name_some(sorted(others))})"
    if not trained:
        return f"fold {number} trains without any foreground, which occurs {where}"
    what = f"class {missing[0]!r}, which occurs" if len(missing) == 1 else f"{len(missing)} classes that occur"
    listed = f": {name_some(missing)}" if len(missing) > 1 else ""
    return f"fold {number} trains without {what} {where}{listed}"


def _count_folds(splits: Splits) -> str:
    return f"{len(splits.folds)} fold{'s' if len(splits.folds) != 1 else ''}"
