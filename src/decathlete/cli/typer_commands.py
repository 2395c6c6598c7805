"""Builds Typer commands: option groups that are dataclasses, and sections in ``--help``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import fields, is_dataclass
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from decathlete.cli.config_file import option_spellings
from decathlete.cli.options import Config, Plugin
from decathlete.cli.precedence import apply_precedence
from decathlete.cli.renamed_options import reject_renamed
from decathlete.core.signatures import field_parameters


def expand_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command that is a dataclass by the fields of the dataclass.

    Typer reads options from the signature of a function. The function that is returned has the names, types and
    defaults of the fields in its signature; it builds the dataclasses and calls ``command``. Every command also gets
    ``--config`` and ``--plugin``.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = inspect.signature(command).parameters.values()
    options = [option for parameter in parameters for option in _expand(parameter, hints[parameter.name])]
    for name, annotation in (("config", Config), ("plugin", Plugin)):
        options.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    options = [option.replace(annotation=_reject_empty_path(option.annotation)) for option in options]

    @wraps(command)
    def call_with_groups(**values: Any) -> None:
        values.pop("config")  # its callback has set the values of the other options
        values.pop("plugin")  # its callback has imported the modules
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(hints[name])})
        command(**values)

    call_with_groups.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    call_with_groups.__annotations__ = {option.name: option.annotation for option in options}
    return call_with_groups


def _expand(parameter: inspect.Parameter, hint: Any) -> Iterator[inspect.Parameter]:
    if isinstance(hint, type) and is_dataclass(hint):
        yield from field_parameters(hint)
    else:
        yield parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY)


def _reject_empty_path(annotation: Any) -> Any:
    """Let the option of a path, or of several, reject an empty text, which ``Path`` would make the current folder."""
    hint, *metadata = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    if Path not in (hint, *get_args(hint)):
        return annotation
    info = copy(metadata[0])
    info.parser = parse_path
    return Annotated[hint, info]


def parse_path(text: str | Path) -> Path:
    """Return the path that a text names.

    Raises:
        typer.BadParameter: the text is empty.
    """
    if str(text) == "":
        raise typer.BadParameter("the path is empty; name a file or folder (. is the current folder)")
    return Path(text)


class SectionedCommand(TyperCommand):
    """A command whose help is plain text, with one section of options for each ``rich_help_panel``.

    Typer makes sections only with Rich, which makes loading 50 % slower and breaks names and choices on a
    terminal of 80 columns.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; a renamed option is rejected with its new name."""
        reject_renamed(args, option_spellings(self))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command after options on the command line have replaced contradicting ones from ``--config``."""
        apply_precedence(ctx)
        return super().invoke(ctx)

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Write the sections: Arguments, Options, then the others in the order of their options."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        as_declared = copy(ctx)
        as_declared.token_normalize_func = None  # choices are shown as files and folders spell them: 3d_lowres
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(as_declared)
            if record is not None:
                record = (record[0], insert_names(record[1]))
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or kind, []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def insert_names(text: str) -> str:
    """Replace ``{names:MODULE:REGISTRY}`` in a help text by the names of the registered components.

    The registry is imported only when the help is shown.
    """

    def names(match: re.Match[str]) -> str:
        registry = getattr(import_module(match["module"]), match["registry"])
        return ", ".join(registry.names())

    return re.sub(r"\{names:(?P<module>[\w.]+):(?P<registry>\w+)\}", names, text)
