"""Options of the plan: preprocessing, regions, split and network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import typer

from decathlete.cli import options as o
from decathlete.core.choices import Block, NetworkName, Norm, Order, Orientation
from decathlete.core.regions import parse_order
from decathlete.errors import OptionError
from decathlete.planning.options import PlanOptions

PLAN, NETWORK = "Plan", "Network"

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        rich_help_panel=PLAN,
        help="Value of a field of the plan (patch_size=40,56,40), of the training (loss.gamma=1.5, "
        "augmentation.gamma.probability=0.1), of a plug-in's image format (image_format.NAME.SETTING=VALUE) or, in "
        "`run`, of the inference engine (engine.threads=2). Can be repeated.",
    ),
]
Adapt = Annotated[
    bool,
    typer.Option(
        "--adapt/--no-adapt",
        rich_help_panel=PLAN,
        help="Adapt the plan to a CPU or a short training: coarser grids, narrower network, smaller batch and patch, "
        "no mirroring.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class PlanArguments:
    """Options of preprocessing, regions and split."""

    memory: Annotated[
        float | None,
        typer.Option(
            metavar="GB",
            min=0.5,
            show_default="8",
            rich_help_panel=PLAN,
            help="GPU memory for which patch and batch size are planned, GB; --network may have another default.",
        ),
    ] = None
    orientation: Annotated[
        Orientation,
        typer.Option(
            rich_help_panel=PLAN, help="Orientation of the images: reoriented to RAS (canonical), or as stored."
        ),
    ] = PlanOptions.orientation
    preprocessing_order: Annotated[
        Order,
        typer.Option(
            rich_help_panel=PLAN,
            help="Order of preprocessing: nnunet normalises, then resamples; recipe does the reverse.",
        ),
    ] = PlanOptions.preprocessing_order
    block: Annotated[
        Block, typer.Option(rich_help_panel=PLAN, help="Blocks of the encoder; residual blocks are slower.")
    ] = PlanOptions.block
    norm: Annotated[Norm, typer.Option(rich_help_panel=PLAN, help="Normalisation layers of the network.")] = (
        PlanOptions.norm
    )
    regions: o.Regions = None
    regions_order: o.RegionsOrder = None
    brats: o.Brats = False
    mirror_pairs: Annotated[
        str,
        typer.Option(
            metavar="PAIRS",
            rich_help_panel=PLAN,
            help="Classes that change sides when a patch is mirrored: auto (found by names with left and right), none, "
            "or 'left kidney=right kidney;3=4'.",
        ),
    ] = PlanOptions.mirror_pairs
    foreground_channel: Annotated[
        bool,
        typer.Option(
            "--foreground-channel/--no-foreground-channel",
            rich_help_panel=PLAN,
            help="Additional input channel: 1 where the image is not zero, 0 elsewhere.",
        ),
    ] = PlanOptions.foreground_channel
    set_: Set = None
    n_folds: o.NFolds = PlanOptions.n_folds
    split_seed: o.SplitSeed = PlanOptions.split_seed
    splits: o.SplitsFile = None
    group_by: o.GroupBy = None
    annotated: o.AnnotatedFile = None

    def to_plan_options(self) -> PlanOptions:
        """Return the options as the planner's :class:`PlanOptions`."""
        return PlanOptions(
            memory_gb=self.memory,
            orientation=self.orientation,
            preprocessing_order=self.preprocessing_order,
            block=self.block,
            norm=self.norm,
            regions=self.regions,
            regions_order=parse_order(self.regions_order),
            brats=self.brats,
            mirror_pairs=self.mirror_pairs,
            foreground_channel=self.foreground_channel,
            overrides=tuple(self.set_ or ()),
            n_folds=self.n_folds,
            split_seed=self.split_seed,
            splits=self.splits,
            group_by=self.group_by,
            annotated=self.annotated,
        )


@dataclass(frozen=True, kw_only=True)
class NetworkArguments:
    """Options of the network's architecture and size."""

    network: Annotated[
        NetworkName | None,
        typer.Option(
            rich_help_panel=NETWORK,
            show_default="plain",
            help="Network and the GPU memory it is planned for: nnU-Net's plain U-Net (8 GB), its residual encoders "
            "M, L and XL (8, 24, 40 GB), or MedNeXt in four sizes (8 GB).",
        ),
    ] = None
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

    def apply_to(self, options: PlanOptions) -> PlanOptions:
        """Return a copy of ``options`` with these network options."""
        return replace(
            options,
            network=self.network,
            architecture=self.architecture,
            filters=_parse_filters(self.filters),
            wide_encoder=self.wide_encoder,
            depth=self.depth,
            min_fmap=self.min_fmap,
            negative_slope=self.negative_slope,
            deep_supervision=self.deep_supervision,
            heads=self.heads,
        )


@dataclass(frozen=True, kw_only=True)
class FullPlanArguments(NetworkArguments, PlanArguments):
    """All options of the plan."""

    def to_plan_options(self) -> PlanOptions:
        """Return the options as the planner's :class:`PlanOptions`."""
        return self.apply_to(super().to_plan_options())


def _parse_filters(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in (text or "").split(",") if part.strip())
    except ValueError:
        raise OptionError(
            f"--filters {text!r} is not a list of whole numbers", remedy="write e.g. --filters 32,64,128"
        ) from None
