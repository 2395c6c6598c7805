"""Sources of the settings of a model trained by NVIDIA's recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import DatasetSpec
from decathlete.errors import OptionError
from decathlete.interop.dynunet_options import DynUNetOptions
from decathlete.interop.recipe_args import RecipeArgs
from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.presets import TaskSetting, load_preset


@dataclass(frozen=True, kw_only=True)
class SettingSources:
    """Sources of the settings of a model.

    Attributes:
        network: network derived from the weights.
        args: options in the checkpoint.
        options: options of the import.
        task: settings of the recipe's task, if it is known.
        task_source: ``--task`` or the checkpoint, for reasons.
        dataset: dataset of the option ``dataset``.
        checkpoint: path of the checkpoint, for messages.
    """

    network: UNetSpec
    args: RecipeArgs
    options: DynUNetOptions
    task: TaskSetting | None
    task_source: str
    dataset: DatasetSpec | None
    checkpoint: Path

    @classmethod
    def collect(cls, network: UNetSpec, args: RecipeArgs, options: DynUNetOptions, checkpoint: Path) -> SettingSources:
        """Look up the task and read the dataset's manifest.

        Raises:
            OptionError: there is no such task, or the checkpoint names another one.
            ManifestError: the dataset's manifest is not valid.
        """
        preset = load_preset("recipe")
        option, checkpoint_task = options.task, args.task
        task = preset.task(option or checkpoint_task or "")
        if option and task is None:
            last = max(t.number for t in preset.tasks)
            raise OptionError(
                f"--task {option!r} is not a task of the recipe (01 to {last})",
                remedy="leave it out and use --patch-size, --spacing, --channels and --labels (or --dataset)",
            )
        other = preset.task(checkpoint_task or "")
        if option and task and other and task.number != other.number:
            raise OptionError(
                f"--task {option}: the checkpoint was trained on task {checkpoint_task} ({other.name})",
                where=checkpoint,
                remedy=f"use --task {checkpoint_task}, or leave it out and set every setting by its own option",
            )
        return cls(
            network=network,
            args=args,
            options=options,
            task=task,
            task_source="--task" if option else "the checkpoint",
            dataset=None if options.dataset is None else read_dataset(options.dataset),
            checkpoint=checkpoint,
        )

    @property
    def from_task(self) -> str:
        """Reason of a setting that comes from the task."""
        return (
            f"the recipe's setting for {self.task.folder}, the task that {self.task_source} names" if self.task else ""
        )
