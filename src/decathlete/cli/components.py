"""Command ``components``."""

from __future__ import annotations

from typing import Annotated

import typer

from decathlete.cli import options as o
from decathlete.cli.terminal import echo


def components(
    kind: Annotated[
        str | None, typer.Argument(help="Only this kind, e.g. loss, optimizer, transform, architecture.")
    ] = None,
    as_json: o.AsJson = False,
) -> None:
    """List components: losses, optimizers, networks, transforms, image formats, metrics, ... with their settings."""
    import json

    from decathlete.workflows.components import components as list_components

    listing = list_components(kind)
    if as_json:
        echo(json.dumps([component.model_dump(mode="json") for component in listing], indent=1))
        return
    for number, component in enumerate(listing):
        if number == 0 or component.kind != listing[number - 1].kind:
            echo(f"{component.kind}")
        plugin = "" if component.distribution == "decathlete" else f"  ({component.distribution or 'plug-in'})"
        echo(f"  {component.name:18} {component.summary}{plugin}")
        if kind is not None:
            for setting in component.settings:
                default = "none" if setting.default is None else setting.default
                allowed = f" ({setting.allowed})" if setting.allowed else ""
                echo(f"    {setting.name}={default}{allowed}  {setting.description}")
    if kind is None:
        echo("\n`decathlete components KIND` shows the settings; plug-ins: docs/how-to/extend.md")
