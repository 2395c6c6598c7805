"""Groups of cases, such as the frames, visits or scans of one patient, which are never split."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence

from decathlete.errors import OptionError

_REPEAT = re.compile(
    r"(?P<group>.+?)[_-](?:frame|phase|timepoint|time|visit|session|ses|scan|slice|tp|t)[_-]?\d+(?![a-zA-Z0-9]).*",
    re.IGNORECASE,
)

_log = logging.getLogger(__name__)


def assign_groups(
    case_ids: Sequence[str], *, group_by: str | None = None, declared: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Assign cases to groups; a case that is not in the result is a group of its own.

    Args:
        group_by: a regular expression with one group, searched for in each id.
        declared: the ``groups`` of the manifest: case id -> group.

    Raises:
        OptionError: ``group_by`` is not a regular expression with one group, or does not match every case.
    """
    if group_by is not None:
        groups, source = _match_pattern(case_ids, group_by), f"the pattern {group_by!r}"
    elif declared:
        groups, source = {i: declared[i] for i in case_ids if i in declared}, "the manifest's groups"
    else:
        groups, source = _match_names(case_ids), "the case names"
    if groups:
        _log.info(
            "%d cases in %d groups, by %s: a group is never split", len(groups), len(set(groups.values())), source
        )
    return groups


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
