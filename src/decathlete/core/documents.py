"""Parse JSON and YAML from anywhere: size, nesting and numbers are limited, so that no file causes a crash or a hang.

Every JSON and YAML file is read here or by :meth:`decathlete.core.schema.Schema.load`, which has the same limits.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from decathlete.core.files import read_text
from decathlete.errors import DecathleteError

MAX_DEPTH = 200
"""Maximum number of nested lists and objects in JSON; a limit of pydantic's parser. A model's record has about 10."""

MAX_DIGITS = 4300
"""Maximum number of digits of a number in JSON; a limit of pydantic's parser and of Python."""

MAX_YAML_BYTES = 1 << 18
"""Maximum size of a YAML file, 256 KiB: PyYAML needs about 10 s for it. A file of options has less than 10 KiB."""

MAX_YAML_DEPTH = 50
"""Maximum number of nested lists and mappings in YAML."""

MAX_YAML_VALUES = 100_000
"""Maximum number of values in a YAML file, with every use of an alias counted in full."""

MAX_YAML_DIGITS = 300
"""Maximum number of characters of a number in YAML."""

_JSON: TypeAdapter[Any] = TypeAdapter(Any)
_LONE_SURROGATE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_NUMBER = re.compile(r"[-+0-9a-fA-FxXoO_:.]+")


def read_json(
    path: Path, *, error: type[DecathleteError] = DecathleteError, remedy: str = "", code: str | None = None
) -> Any:
    """Read and parse a JSON file.

    Raises:
        error: the file cannot be read or is not valid JSON, or an object has a name twice; the message names the line
            or the name.
    """
    text = read_text(path, error=error, remedy=remedy)
    try:
        content = parse_json(text)
        json.loads(text, object_pairs_hook=_check_names)
        return content
    except ValueError as problem:
        remedy = remedy or "correct this line"
        raise error(f"is not valid JSON: {problem}", where=path, remedy=remedy, code=code) from None


def parse_json(text: str) -> Any:
    """Parse JSON; ``NaN`` and ``Infinity`` are numbers.

    Raises:
        ValueError: the text is not valid JSON, is nested deeper than ``MAX_DEPTH`` or has a longer number than
            ``MAX_DIGITS``; the message names the line.
    """
    try:
        return _JSON.validate_json(text)
    except ValidationError as problem:
        raise ValueError(explain_json_error(problem, text)) from None
    except UnicodeEncodeError:
        raise ValueError("it contains characters that are not Unicode") from None


def _check_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Reject an object that has a name twice: parsers use the last value and say nothing."""
    content = dict(pairs)
    if len(content) < len(pairs):
        repeated, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"one object has the name {repeated[:80]!r} twice")
    return content


def explain_json_error(problem: ValidationError, text: str) -> str:
    """Return why ``text`` is not valid JSON, from pydantic's error of the type ``json_invalid``.

    All faults of JSON have this type, so that only the text of the parser (jiter, in Rust) tells them apart. If a later
    version has other texts, users see them unchanged.
    """
    reason = str(problem.errors()[0]["ctx"]["error"])
    message, _, position = reason.partition(" at line ")
    line = f" in line {position.partition(' ')[0]}" if position else ""
    if message.startswith("recursion limit"):
        return f"lists and objects are nested deeper than {MAX_DEPTH} levels{line}"
    if message.startswith("number out of range"):
        return f"a number has more than {MAX_DIGITS} digits{line}"
    if message.startswith("invalid escape"):
        return f"a single back slash{line}; write paths with / (or each back slash twice)"
    if "hex escape" in message and (found := _LONE_SURROGATE.search(text)):
        return f"{found[0]} is half of a character{line}"
    return f"{message}{line}"


def read_yaml(path: Path, *, error: type[DecathleteError] = DecathleteError, remedy: str = "") -> Any:
    """Read and parse a YAML file.

    Raises:
        error: the file cannot be read or is not valid YAML, or it exceeds a limit of this module.
    """
    import yaml

    text = read_text(path, error=error, remedy=remedy, limit_bytes=MAX_YAML_BYTES)
    try:
        _YamlCheck().check(text)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as problem:  # ValueError: of a date or a number
        reason = " ".join(str(problem).split())
        raise error(f"is not valid YAML: {reason}", where=path, remedy=remedy or "fix the file") from None


@dataclass(kw_only=True)
class _MappingNames:
    """The names of a mapping so far, and whether a name comes next, not a value."""

    seen: set[str] = field(default_factory=set)
    expects_name: bool = True

    def add(self, event: Any, kind: str) -> None:
        if self.expects_name and kind == "ScalarEvent" and event.value != "<<":
            if event.value in self.seen:
                raise ValueError(f"the name {event.value[:80]!r} comes twice")
            self.seen.add(event.value)
        self.expects_name = not self.expects_name


class _YamlCheck:
    """Check nesting, aliases, names and scalars in the stream of a file's events, before any object is made."""

    def __init__(self) -> None:
        self._n_values = 0
        self._n_values_of: dict[str, int] = {}  # of each anchor, with all values inside
        self._open: list[tuple[str | None, int]] = []  # lists and mappings that are open: anchor, and the count before
        self._names: list[_MappingNames | None] = []  # of each of them; ``None``: a list

    def check(self, text: str) -> None:
        """Read all events.

        Raises:
            ValueError: a limit is exceeded, an alias contains itself, or a mapping has a name twice.
            yaml.YAMLError: the text is not valid YAML.
        """
        import yaml

        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            try:
                self._count(event, type(event).__name__)
            except ValueError as problem:
                raise ValueError(f"{problem} in line {event.start_mark.line + 1}") from None

    def _count(self, event: Any, kind: str) -> None:
        self._n_values += 1
        if kind in ("ScalarEvent", "AliasEvent", "SequenceStartEvent", "MappingStartEvent") and self._names:
            names = self._names[-1]
            if names is not None:
                names.add(event, kind)
        if kind in ("SequenceStartEvent", "MappingStartEvent"):
            self._open.append((event.anchor, self._n_values))
            self._names.append(_MappingNames() if kind == "MappingStartEvent" else None)
            if len(self._open) > MAX_YAML_DEPTH:
                raise ValueError(f"lists and mappings are nested deeper than {MAX_YAML_DEPTH} levels")
        elif kind in ("SequenceEndEvent", "MappingEndEvent"):
            anchor, before = self._open.pop()
            self._names.pop()
            self._name(anchor, self._n_values - before)
        elif kind == "AliasEvent":
            if any(anchor == event.anchor for anchor, _ in self._open):
                raise ValueError(f"alias *{event.anchor} contains itself")
            self._n_values += self._n_values_of.get(event.anchor, 0)
        elif kind == "ScalarEvent":
            _check_scalar(event)
            self._name(event.anchor, 1)
        if self._n_values > MAX_YAML_VALUES:
            raise ValueError(f"more than {MAX_YAML_VALUES} values, with every use of an alias counted,")

    def _name(self, anchor: str | None, n_values: int) -> None:
        if anchor:
            self._n_values_of[anchor] = n_values


def _check_scalar(event: Any) -> None:
    if event.implicit[0] and len(event.value) > MAX_YAML_DIGITS and _NUMBER.fullmatch(event.value):
        raise ValueError(f"a number has more than {MAX_YAML_DIGITS} characters")
    if not is_unicode(event.value):
        raise ValueError("half of a character")


def is_unicode(text: str) -> bool:
    """Return whether UTF-8 can hold a text: not a file name of other bytes, and no half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
