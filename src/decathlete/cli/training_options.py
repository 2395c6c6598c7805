"""Common options of a training. ``advanced_training_options`` adds the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from decathlete.cli import options as o
from decathlete.core.choices import PresetName
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.training.config import TrainConfig

LENGTH, TRAINING = "Length of training", "Training"


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Common options of a training. Each field has the name of a field of :class:`TrainConfig`."""

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
    optimizer: Annotated[str, o.component_option("decathlete.training.objective.optimizers", "Optimizer", TRAINING)] = (
        "sgd"
    )
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
        str, o.component_option("decathlete.training.objective.schedules", "Learning-rate schedule", TRAINING)
    ] = "cosine"
    loss: Annotated[
        str,
        o.component_option(
            "decathlete.training.objective.losses",
            "Loss",
            TRAINING,
            note="cross_entropy and focal contain the Dice; the others are used alone, or as terms of combined",
        ),
    ] = "cross_entropy"
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
            help="Seed of initial weights, patches and augmentation; with --epochs, the same seed repeats a training.",
        ),
    ] = 1
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic/--no-deterministic",
            rich_help_panel=TRAINING,
            help="Bit-for-bit repeatable training by --epochs on CUDA, slower; CPUs always repeat it.",
        ),
    ] = False
    pretrained: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=TRAINING,
            show_default="random weights",
            help="Folder of a run or model whose weights the training starts from; channels and classes are matched by "
            "name. The learning rate is then a tenth, with a warm-up.",
        ),
    ] = None
    freeze_stages: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            rich_help_panel=TRAINING,
            help="First stages of the encoder that keep the weights of --pretrained.",
        ),
    ] = 0
    precision: o.Precision = "auto"
    layout: o.Layout = "auto"
    device: o.Device = "auto"
    devices: o.Devices = 1

    def to_train_config(
        self,
        explicit: Mapping[str, Any] | None = None,
        *,
        nodes: int = 1,
        preset: PresetName | None = None,
        dims: Literal[2, 3] | None = None,
        fold: int | Literal["all"] | None = None,
        assigned: Mapping[str, Any] | None = None,
    ) -> TrainConfig:
        """Return the options as a :class:`TrainConfig`.

        Args:
            explicit: option name -> value of the options that the user has set. Of these, one without effect is an
                error; all others have the preset's value or the default. ``None``: all that differ from the default.
            nodes: number of machines.
            preset: source of other defaults.
            dims: dimensions of the model.
            fold: fold that is held out.
            assigned: values set by ``--set``, dotted name -> value.

        Raises:
            OptionError: options contradict each other or have no effect.
        """
        from decathlete.workflows.train import train_config

        if explicit is None:
            explicit = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        chosen = self.select(explicit)
        _reject_repeated(chosen, assigned or {})
        options = chosen | dict(assigned or {})
        return train_config(**options, nodes=nodes, preset=preset, dims=dims, fold=fold)

    def select(self, explicit: Mapping[str, Any]) -> dict[str, Any]:
        """Return the explicit options that belong to the training."""
        return {f.name: explicit[f.name] for f in fields(self) if f.name in explicit}


def _reject_repeated(options: Mapping[str, Any], assigned: Mapping[str, Any]) -> None:
    """Reject a setting that an option and ``--set`` both choose: one of them would have no effect."""
    from decathlete.training.short_forms import SHORT_FORMS

    by_path = {SHORT_FORMS.get(name, name): name for name, value in options.items() if value is not None}
    for name in assigned:
        if option := by_path.get(SHORT_FORMS.get(name, name)):
            shown = option.replace("_", "-")
            raise OptionError(
                f"--{shown} and --set {name} choose the same setting",
                remedy="use one of them",
                code="E-OPTION-CONFLICT",
            )
