"""Groups of cases, such as the frames, visits or scans of one patient, which are never split.

The user gives them (an option, or the manifest), or they are guessed from the names of the cases. A guess is used only
if it is plausible, it is always shown, and it is never a reason to reject a dataset.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from pathlib import PurePosixPath
from statistics import median

from decathlete.dataset.spec import DatasetSpec, GroupSource
from decathlete.errors import OptionError
from decathlete.io.image_files import strip_suffix

GROUPS_PER_FOLD = 2
"""Guessed groups for each fold, at least. Fewer are more likely hospitals or sequences than patients, and would make
uneven folds."""

SMALL_GROUP = 4
"""Cases of a group that is small enough to be one patient's, even if there are few groups."""

MOST_VISITS = 20
"""Cases of a median group, at most, if the names number scans or visits. A patient has rarely more."""

_N_LISTED = 10
"""Cases that a message names, at most."""

_VISIT = r"visit|session|ses|scan"
_PART = r"frame|phase|timepoint|time|slice|tp|t"
_REPEAT = re.compile(
    rf"(?P<group>.+?)[_-](?:(?P<visit>{_VISIT})|{_PART})[_-]?\d+(?![a-zA-Z0-9]).*",
    re.IGNORECASE,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Groups of cases, and where they come from.

    Attributes:
        of: case id -> group; a case that is not in it is a group of its own.
        source: ``None`` if there are no groups.
    """

    of: Mapping[str, str] = field(default_factory=dict)
    source: GroupSource | None = None


def assign_groups(
    case_ids: Sequence[str], *, group_by: str | None = None, declared: Mapping[str, str] | None = None
) -> Groups:
    """Assign cases to groups.

    Args:
        group_by: a regular expression with one group, searched for in each id.
        declared: the ``groups`` of the manifest: case id -> group.

    Raises:
        OptionError: ``group_by`` is not a regular expression with one group, or does not match every case.
    """
    if group_by is not None:
        groups = Groups(of=_match_pattern(case_ids, group_by), source="option")
    elif declared:
        groups = Groups(of={i: declared[i] for i in case_ids if i in declared}, source="manifest")
    else:
        guess = _match_names(case_ids)
        return Groups(of=guess, source="names" if guess else None)
    by = f"the pattern {group_by!r}" if group_by is not None else "the manifest's groups"
    if groups.of:
        _log_once(f"{len(groups.of)} cases in {len(set(groups.of.values()))} groups, by {by}: a group is never split")
    return groups


@cache
def _log_once(text: str) -> None:
    """Log a line that is true of a dataset, which a command reads several times."""
    _log.info("%s", text)


def group_problems(declared: Mapping[str, str], case_ids: Sequence[str]) -> list[str]:
    """Return the problems of the ``groups`` of a manifest: names that are not cases, so that patients would be split.

    Args:
        case_ids: ids of all cases, with those of test images.
    """
    known = set(case_ids)
    unknown = [name for name in declared if name not in known]
    problems = [
        f"groups: there is no case {name!r}{_hint(name, declared[name], known)}" for name in unknown[:_N_LISTED]
    ]
    more = len(unknown) - _N_LISTED
    return problems + ([f"groups: {more} more names are not cases"] if more > 0 else [])


def _hint(name: str, group: str, known: Set[str]) -> str:
    if group in known:
        return f": write the case before its patient, {{{group!r}: {name!r}}}"
    stem = strip_suffix(PurePosixPath(name).name)
    nearest = stem if stem in known else next(iter(get_close_matches(name, sorted(known), n=1)), None)
    return f": is it {nearest!r}?" if nearest is not None else ""


def describe_ungrouped(declared: Mapping[str, str], case_ids: Sequence[str]) -> tuple[str, ...]:
    """Return a line about the cases without a group if the manifest declares ``groups``."""
    missing = [case_id for case_id in case_ids if case_id not in declared]
    if not declared or not missing:
        return ()
    more = f" and {len(missing) - _N_LISTED} more" if len(missing) > _N_LISTED else ""
    listed = ", ".join(missing[:_N_LISTED])
    return (f"'groups' in dataset.json has no entry for {listed}{more}: each of these cases is a patient of its own",)


def all_groups(spec: DatasetSpec) -> dict[str, str]:
    """Return a unique key of the group of each case; a case without a group is a group of its own."""
    return {c.id: f"group {c.group}" if c.group is not None else f"case {c.id}" for c in spec.cases}


def groups_in_force(spec: DatasetSpec, n_folds: int) -> dict[str, str]:
    """Return a unique key of the group of each case, as :func:`all_groups`, without groups of an implausible guess."""
    if spec.groups_from == "names" and find_doubt(spec, n_folds) is not None:
        return {case.id: f"case {case.id}" for case in spec.cases}
    return all_groups(spec)


def given_groups(spec: DatasetSpec) -> dict[str, str]:
    """Return the group of each case, if ``--group-by`` has given them; else none: they follow from the dataset."""
    if spec.groups_from != "option":
        return {}
    return {case.id: case.group for case in spec.cases if case.group is not None}


def with_groups(spec: DatasetSpec, groups: Mapping[str, str]) -> DatasetSpec:
    """Return a copy of a dataset with groups that :func:`given_groups` has returned before."""
    cases = tuple(replace(case, group=groups.get(case.id)) for case in spec.cases)
    return replace(spec, cases=cases, groups_from="option")


def find_doubt(spec: DatasetSpec, n_folds: int) -> str | None:
    """Return why the groups that the names of the cases suggest are not plausible patients, or ``None``."""
    sizes = Counter(all_groups(spec).values())
    largest = max(sizes.values())
    repeated = [size for size in sizes.values() if size > 1]
    if len(sizes) == 1:
        return "they would all belong to one patient"
    if len(sizes) < n_folds or (len(sizes) < GROUPS_PER_FOLD * n_folds and largest > SMALL_GROUP):
        return f"there would be only {len(sizes)} patients for {n_folds} folds"
    if largest > SMALL_GROUP and largest * n_folds > len(spec.cases):
        return f"{largest} of {len(spec.cases)} cases would belong to one patient"
    if _counts_visits(spec) and median(repeated) > MOST_VISITS:
        return f"patients would have {median(repeated):g} scans each"
    return None


def _counts_visits(spec: DatasetSpec) -> bool:
    return any((m := _REPEAT.fullmatch(case.id)) and m["visit"] for case in spec.cases)


def describe_guess(spec: DatasetSpec, n_folds: int) -> str | None:
    """Return one line about the groups that were guessed from the names of the cases, or ``None`` without a guess."""
    if spec.groups_from != "names":
        return None
    sizes = Counter(case.group for case in spec.cases if case.group is not None)
    name = min(sizes, key=lambda group: (-sizes[group], group))
    ids = [case.id for case in spec.cases if case.group == name]
    example = f"{ids[0]} and {ids[1]}"
    doubt = find_doubt(spec, n_folds)
    if doubt is None:
        return (
            f"{len(spec.cases)} cases of {len(set(all_groups(spec).values()))} patients, guessed from the names of the "
            f"cases ({example}): a patient is never split. If this is wrong, use --group-by ('(.+)' makes no groups)"
        )
    return (
        f"no patients are recognised in the names of the cases: if {example} belonged together, {doubt}. Use "
        "--group-by if patients have several cases"
    )


def _match_pattern(case_ids: Sequence[str], group_by: str) -> dict[str, str]:
    remedy = r"use a pattern with one pair of brackets around the patient's part, e.g. '^(patient\d+)'"
    try:
        pattern = re.compile(group_by)
    except re.error as problem:
        raise OptionError(
            f"group_by {group_by!r} is not a regular expression ({problem})", remedy=remedy, code="E-OPTION-SYNTAX"
        ) from None
    if pattern.groups != 1:
        raise OptionError(
            f"group_by {group_by!r} has {pattern.groups} groups, not one", remedy=remedy, code="E-OPTION-SYNTAX"
        )
    groups = {i: m[1] for i in case_ids if (m := pattern.search(i)) and m[1] is not None}
    unmatched = [i for i in case_ids if i not in groups]
    if unmatched:  # with a mistyped pattern, a patient could be in training and validation
        raise OptionError(
            f"group_by {group_by!r} does not match {len(unmatched)} cases (for example {unmatched[0]!r})",
            remedy=remedy,
        )
    return groups


def _match_names(case_ids: Sequence[str]) -> dict[str, str]:
    """Group ``patient001_frame01`` under ``patient001``; the result is empty if no group has two cases."""
    matches = {i: m["group"] for i in case_ids if (m := _REPEAT.fullmatch(i))}
    return matches if len(set(matches.values())) < len(matches) else {}
