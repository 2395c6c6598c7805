"""``--help`` with its options in sections: plain text, at once, as wide as the terminal (up to 110 columns)."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand

from decathlete.cli.config_file import flags_win, option_spellings
from decathlete.cli.renamed_options import reject_renamed


class SectionedCommand(TyperCommand):
    """A command with ``--config``, whose help lists the options under their ``rich_help_panel``.

    typer does so with rich alone, which takes half as long again to load and on 80 columns breaks names and choices.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; a renamed option is rejected with its new name."""
        reject_renamed(args, option_spellings(self))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run it, once it is settled what ``--config`` still has to say."""
        flags_win(ctx)
        return super().invoke(ctx)

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Arguments, Options, then the other sections as they come."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
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
