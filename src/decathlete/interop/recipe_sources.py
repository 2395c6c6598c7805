"""Where the settings of a model that NVIDIA's recipe trained may come from."""

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
class Sources:
    """Where settings may come from.

    Attributes:
        named_by: how the task was found, for reasons.
    """

    network: UNetSpec
    args: RecipeArgs
    options: DynUNetOptions
    task: TaskSetting | None
    named_by: str
    dataset: DatasetSpec | None
    checkpoint: Path

    @classmethod
    def find(cls, network: UNetSpec, args: RecipeArgs, options: DynUNetOptions, checkpoint: Path) -> Sources:
        """Look the task up and read the dataset's manifest.

        Raises:
            OptionError: no such task, or another than the checkpoint's.
            ManifestError: the dataset's manifest cannot be used.
        """
        preset = load_preset("recipe")
        asked_for, said = options.task, args.task
        task = preset.task(asked_for or said or "")
        if asked_for and task is None:
            last = max(t.number for t in preset.tasks)
            raise OptionError(
                f"--task {asked_for!r} is none of the recipe's, 01 to {last}",
                remedy="leave it out and give --patch-size, --spacing, --channels and --labels (or --dataset)",
            )
        other = preset.task(said or "")
        if asked_for and task and other and task.number != other.number:
            raise OptionError(
                f"--task {asked_for}: the checkpoint says it was trained on task {said} ({other.name})",
                where=checkpoint,
                remedy=f"give --task {said}; or leave it out and give every setting by its own option",
            )
        return cls(
            network=network,
            args=args,
            options=options,
            task=task,
            named_by="--task" if asked_for else "the checkpoint",
            dataset=None if options.dataset is None else read_dataset(options.dataset),
            checkpoint=checkpoint,
        )

    @property
    def from_task(self) -> str:
        """A reason."""
        return f"the recipe's for {self.task.folder}, the task that {self.named_by} names" if self.task else ""
