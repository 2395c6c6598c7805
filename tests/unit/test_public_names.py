"""The package's face: a function for each command, documented, loaded when it is used."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

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
