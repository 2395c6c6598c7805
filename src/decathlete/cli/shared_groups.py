"""Options that go together in several commands, and what they become: plan, training, prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from decathlete.cli import options as o
from decathlete.core.choices import (
    Block,
    Layout,
    Norm,
    Order,
    Orientation,
    PrecisionChoice,
    PresetName,
)
from decathlete.core.regions import parse_order
from decathlete.planning.options import PlanOptions

if TYPE_CHECKING:
    from decathlete.inference.options import PredictOptions
    from decathlete.training.config import TrainConfig

PLAN, LENGTH, TRAINING = "Plan", "Length of training", "Training"

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        rich_help_panel=PLAN,
        help="Value of a field of the plan (patch_size=40,56,40) or of the training (loss.gamma=1.5, "
        "augmentation.gamma.probability=0.1). Can be repeated.",
    ),
]
Adapt = Annotated[
    bool,
    typer.Option(
        "--adapt/--no-adapt",
        rich_help_panel=PLAN,
        help="Adapt the plan to a CPU or a short training: narrower network, smaller batch and patch, no mirroring.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class PlanArguments:
    """What a user says about the plan and the split."""

    memory: Annotated[
        float,
        typer.Option(
            metavar="GB",
            min=0.5,
            rich_help_panel=PLAN,
            help="GPU memory for which patch and batch size are planned, GB.",
        ),
    ] = PlanOptions.memory_gb
    orientation: Annotated[
        Orientation,
        typer.Option(
            rich_help_panel=PLAN, help="Orientation of the images: reoriented to RAS (canonical), or as stored."
        ),
    ] = PlanOptions.orientation
    order: Annotated[
        Order,
        typer.Option(
            rich_help_panel=PLAN,
            help="Order of preprocessing: nnunet normalises, then resamples; recipe does the reverse.",
        ),
    ] = PlanOptions.order
    block: Annotated[
        Block, typer.Option(rich_help_panel=PLAN, help="Blocks of the encoder; residual blocks are slower.")
    ] = PlanOptions.block
    norm: Annotated[Norm, typer.Option(rich_help_panel=PLAN, help="Normalisation layers of the network.")] = (
        PlanOptions.norm
    )
    regions: o.Regions = None
    regions_order: o.RegionsOrder = None
    brats: o.Brats = False
    foreground_channel: Annotated[
        bool,
        typer.Option(
            "--foreground-channel/--no-foreground-channel",
            rich_help_panel=PLAN,
            help="Additional input channel: 1 where the image is not zero, 0 elsewhere.",
        ),
    ] = PlanOptions.foreground_channel
    set_: Set = None
    n_folds: Annotated[int, typer.Option(metavar="N", min=2, rich_help_panel=o.SPLIT, help="Number of folds.")] = (
        PlanOptions.n_folds
    )
    split_seed: Annotated[
        int,
        typer.Option(metavar="N", rich_help_panel=o.SPLIT, help="Seed of the random split."),
    ] = PlanOptions.split_seed
    group_by: o.GroupBy = None

    def options(self) -> PlanOptions:
        """For the planner."""
        return PlanOptions(
            memory_gb=self.memory,
            orientation=self.orientation,
            order=self.order,
            block=self.block,
            norm=self.norm,
            regions=self.regions,
            regions_order=parse_order(self.regions_order),
            brats=self.brats,
            foreground_channel=self.foreground_channel,
            overrides=tuple(self.set_ or ()),
            n_folds=self.n_folds,
            split_seed=self.split_seed,
            group_by=self.group_by,
        )


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """What a user says about the training; a field is called as in :class:`TrainConfig`."""

    max_time: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            rich_help_panel=LENGTH,
            help="Training time of each fold, validation included: 90s, 20m, 1h30m. Not with --epochs.",
        ),
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default="1000, if no --max-time",
            rich_help_panel=LENGTH,
            help="Number of epochs.",
        ),
    ] = None
    steps_per_epoch: Annotated[
        int,
        typer.Option(metavar="N", min=1, rich_help_panel=LENGTH, help="Optimizer steps in an epoch, with --epochs."),
    ] = 250
    patience: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default="never",
            rich_help_panel=LENGTH,
            help="Early stopping: number of validations without a better Dice.",
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default="the plan's",
            rich_help_panel=TRAINING,
            help="Patches per device and step.",
        ),
    ] = None
    optimizer: Annotated[str, o.component("decathlete.training.objective.optimizers", "Optimizer", TRAINING)] = "sgd"
    learning_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            show_default="sgd 0.1, adamw 5e-3, adam 1e-3",
            rich_help_panel=TRAINING,
            help="Peak learning rate; the schedule lowers it.",
        ),
    ] = None
    schedule: Annotated[
        str, o.component("decathlete.training.objective.schedules", "Learning-rate schedule", TRAINING)
    ] = "cosine"
    loss: Annotated[str, o.component("decathlete.training.objective.losses", "Loss added to the Dice", TRAINING)] = (
        "cross_entropy"
    )
    augment: Annotated[
        bool,
        typer.Option(
            "--augment/--no-augment",
            rich_help_panel=TRAINING,
            help="Data augmentation: random rotation, scaling, mirroring, noise, blur, ...",
        ),
    ] = True
    seed: Annotated[
        int,
        typer.Option(
            metavar="N",
            rich_help_panel=TRAINING,
            help="Seed of initial weights, patches and augmentation; the same seed repeats a training.",
        ),
    ] = 1
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic/--no-deterministic",
            rich_help_panel=TRAINING,
            help="Bit-for-bit repeatable training on CUDA, slower; on CPUs it always is.",
        ),
    ] = False
    precision: o.Precision = "auto"
    layout: o.Layout = "auto"
    device: o.Device = "auto"
    devices: o.Devices = 1

    def config(
        self,
        said: Mapping[str, Any] | None = None,
        *,
        nodes: int = 1,
        preset: PresetName | None = None,
        dims: Literal[2, 3] | None = None,
        fold: int | Literal["all"] | None = None,
        assigned: Mapping[str, Any] | None = None,
    ) -> TrainConfig:
        """The config of the training.

        Args:
            said: what the user has set; all else is the preset's or our default, and may be without effect. ``None``:
                what differs from these defaults.
            assigned: by ``--set``, dotted name -> value.
        """
        from decathlete.workflows.train import train_config

        if said is None:
            said = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        options = self.among(said) | dict(assigned or {})
        return train_config(**options, nodes=nodes, preset=preset, dims=dims, fold=fold)

    def among(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """What the user has said about the training, as ``train_config`` takes it."""
        return {f.name: said[f.name] for f in fields(self) if f.name in said}


@dataclass(frozen=True, kw_only=True)
class SweepArguments:
    """How a model is slid over an image."""

    tta: o.Tta = False
    overlap: o.Overlap = 0.5
    blend: o.Blend = "gaussian"

    def options(
        self, *, device: str, precision: PrecisionChoice, layout: Layout = "auto", engine: str = "auto"
    ) -> PredictOptions:
        """Return the options of a prediction."""
        from decathlete.core.sliding_window import SlidingWindow
        from decathlete.inference.options import PredictOptions

        window = SlidingWindow(**vars(self))
        return PredictOptions(window=window, device=device, precision=precision, layout=layout, engine=engine)


@dataclass(frozen=True, kw_only=True)
class WindowArguments(SweepArguments):
    """The same where nothing is trained: ``run`` has a ``--batch-size`` of its own, the training's."""

    batch_size: o.Windows = None
    memory_gb: o.SumsMemory = None
