"""Options of commands that prepare and train: folders, configuration, and selection of configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decathlete.cli import options as o
from decathlete.cli.precedence import explicit_options
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.core.choices import Configuration
    from decathlete.workflows.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class WorkspaceArguments:
    """Options of the root folders."""

    data: o.Data = Path("data")
    prepared: o.Prepared = Path("prepared")
    results: o.Results = Path("results")

    def to_workspace(self) -> Workspace:
        """Return the folders as :class:`Workspace`."""
        from decathlete.workflows.workspace import Workspace

        return Workspace(**vars(self))


@dataclass(frozen=True, kw_only=True)
class ConfigurationArguments:
    """Options that choose one configuration, and the preset of its defaults."""

    dim: o.Dims = "3"
    configuration: o.ConfigurationName = None
    preset: o.Preset = None

    def choose(self, context: typer.Context) -> Configuration:
        """Return the configuration that ``--configuration`` or else ``--dim`` names.

        Raises:
            OptionError: both are set, and they contradict each other.
        """
        by_dim: Configuration = "2d" if self.dim == "2" else "3d"
        if self.configuration is None:
            return by_dim
        if self.configuration[:2] != by_dim and "dim" in explicit_options(context):
            raise OptionError(
                f"--configuration {self.configuration} and --dim {self.dim} contradict each other",
                remedy="leave out --dim",
                code="E-OPTION-CONFLICT",
            )
        return self.configuration


@dataclass(frozen=True, kw_only=True)
class SelectionArguments:
    """Options of ``run`` that train several configurations and select the best of them."""

    configurations: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            rich_help_panel=o.SELECTION,
            show_default="one, --configuration",
            help="Configurations to train and compare: auto (those that the images justify), or e.g. 2d,3d. The best "
            "one or pair becomes the model (see `decathlete select`).",
        ),
    ] = None
    total_time: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            rich_help_panel=o.SELECTION,
            show_default="--max-time or --epochs of each fold",
            help="With --configurations: time of everything, 10h or 2d, divided among the trainings.",
        ),
    ] = None
    max_members: o.MaxMembers = 10

    def check(self, explicit: Mapping[str, Any]) -> None:
        """Reject options that contradict ``--configurations``, or that have no effect without it.

        Args:
            explicit: option name -> value of the options that the user has set.

        Raises:
            OptionError: there is such an option.
        """
        if self.configurations is None:
            if useless := [name for name in ("total_time", "max_members") if name in explicit]:
                raise OptionError(
                    f"{_flags(useless)} has no effect without --configurations",
                    remedy="leave it out, or use --configurations auto",
                    code="E-OPTION-CONFLICT",
                )
            return
        excluded = ["dim", "configuration", "fold", *(["max_time", "epochs"] if self.total_time is not None else [])]
        if contradicting := [name for name in excluded if explicit.get(name) is not None]:
            flags = _flags(contradicting)
            other = "--total-time" if contradicting[0] in ("max_time", "epochs") else "--configurations"
            raise OptionError(f"{flags} contradicts {other}", remedy=f"leave out {flags}", code="E-OPTION-CONFLICT")

    def total_seconds(self) -> float | None:
        """Return ``--total-time`` in seconds, or ``None``.

        Raises:
            OptionError: the value is not a duration.
        """
        from decathlete.core.durations import parse_duration

        return None if self.total_time is None else parse_duration(self.total_time)


def _flags(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
