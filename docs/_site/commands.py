"""The command-line reference: a page for each command with its options by section, read from the typer app."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from decathlete.cli.main import app
from text import code, table

FOLDER = "reference/commands"
SECTION_OF_OTHERS = {"argument": "Arguments", "option": "Options"}


def pages() -> dict[str, str]:
    """Return the pages of the command-line reference by their place in the docs folder."""
    found = list(_commands(get_command(app), ()))
    made = {f"{FOLDER}/index.md": _index(found)}
    for names, command in found:
        made[f"{FOLDER}/{'-'.join(names)}.md"] = _page(names, command)
    return made


def _commands(group: Any, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*names, name))
        else:
            yield (*names, name), command


def _index(found: list[tuple[tuple[str, ...], Any]]) -> str:
    rows = [
        (f"[`decathlete {' '.join(names)}`]({'-'.join(names)}.md)", command.get_short_help_str(200))
        for names, command in found
    ]
    root = get_command(app)
    options = _options(root, root.context_class(root, info_name="decathlete"))
    shared = "\n\n".join(table(("option", "default", "meaning"), rows) for rows in options.values())
    return f"""# Command line

`decathlete COMMAND --help` shows the same options as these pages, which are generated from the program. Option names
may be written with hyphens or underscores.

{table(("command", "purpose"), rows)}

## Options before the command

{shared}
"""


def _page(names: tuple[str, ...], command: Any) -> str:
    title = " ".join(("decathlete", *names))
    context = command.context_class(command, info_name=title)
    usage = " ".join(command.get_usage(context).split()).removeprefix("Usage: ")
    parts = [
        f"# {title}",
        command.help or "",
        f"```\n{usage}\n```",
        f"In Python: [`decathlete.{'_'.join(names)}`][decathlete.{'_'.join(names)}].",
    ]
    for section, rows in _options(command, context).items():
        header = ("argument" if section == "Arguments" else "option", "default", "meaning")
        parts += [f"## {section}", table(header, rows)]
    return "\n\n".join(parts) + "\n"


def _options(command: Any, context: Any) -> dict[str, list[tuple[str, str, str]]]:
    """The rows of each section, in the order of ``--help``."""
    sections: dict[str, list[tuple[str, str, str]]] = {title: [] for title in SECTION_OF_OTHERS.values()}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and "--help" not in record[0]:
            section = getattr(parameter, "rich_help_panel", None) or SECTION_OF_OTHERS[parameter.param_type_name]
            sections.setdefault(section, []).append(_row(*record))
    return {title: rows for title, rows in sections.items() if rows}


def _row(spelling: str, text: str) -> tuple[str, str, str]:
    """Split what ``--help`` says of an option into its spelling, its default and its meaning with the range."""
    spelling = spelling.strip()
    switch = [name.removeprefix("--") for name in spelling.split(" / ")] if " / " in spelling else []
    extra = ""
    if match := re.fullmatch(r"(.*?)\s*\[([^\[]*)\]", text, re.DOTALL):
        text, extra = match[1], match[2]
    default, notes = "", []
    for part in filter(None, extra.split("; ")):
        if part.startswith("default: "):
            default = part.removeprefix("default: ").removeprefix("(").removesuffix(")")
            if default in switch:
                default = "off" if default.startswith("no-") else "on"
        elif part == "required":
            default = "required"
        else:
            notes.append(code(part))
    if match := re.fullmatch(r"(.*) <([^<>]*\|[^<>]*)>", spelling):
        spelling = match[1]
        notes.insert(0, "Choices: " + ", ".join(code(choice) for choice in match[2].split("|")))
    names = "<br>".join(code(name) for name in re.split(r", | / ", spelling))
    return names, default, " ".join([text, *(f"{note}." for note in notes)])
