"""Assignments of the option ``--set``: ``NAME=VALUE``, where dots in the name address nested settings.

Values are numbers, words, ``true``/``false``, ``none``; lists with commas (``40,56,40``), lists of lists with
semicolons (``1,1,1;2,2,2``), or JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from decathlete.errors import OptionError

_CONSTANTS = {"none": None, "null": None, "true": True, "false": False}


def parse_value(text: str) -> Any:
    """Return the value of an assignment.

    >>> parse_value("0.3"), parse_value("40,56,40"), parse_value("none"), parse_value('{"a": 1}')
    (0.3, [40, 56, 40], None, {'a': 1})
    """
    from decathlete.core.documents import parse_json  # here: every command loads this module, and few parse a value

    try:
        return parse_json(text)
    except ValueError:
        pass
    if ";" in text:
        return [_items(part) for part in text.split(";") if part.strip()]
    return _items(text) if "," in text else _scalar(text)


def parse_assignments(assignments: Iterable[str], *, example: str) -> dict[str, Any]:
    """Return the values of ``NAME=VALUE`` by name, nested where a name has dots; the last value of a name counts.

    >>> parse_assignments(["nifti.compression_level=9"], example="NAME=VALUE")
    {'nifti': {'compression_level': 9}}

    Args:
        example: a correct assignment, for the message.

    Raises:
        OptionError: an assignment without a name or a value, or a name that is a setting and a group of settings.
    """
    values: dict[str, Any] = {}
    for text in assignments:
        name, separator, value = text.partition("=")
        path = name.strip().replace("-", "_").split(".")
        if not (separator and value.strip() and all(path)):
            raise _malformed(text, example)
        group = values
        for key in path[:-1]:
            group = group.setdefault(key, {})
            if not isinstance(group, dict):
                raise _malformed(text, example)
        group[path[-1]] = parse_value(value.strip())
    return values


def split_assignments_of(groups: Iterable[str], assignments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Separate the assignments to settings of some groups from all others.

    >>> split_assignments_of(["engine"], ["engine.threads=2", "nsd.tolerance_mm=2"])
    (['engine.threads=2'], ['nsd.tolerance_mm=2'])
    """
    names = tuple(groups)
    own: list[str] = []
    others: list[str] = []
    for text in assignments:
        head = text.partition("=")[0].partition(".")[0].strip().replace("-", "_")
        (own if head in names else others).append(text)
    return own, others


def _items(text: str) -> list[Any]:
    return [_scalar(part) for part in text.split(",") if part.strip()]


def _scalar(text: str) -> Any:
    word = text.strip()
    if word.lower() in _CONSTANTS:
        return _CONSTANTS[word.lower()]
    for number in (int, float):
        try:
            return number(word)
        except ValueError:
            continue
    return word


def _malformed(text: str, example: str) -> OptionError:
    return OptionError(
        f"--set {text} is not the value of a setting", remedy=f"write e.g. --set {example}", code="E-OPTION-SYNTAX"
    )
