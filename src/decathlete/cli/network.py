"""Options of the network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import typer

from decathlete.cli.shared_groups import PlanArguments
from decathlete.errors import OptionError
from decathlete.planning.options import PlanOptions

NETWORK = "Network"


@dataclass(frozen=True, kw_only=True)
class NetworkArguments:
    """Options of the network's architecture and size."""

    architecture: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            rich_help_panel=NETWORK,
            help="Architecture; module:Class for one of your own. The options below are for the U-Net.",
        ),
    ] = PlanOptions.architecture
    filters: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            show_default="32,64,128, ...",
            rich_help_panel=NETWORK,
            help="Feature channels of each stage, finest first; the network has at most as many stages.",
        ),
    ] = None
    wide_encoder: Annotated[
        bool,
        typer.Option(
            "--wide-encoder/--no-wide-encoder",
            rich_help_panel=NETWORK,
            help="Wider network: 64, 96, 128, 192, 256, ... feature channels.",
        ),
    ] = PlanOptions.wide_encoder
    depth: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default="as the patch allows",
            rich_help_panel=NETWORK,
            help="Maximum number of poolings.",
        ),
    ] = PlanOptions.depth
    min_fmap: Annotated[
        int,
        typer.Option(
            metavar="VOXELS",
            min=1,
            rich_help_panel=NETWORK,
            help="Minimum length of feature maps along a pooled axis, voxels.",
        ),
    ] = PlanOptions.min_fmap
    negative_slope: Annotated[
        float,
        typer.Option(
            metavar="SLOPE", min=0.0, max=1.0, rich_help_panel=NETWORK, help="Negative slope of the leaky ReLU."
        ),
    ] = PlanOptions.negative_slope
    deep_supervision: Annotated[
        bool,
        typer.Option(
            "--deep-supervision/--no-deep-supervision",
            rich_help_panel=NETWORK,
            help="Deep supervision: a loss also for coarser outputs.",
        ),
    ] = PlanOptions.deep_supervision
    heads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default="all but the coarsest",
            rich_help_panel=NETWORK,
            help="Maximum number of supervised outputs.",
        ),
    ] = PlanOptions.heads

    def network_options(self, options: PlanOptions) -> PlanOptions:
        """Return ``options`` with the options of the network."""
        return replace(
            options,
            architecture=self.architecture,
            filters=_numbers(self.filters or ""),
            wide_encoder=self.wide_encoder,
            depth=self.depth,
            min_fmap=self.min_fmap,
            negative_slope=self.negative_slope,
            deep_supervision=self.deep_supervision,
            heads=self.heads,
        )


@dataclass(frozen=True, kw_only=True)
class FullPlanArguments(NetworkArguments, PlanArguments):
    """Options of the plan and of the network."""

    def options(self) -> PlanOptions:
        """Return the options for the planner."""
        return self.network_options(super().options())


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise OptionError(f"--filters {text}: must be whole numbers", remedy="e.g. --filters 32,64,128") from None
