"""Writes to the terminal: every command prints here, so that names in files never control the terminal."""

from __future__ import annotations

import typer

from decathlete.errors import printable


def echo(message: object, *, err: bool = False) -> None:
    """Print a message and a line feed; control characters are printed as ``\\uXXXX``.

    Args:
        err: print to standard error.
    """
    typer.echo(printable(str(message)), err=err)
