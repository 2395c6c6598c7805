"""Options that were renamed: a command line or a ``--config`` file with the old name gets an error with the new one."""

from __future__ import annotations

from collections.abc import Container, Iterable

from decathlete.errors import OptionError

RENAMED_OPTIONS = {"fit": "adapt", "no-fit": "no-adapt", "order": "preprocessing-order"}
"""Old spelling -> new spelling, without the leading hyphens."""


def successor(name: str, options: Container[str]) -> str | None:
    """Return the new spelling of a renamed option, if it is one of a command's options.

    Args:
        name: with hyphens, without the leading ones.
        options: spellings of the command's options.
    """
    new = RENAMED_OPTIONS.get(name)
    return new if name not in options and new in options else None


def reject_renamed(arguments: Iterable[str], options: Container[str]) -> None:
    """Reject command line arguments that are renamed options.

    Raises:
        OptionError: one is; the error names its successor.
    """
    for argument in arguments:
        if argument == "--":
            return
        name = argument.removeprefix("--").partition("=")[0].replace("_", "-")
        if argument.startswith("--") and (new := successor(name, options)):
            raise OptionError(f"the option --{name} was renamed", remedy=f"use --{new}")
