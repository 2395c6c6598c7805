"""Plans for random data: the patches that NVIDIA's nnU-Net for PyTorch fixes for each task of the Decathlon."""

from __future__ import annotations

from decathlete.core.geometry import Shape
from decathlete.core.labels import LabelSet
from decathlete.errors import OptionError
from decathlete.planning.architectures import find_architecture
from decathlete.planning.network_spec import Axes, Dims
from decathlete.planning.normalizations import NORMALIZATIONS
from decathlete.planning.options import PlanOptions
from decathlete.planning.plan import Plan, Range, TrainingRanges
from decathlete.planning.presets import TaskSetting, load_preset
from decathlete.planning.topology import make_topology

SCAN: Shape = (155, 240, 240)
"""Of the BraTS scans, voxels: how large random volumes are."""


def fixed_task(task: str) -> TaskSetting:
    """The settings of a task given by number or folder name (``04``, ``Task04_Hippocampus``).

    Raises:
        OptionError: it is none of the Decathlon's.
    """
    preset = load_preset("recipe")
    found = preset.task(task)
    if found is None:
        last = max(setting.number for setting in preset.tasks)
        raise OptionError(
            f"random data are made like those of the Decathlon's tasks 01 to {last}, not like {task!r}",
            remedy="give one of them, or --real for your own prepared data",
        )
    return found


def random_plan(task: str, dims: Dims, options: PlanOptions = PlanOptions()) -> Plan:
    """A plan with the task's fixed patch and the network that the planner's rules and ``options`` make for it.

    Raises:
        OptionError: no such task, or none with a fixed patch in 2D.
    """
    fixed = fixed_task(task)
    patch = _patch(fixed, dims)
    n_channels = len(fixed.channels)
    labels = LabelSet.from_names(list(fixed.labels))
    architecture = find_architecture(options)
    topology = make_topology(fixed.spacing[-dims:], patch, pooling=architecture.pooling(options))
    network = architecture.plan_spec(topology, in_channels=n_channels, out_channels=labels.n_outputs, options=options)
    preset, anything = load_preset("recipe"), Range(low=float("-inf"), high=float("inf"))
    return Plan(
        dataset=f"random, as {fixed.name}",
        dims=dims,
        channels=fixed.channels,
        labels=labels,
        target_spacing=(fixed.spacing[0] if dims == 3 else None, *fixed.spacing[1:]),
        median_shape=SCAN,
        patch_size=topology.patch_size,
        batch_size=preset.batch_size_3d if dims == 3 else preset.batch_size_2d,
        normalization=(NORMALIZATIONS.settings("none"),) * n_channels,
        network=network,
        training_ranges=TrainingRanges(
            spacing=(anything,) * 3, size=(anything,) * 3, intensity=(anything,) * n_channels
        ),
        fingerprint_digest="",
        reasons={"patch_size": f"fixed for the Decathlon's {fixed.name} by NVIDIA's nnU-Net for PyTorch"},
    )


def _patch(fixed: TaskSetting, dims: Dims) -> Axes:
    patch = fixed.patch(dims)
    if patch is None:
        raise OptionError(f"task {fixed.number} has no fixed patch in 2D", remedy="give --dim 3, or another --task")
    return patch
