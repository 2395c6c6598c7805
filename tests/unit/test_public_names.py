"""The package's face: a function for each command, documented, loaded when it is used."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

import decathlete
from decathlete import errors
from decathlete.cli.main import COMMANDS, GROUPS

SOURCE = Path(decathlete.__file__).parent
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


@pytest.mark.parametrize("name", sorted(set(dir(decathlete)) - {"__version__"}))
def test_options_are_given_by_name(name: str) -> None:
    value = getattr(decathlete, name)
    functions = {value} if inspect.isfunction(value) else {getattr(value, member) for member in _methods(value)}
    positional = [
        f"{function.__qualname__}: {parameter.name}"
        for function in functions
        if function.__module__.startswith("decathlete.")
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is not parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY
    ]
    assert positional == []


def test_fields_of_dataclasses_are_given_by_name() -> None:
    positional = [
        f"{path.relative_to(SOURCE)}: {node.name}"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
        for decorator in map(ast.unparse, node.decorator_list)
        if decorator.startswith("dataclass") and "kw_only=True" not in decorator
    ]
    assert positional == []


def _methods(value: type) -> list[str]:
    """Return the names of the public methods, also of the class itself."""
    members = inspect.getmembers(value, lambda member: inspect.isfunction(member) or inspect.ismethod(member))
    return [name for name, _ in members if not name.startswith("_")]


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
