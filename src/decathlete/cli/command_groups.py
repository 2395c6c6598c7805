"""Groups of commands, each of which is imported and built when it is called."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperGroup


class CommandSource(NamedTuple):
    """Where a command is.

    Importing and building all commands takes three times as long as importing Typer, and a call needs one of them.

    Attributes:
        function: ``module:function``; the function's signature defines the options.
        summary: first sentence of the function's docstring, for the list of commands.
    """

    function: str
    summary: str


def build_command(name: str, function: Callable[..., None]) -> Any:
    """Return the command whose options are the parameters of ``function``."""
    from decathlete.cli.typer_commands import SectionedCommand, expand_option_groups

    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(name, cls=SectionedCommand)(expand_option_groups(function))
    return typer.main.get_command(app)


class LazyCommands(UserDict[str, Any]):
    """Commands by name, imported when they are looked up."""

    def __init__(self, sources: Mapping[str, CommandSource], built: Mapping[str, Any]) -> None:
        super().__init__({**sources, **built})

    def __getitem__(self, name: str) -> Any:
        found = self.data[name]
        if isinstance(found, CommandSource):
            module, _, function = found.function.partition(":")
            found = self.data[name] = build_command(name, getattr(import_module(module), function))
        return found


class CommandGroup(TyperGroup):
    """Commands that are imported when they are called; groups in a group come last.

    Attributes:
        sources: the commands.
    """

    sources: ClassVar[Mapping[str, CommandSource]] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = LazyCommands(self.sources, self.commands)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - Typer's signature
        """Return the names of the commands, in their order."""
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands for ``--help``."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._summarize(ctx, name)) for name in self.list_commands(ctx)])

    def _summarize(self, ctx: Any, name: str) -> str:
        if name in self.sources:
            return self.sources[name].summary
        command: Any = self.get_command(ctx, name)
        return str(command.get_short_help_str(limit=200))


def command_group(
    sources: Mapping[str, CommandSource], *, base: type[CommandGroup] = CommandGroup
) -> type[CommandGroup]:
    """Return the class of a group of commands."""
    return type(base.__name__, (base,), {"sources": sources})
