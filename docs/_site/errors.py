"""The page of error codes: the tree of exception classes below ``DecathleteError``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from decathlete.errors import DecathleteError
from text import code, table


def pages() -> dict[str, str]:
    """Return the page of error codes by its place in the docs folder."""
    classes = list(_tree(DecathleteError))
    rows = [(f"[`{_title(cls)}`](#{_anchor(cls)})", code(cls.__name__), _first(cls)) for cls in classes]
    sections = "\n\n".join(_section(cls) for cls in classes)
    return {
        "reference/errors.md": f"""# Error codes

Every mistake that a user can correct raises a subclass of `decathlete.DecathleteError`. The command line prints what is
wrong, where, and what to do, and exits with the code given below. In Python, catch `decathlete.DecathleteError` or one
of its subclasses.

{table(("error", "class", "meaning"), rows)}

{sections}
"""
    }


def _tree(cls: type[DecathleteError]) -> Iterator[type[DecathleteError]]:
    yield cls
    for below in cls.__subclasses__():
        yield from _tree(below)


def _own_code(cls: type[DecathleteError]) -> str | None:
    """The class's own stable code; an inherited one belongs to the class above."""
    value = cls.__dict__.get("code")
    return value if isinstance(value, str) else None


def _title(cls: type[DecathleteError]) -> str:
    return _own_code(cls) or cls.__name__


def _anchor(cls: type[DecathleteError]) -> str:
    return _title(cls).lower()


def _first(cls: type[DecathleteError]) -> str:
    return " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())


def _section(cls: type[DecathleteError]) -> str:
    text = (inspect.getdoc(cls) or "").partition("\nArgs:")[0].partition("\nAttributes:")[0].strip()
    parents = [parent.__name__ for parent in cls.__mro__[1:] if issubclass(parent, DecathleteError)]
    facts = [("class", code(f"decathlete.errors.{cls.__name__}"))]
    if parents:
        facts.append(("also caught as", ", ".join(code(parent) for parent in parents)))
    facts.append(("exit code", "128 + the signal's number" if cls.__name__ == "Interrupted" else str(cls.exit_code)))
    for attribute in ("remedy", "default_remedy"):
        if isinstance(remedy := getattr(cls, attribute, None), str) and remedy:
            facts.append(("what to do", remedy[:1].upper() + remedy[1:]))
    lines = "\n".join(f"- {name}: {value}" for name, value in facts)
    return f"## {_title(cls)} {{ #{_anchor(cls)} }}\n\n{text}\n\n{lines}"
