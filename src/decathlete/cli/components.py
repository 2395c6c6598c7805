"""Command ``components``."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from decathlete.cli import options as o
from decathlete.cli.terminal import echo

if TYPE_CHECKING:
    from decathlete.workflows.components import ComponentEntry, ComponentInfo


def components(
    kind: Annotated[
        str | None, typer.Argument(help="Kind of component: loss, optimizer, transform, architecture, ...")
    ] = None,
    as_json: o.AsJson = False,
) -> None:
    """List losses, optimizers, networks and other components. With the name of a kind, also
    show their settings."""
    from decathlete.workflows.components import components as describe_components
    from decathlete.workflows.components import list_components

    if as_json:
        listing = describe_components(kind=kind)
        echo(json.dumps([component.model_dump(mode="json") for component in listing], indent=1))
    elif kind is None:
        _print_names(list_components())
        echo("\n`decathlete components KIND` shows the settings; plug-ins: docs/how-to/extend.md")
    else:
        _print_settings(describe_components(kind=kind))


def _print_names(listing: tuple[ComponentEntry, ...]) -> None:
    for kind, entries in groupby(listing, key=lambda entry: entry.kind):
        echo(kind)
        for entry in entries:
            echo(_line(entry))


def _print_settings(listing: tuple[ComponentInfo, ...]) -> None:
    echo(listing[0].kind)
    for component in listing:
        echo(_line(component))
        for setting in component.settings:
            default = "none" if setting.default is None else setting.default
            allowed = f" ({setting.allowed})" if setting.allowed else ""
            echo(f"    {setting.name}={default}{allowed}  {setting.description}")


def _line(component: ComponentEntry | ComponentInfo) -> str:
    origin = "" if component.distribution == "decathlete" else f"  ({component.distribution or 'plug-in'})"
    return f"  {component.name:18} {component.summary}{origin}"
