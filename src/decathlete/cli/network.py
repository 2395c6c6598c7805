"""The options of the network's shape, beside those of the plan in ``groups``."""

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
    """What a user says about the network's shape."""

    filters: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            show_default="32,64,128, ...",
            rich_help_panel=NETWORK,
            help="Channels of each level, finest first; no more levels than numbers.",
        ),
    ] = None
    wide_encoder: Annotated[
        bool,
        typer.Option(
            "--wide-encoder/--no-wide-encoder",
            rich_help_panel=NETWORK,
            help="Give the encoder 64, 96, 128, 192, 256, ... channels.",
        ),
    ] = PlanOptions.wide_encoder
    depth: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default="as the patch allows",
            rich_help_panel=NETWORK,
            help="Halve the resolution so many times, at most.",
        ),
    ] = PlanOptions.depth
    min_fmap: Annotated[
        int,
        typer.Option(
            metavar="VOXELS", min=1, rich_help_panel=NETWORK, help="Halve an axis only while feature maps stay so long."
        ),
    ] = PlanOptions.min_fmap
    negative_slope: Annotated[
        float,
        typer.Option(
            metavar="SLOPE", min=0.0, max=1.0, rich_help_panel=NETWORK, help="Slope of the leaky ReLU below 0."
        ),
    ] = PlanOptions.negative_slope
    deep_supervision: Annotated[
        bool,
        typer.Option(
            "--deep-supervision/--no-deep-supervision",
            rich_help_panel=NETWORK,
            help="Compare coarser outputs with the truth, too.",
        ),
    ] = PlanOptions.deep_supervision
    heads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default="all but the coarsest",
            rich_help_panel=NETWORK,
            help="Compare so many outputs with the truth, at most.",
        ),
    ] = PlanOptions.heads

    def shaping(self, options: PlanOptions) -> PlanOptions:
        """``options`` with what is said here."""
        return replace(
            options,
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
    """All that a user can say about the plan."""

    def options(self) -> PlanOptions:
        """For the planner."""
        return self.shaping(super().options())


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise OptionError(
            f"--filters {text}: not whole numbers", remedy="write e.g. --filters 32,64,128", code="E-OPTION-SYNTAX"
        ) from None
