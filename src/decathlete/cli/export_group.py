"""``decathlete export``, with a command for every registered exporter."""

from __future__ import annotations

from typing import Any

from decathlete.cli.command_groups import CommandGroup


class ExportGroup(CommandGroup):
    """The built-in exporters, whose commands have options of their own, and those of plug-ins."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List the built-in commands, then the commands of plug-ins."""
        known = super().list_commands(ctx)
        return [*known, *(name for name in _exporter_names() if name not in known)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; the command of a plug-in is made from its exporter."""
        command = super().get_command(ctx, cmd_name)
        if command is None and (cmd_name in _exporter_names() or ":" in cmd_name):
            from decathlete.cli.exports import plugin_command

            return plugin_command(cmd_name)
        return command


def _exporter_names() -> tuple[str, ...]:
    from decathlete.export.exporters import EXPORTERS

    return EXPORTERS.names()
