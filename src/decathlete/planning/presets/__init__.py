"""Presets: settings of other programs, for ``--preset``. The numbers are in JSON files beside this module."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any, Literal

from decathlete.core.geometry import Triple
from decathlete.core.schema import Schema
from decathlete.planning.network_spec import Axes, Dims

_NUMBERED = re.compile(r"(?:Task|Dataset)([0-9]{1,9})_(.+)")
_TASK_NAME = re.compile(r"(?:Task)?([0-9]{1,9})(?:_.*)?", re.IGNORECASE)


class CtStatistics(Schema):
    """Statistics of the foreground's intensities, HU."""

    clip_low: float
    clip_high: float
    mean: float
    std: float


class TaskSetting(Schema):
    """Fixed settings of one dataset; axes are z, y, x.

    Attributes:
        channels: names of the channels in its dataset.json.
        labels: names of the foreground classes, with the values 1, 2, ...
        patch_2d: patch size in plane, voxels; ``None``: 2D models of this task are planned.
        spacing: target spacing, mm; 2D models use the spacing in plane.
    """

    number: int
    name: str
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    patch_3d: Axes
    spacing: Triple
    patch_2d: Axes | None = None
    ct: CtStatistics | None = None

    @property
    def folder(self) -> str:
        """Name of the dataset's folder: ``Task04_Hippocampus``."""
        return f"Task{self.number:02d}_{self.name}"

    def patch(self, dims: Dims) -> Axes | None:
        """Return the fixed patch size, if there is one."""
        return self.patch_3d if dims == 3 else self.patch_2d

    def assignments(self, dims: Dims) -> tuple[str, ...]:
        """Return the settings as ``--set`` assignments; none for a model without a fixed patch."""
        patch = self.patch(dims)
        if patch is None:
            return ()
        first, second, third = self.spacing
        through = first if dims == 3 else "none"
        ct = {} if self.ct is None else {"name": "ct", **self.ct.model_dump()}
        return (
            "axis_order=0,1,2",
            f"target_spacing={through},{second},{third}",
            f"patch_size={','.join(map(str, patch))}",
            *(f"normalization.0.{field}={value}" for field, value in ct.items()),
        )


class Preset(Schema):
    """Defaults that replace those of this package.

    Attributes:
        plan: fields of :class:`~decathlete.planning.options.PlanOptions`.
        train: options of the training, in 2D and 3D.
        nvol_2d: number of volumes that a 2D batch is drawn from.
    """

    about: str
    plan: dict[str, Any]
    batch_size_2d: int
    batch_size_3d: int
    train: dict[str, Any]
    nvol_2d: int
    tasks: tuple[TaskSetting, ...]

    def assignments(self, dataset: str, dims: Dims) -> tuple[str, ...]:
        """Return the fixed settings of a dataset (a folder's name): its batch size; for a known task also its patch."""
        batch = self.batch_size_3d if dims == 3 else self.batch_size_2d
        task = self._task(dataset)
        return (f"batch_size={batch}", *(task.assignments(dims) if task else ()))

    def task(self, name: str) -> TaskSetting | None:
        """Return the task with a number or folder name (``4``, ``04``, ``Task04_Hippocampus``), if it is known."""
        found = _TASK_NAME.fullmatch(name)
        return next((t for t in self.tasks if found and t.number == int(found[1])), None)

    def _task(self, dataset: str) -> TaskSetting | None:
        match = _NUMBERED.fullmatch(dataset)
        if match is None:
            return None
        wanted = (int(match[1]), match[2].casefold())
        return next((t for t in self.tasks if (t.number, t.name.casefold()) == wanted), None)


def load_preset(name: Literal["recipe"]) -> Preset:
    """Return a preset of this package."""
    return Preset.model_validate_json(files(__package__).joinpath(f"{name}.json").read_text("utf-8"))
