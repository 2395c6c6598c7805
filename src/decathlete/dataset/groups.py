"""Which cases belong together: images of one patient must never fall on both sides of a split."""

from __future__ import annotations

import re

from decathlete.errors import OptionError

# patient001_frame01, sub-03_ses-2, P7_visit1, case12-t0: a patient, then what counts that patient's images.
_REPEATED = re.compile(
    r"^(?P<group>.+?)[_-](?:frame|phase|time|timepoint|visit|ses|session|scan|slice|tp|t)[_-]?\d+(?:[_-].*)?$",
    re.IGNORECASE,
)


def group_of(case_id: str, pattern: str | None = None) -> str | None:
    """The patient that a case's id names, or ``None`` when it names none (the case is a group of its own).

    Args:
        pattern: regular expression whose first group is the patient.

    Raises:
        OptionError: the pattern is invalid, has no group, or does not match the id.
    """
    if pattern is None:
        match = _REPEATED.match(case_id)
        return match["group"] if match else None
    try:
        compiled = re.compile(pattern)
    except re.error as problem:
        raise OptionError(f"--group-by {pattern!r} is not a regular expression ({problem})") from None
    found = compiled.search(case_id)
    if compiled.groups < 1 or found is None:
        reason = "has no group in parentheses" if compiled.groups < 1 else f"does not match {case_id!r}"
        raise OptionError(f"--group-by {pattern!r} {reason}", remedy=r"for names like P07_2: --group-by '^(P\d+)_'")
    return found[1]
