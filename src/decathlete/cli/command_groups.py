"""Groups of commands, each of which is built from a function when it is called or listed."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from decathlete.cli.typer_commands import SectionedCommand, expand_option_groups

Functions = Mapping[str, Callable[..., None]]
"""Functions by the name of the command. Their signatures define the options."""


def build_command(name: str, function: Callable[..., None]) -> Any:
    """Return the command whose options are the parameters of ``function``."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(name, cls=SectionedCommand)(expand_option_groups(function))
    return typer.main.get_command(app)


class LazyCommands(UserDict[str, Any]):
    """Commands by name. Building all takes as long as importing Typer, and a call needs one."""

    def __init__(self, functions: Functions, built: Mapping[str, Any]) -> None:
        super().__init__({**functions, **built})
        self._functions = dict(functions)

    def __getitem__(self, name: str) -> Any:
        if name in self._functions:
            self.data[name] = build_command(name, self._functions.pop(name))
        return self.data[name]


class CommandGroup(TyperGroup):
    """Commands that are built when they are called or listed; groups in a group come last.

    Attributes:
        functions: the functions of the commands.
    """

    functions: ClassVar[Functions] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = LazyCommands(self.functions, self.commands)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - Typer's signature
        """Return the names of the commands, in their order."""
        return list(self.commands)


def command_group(functions: Functions, *, base: type[CommandGroup] = CommandGroup) -> type[CommandGroup]:
    """Return the class of a group of commands."""
    return type(base.__name__, (base,), {"functions": functions})
