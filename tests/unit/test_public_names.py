"""The package's face: a function for each command, documented, loaded when it is used."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

import decathlete
from decathlete import errors
from decathlete.cli.main import COMMANDS, GROUPS

FUNCTIONS = [*COMMANDS, *(f"{group}_{second}" for group, (_, commands) in GROUPS.items() for second in commands)]


@pytest.mark.parametrize("command", FUNCTIONS)
def test_every_command_has_its_function(command: str) -> None:
    function = getattr(decathlete, command)
    assert inspect.isfunction(function)
    assert function.__doc__


@pytest.mark.parametrize("name", sorted(set(dir(decathlete)) - {"__version__"}))
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert inspect.getdoc(getattr(decathlete, name))


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, decathlete; print(sorted({'torch', 'numpy', 'pydantic', 'typer'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="trian"):
        decathlete.trian  # noqa: B018


@pytest.mark.parametrize("name", sorted(set(dir(decathlete)) - {"__version__"}))
def test_a_public_name_is_that_of_what_it_names(name: str) -> None:
    assert getattr(decathlete, name).__name__ == name


def test_every_kind_of_error_is_public() -> None:
    known = {n for n, e in vars(errors).items() if isinstance(e, type) and issubclass(e, decathlete.DecathleteError)}
    assert known <= set(decathlete.__all__)


@pytest.mark.parametrize("name", sorted(set(dir(decathlete)) - {"__version__"}))
def test_what_functions_take_and_records_hold_is_public(name: str) -> None:
    """Parameters and results of functions and fields of records: their types are imported from ``decathlete``."""
    public = [getattr(decathlete, other) for other in decathlete.__all__]
    used = {
        part
        for owner in _owners(getattr(decathlete, name))
        for annotation in inspect.get_annotations(owner, globals=_namespace(owner.__module__), eval_str=True).values()
        for part in _parts(annotation)
    }
    assert [
        part.__qualname__ for part in used if part.__module__.startswith("decathlete.") and part not in public
    ] == []


def _owners(value: Any) -> Iterator[Any]:
    """Yield the function, or the classes of the record, whose annotations users see."""
    if inspect.isfunction(value):
        yield inspect.unwrap(value)
    elif dataclasses.is_dataclass(value) or issubclass(value, BaseModel):
        yield from (base for base in value.__mro__ if base.__module__.startswith("decathlete."))


@cache
def _namespace(name: str) -> dict[str, Any]:
    """Return the names of a module, with those that it imports for type checkers only."""
    module = sys.modules[name]
    names = dict(vars(module))
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            exec(compile(ast.Module(node.body, []), str(module.__file__), "exec"), names)
    return names


def _parts(annotation: Any) -> Iterator[type]:
    """Yield every class in an annotation."""
    for part in (annotation, get_origin(annotation)):
        if isinstance(part, type):
            yield part
    for argument in get_args(annotation):
        yield from (part for item in (argument if isinstance(argument, list) else [argument]) for part in _parts(item))
