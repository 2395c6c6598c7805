"""Plans for random data, with the patch sizes of NVIDIA's nnU-Net for PyTorch for the Decathlon tasks."""

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

RANDOM_VOLUME_SHAPE: Shape = (155, 240, 240)
"""Shape of random volumes, voxels: that of BraTS scans."""


def find_task_setting(task: str) -> TaskSetting:
    """Return the settings of a task by its number or folder name (``04``, ``Task04_Hippocampus``).

    Raises:
        OptionError: there is no such task in the Decathlon.
    """
    preset = load_preset("recipe")
    setting = preset.task(task)
    if setting is None:
        last = max(t.number for t in preset.tasks)
        raise OptionError(
            f"--task {task!r} is not a Decathlon task (01 to {last}), which sets the patch size of random data",
            remedy="use one of these tasks, or --real for your own prepared data",
        )
    return setting


def make_random_plan(task: str, dims: Dims, options: PlanOptions = PlanOptions()) -> Plan:
    """Make a plan with the patch size of a task and the network that the planner makes for it.

    Args:
        task: number or folder name of a Decathlon task.
        dims: dimensions of the network.
        options: options of the network.

    Raises:
        OptionError: there is no such task, or it has no 2D patch size.
    """
    setting = find_task_setting(task)
    patch = _patch_size(setting, dims)
    n_channels = len(setting.channels)
    labels = LabelSet.from_names(list(setting.labels))
    architecture = find_architecture(options)
    topology = make_topology(setting.spacing[-dims:], patch, pooling=architecture.pooling(options))
    network = architecture.plan_spec(topology, in_channels=n_channels, out_channels=labels.n_outputs, options=options)
    preset, unlimited = load_preset("recipe"), Range(low=float("-inf"), high=float("inf"))
    return Plan(
        dataset=f"random, as {setting.name}",
        dims=dims,
        channels=setting.channels,
        labels=labels,
        target_spacing=(setting.spacing[0] if dims == 3 else None, *setting.spacing[1:]),
        median_shape=RANDOM_VOLUME_SHAPE,
        patch_size=topology.patch_size,
        batch_size=preset.batch_size_3d if dims == 3 else preset.batch_size_2d,
        normalization=(NORMALIZATIONS.settings("none"),) * n_channels,
        network=network,
        training_ranges=TrainingRanges(
            spacing=(unlimited,) * 3, size=(unlimited,) * 3, intensity=(unlimited,) * n_channels
        ),
        fingerprint_digest="",
        reasons={"patch_size": f"patch size for the Decathlon's {setting.name} in NVIDIA's nnU-Net for PyTorch"},
    )


def _patch_size(setting: TaskSetting, dims: Dims) -> Axes:
    patch = setting.patch(dims)
    if patch is None:
        raise OptionError(f"task {setting.number} has no fixed 2D patch size", remedy="use --dim 3 or another --task")
    return patch
