"""The API reference: a page for each kind of public name, rendered from the docstrings by mkdocstrings."""

from __future__ import annotations

import dataclasses
import inspect

from pydantic import BaseModel

import decathlete
from decathlete.cli.command_table import COMMANDS, GROUPS
from text import field_descriptions, fields_table, summary, table

FOLDER = "reference/api"
KINDS = {
    "commands": ("Functions of the commands", "Each command of the command line is a function with the same options."),
    "functions": ("Other functions", "Functions that have no command of their own."),
    "classes": ("Classes", "Objects that are kept and used many times."),
    "records": ("Settings and records", "Immutable settings and results. All fields are given by name."),
    "errors": ("Exceptions", "See [error codes](../errors.md) for what each one means and what to do."),
}


def pages() -> dict[str, str]:
    """Return the pages of the API reference by their place in the docs folder."""
    names: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for name in decathlete.__all__:
        if not name.startswith("__"):
            names[_kind(name)].append(name)
    found = {kind: members for kind, members in names.items() if members}
    return {f"{FOLDER}/index.md": _index(found)} | {
        f"{FOLDER}/{kind}.md": _page(kind, members) for kind, members in found.items()
    }


def _kind(name: str) -> str:
    value = getattr(decathlete, name)
    if not inspect.isclass(value):
        commands = {*COMMANDS, *(f"{group}_{second}" for group, (_, seconds) in GROUPS.items() for second in seconds)}
        return "commands" if name in commands else "functions"
    if issubclass(value, BaseException):
        return "errors"
    return "records" if dataclasses.is_dataclass(value) or issubclass(value, BaseModel) else "classes"


def _index(found: dict[str, list[str]]) -> str:
    parts = [
        "# Python API",
        "`import decathlete` loads nothing heavy; each name is loaded on first use. Names that are not listed here are "
        "not part of the public interface.",
    ]
    for kind, members in found.items():
        rows = [(f"[`{name}`][decathlete.{name}]", summary(getattr(decathlete, name))) for name in members]
        parts += [f"## {KINDS[kind][0]}", table(("name", "purpose"), rows)]
    return "\n\n".join(parts) + "\n"


def _page(kind: str, members: list[str]) -> str:
    title, introduction = KINDS[kind]
    parts = [f"# {title}", introduction]
    for name in members:
        parts.append(f"::: decathlete.{name}")
        value = getattr(decathlete, name)
        if inspect.isclass(value) and issubclass(value, BaseModel) and any(field_descriptions(value).values()):
            parts.append(fields_table(value))
    return "\n\n".join(parts) + "\n"
