"""An assignment to a field of the plan (``--set field=value``): its parts, and the error if it does not fit."""

from __future__ import annotations

from collections.abc import Sequence

from decathlete.errors import OptionError

Assignment = tuple[str, str]
"""A dotted field and its value, both as text."""


def split_assignment(text: str) -> Assignment:
    """Return field and value of an assignment ``field=value``, not validated.

    Raises:
        OptionError: it has another form.
    """
    path, separator, value = text.partition("=")
    if not separator or not path.strip() or not value.strip():
        raise OptionError(f"--set {text}: it must have the form field=value", remedy="e.g. --set patch_size=40,56,40")
    return path.strip().replace("-", "_"), value.strip()


def assignment_flag(path: str, text: str) -> str:
    """Return an assignment as the command line spells it."""
    return f"--set {path}={text}"


def conflict_error(problems: Sequence[str], pairs: Sequence[Assignment]) -> OptionError:
    """Return the error of assignments that do not make a valid plan."""
    flags = " ".join(assignment_flag(path, text) for path, text in pairs)
    listed = problems[0] if len(problems) == 1 else "".join(f"\n  - {p}" for p in problems)
    return OptionError(f"{flags}: {listed}", remedy="change the value, or set the fields that depend on it, too")
