"""Start a training from the weights of a trained model: channels and classes are matched by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch
from torch import Tensor, nn

from decathlete.core.labels import LabelKind
from decathlete.errors import ModelError, OptionError
from decathlete.models.bundle import BundleMember, ModelBundle
from decathlete.models.weights import NetworkTensors
from decathlete.networks.build import build_network
from decathlete.planning.network_spec import Dims, NetworkSpec
from decathlete.planning.plan import Plan
from decathlete.training.config import TrainConfig

FOREGROUND = "(foreground)"
"""Name of the input channel that marks the foreground; it equals that of another plan."""
BACKGROUND = "(background)"
_OUTPUT_TITLES: dict[LabelKind, str] = {"classes": "{}", "regions": "region {}"}
"""Name of the output of the background, whatever a dataset calls it."""
_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What a network took over from a trained model.

    Attributes:
        carried: names of the tensors that have values of the trained model, wholly or for some channels or classes.
        fresh: names of the tensors that the trained model lacks or has in another shape.
        lines: a summary for the user.
    """

    carried: tuple[str, ...]
    fresh: tuple[str, ...]
    lines: tuple[str, ...]


def open_pretrained(folder: Path, plan: Plan) -> BundleMember:
    """Return the member of a model whose network has the plan's dimensions and architecture.

    Of several, one with the plan's configuration is preferred: of a cascade, the stage that is trained.

    Raises:
        ModelError: there is no model, or it has no such member.
    """
    fitting = find_members(folder, dims=plan.dims, architecture=plan.network.architecture)
    same = [member for member in fitting if member.plan.configuration_name == plan.configuration_name]
    return (same or fitting)[0]


def find_members(folder: Path, *, dims: Dims, architecture: str) -> list[BundleMember]:
    """Return the members of a model whose networks have these dimensions and this architecture.

    Raises:
        ModelError: there is no model, or it has no such member.
    """
    members = ModelBundle.load(folder).members
    fitting = [m for m in members if (m.plan.dims, m.plan.network.architecture) == (dims, architecture)]
    if fitting:
        return fitting
    found = ", ".join(f"{m.plan.dims}D {m.plan.network.architecture}" for m in members)
    raise ModelError(
        f"has networks of other kinds ({found}) than the training ({dims}D {architecture})",
        where=folder,
        remedy=f"use a model with a {dims}D {architecture} network, or train only what this model has networks for "
        "(--dim, --configurations, --architecture)",
        code="E-MODEL-UNSUPPORTED",
    )


def check_pretrained(config: TrainConfig, *, dims: Dims, architecture: str, has_own_network: bool) -> None:
    """Check what is known before the training: that a network of the model to start from can be trained further.

    Args:
        config: settings of the training, with the model to start from, if any.
        has_own_network: the user sets the network, so that it is not the model's.

    Raises:
        ModelError: see :func:`find_members`.
        OptionError: the encoder has fewer stages than are not trained.
    """
    if config.pretrained is None:
        return
    members = find_members(Path(config.pretrained), dims=dims, architecture=architecture)
    if config.freeze_stages and not has_own_network:
        with torch.device("meta"):
            freeze_stages(build_network(members[0].plan.network), config.freeze_stages)


def sets_network(plan: Plan) -> bool:
    """Return whether the user has set the network of a plan, or a part of it."""
    return any(field.partition(".")[0] == "network" for field in plan.user_set)


def with_pretrained_network(plan: Plan, folder: Path) -> Plan:
    """Return the plan with the network of a trained model, so that all its weights can be used.

    Input channels and outputs stay the plan's, and the patch is rounded up to a multiple of the network's strides. A
    network that the user set stays as it is.

    Raises:
        ModelError: see :func:`open_pretrained`.
    """
    source = open_pretrained(folder, plan).plan.network
    if sets_network(plan):
        return plan
    network = source.revised(in_channels=plan.network.in_channels, out_channels=plan.network.out_channels)
    if network == plan.network:
        return plan
    patch = [ceil(n / d) * d for n, d in zip(plan.patch_size, network.divisor, strict=True)]
    if tuple(patch) == tuple(network.divisor):
        patch[-1] *= 2  # instance norm needs more than one voxel in the coarsest feature map
    reasons = plan.reasons | {"network": f"the network of the pretrained model {folder}"}
    return plan.revised(network=network, patch_size=tuple(patch), reasons=reasons)


def load_pretrained(network: nn.Module, plan: Plan, folder: Path) -> Transfer:
    """Put the weights of a trained model into ``network``, in place.

    Tensors of the same name and shape are copied. Weights of input channels and outputs are copied by name. An input
    channel that the model does not know starts from the mean of its channels, a class from its random weights.

    Args:
        network: built by ``plan``, with random weights.

    Raises:
        ModelError: see :func:`open_pretrained`, or no weight fits.
    """
    member = open_pretrained(folder, plan)
    trained = member.build(number=0).state_dict()
    names = _Names.of(member.plan, plan)
    state = network.state_dict()
    carried: list[str] = []
    fresh: list[str] = []
    for name, value in state.items():
        found = names.fit(name, trained.get(name), value)
        (fresh if found is None else carried).append(name)
        if found is not None:
            with torch.no_grad():
                value.copy_(found)
    n_carried = sum(state[name].numel() for name in carried)
    if not n_carried:
        raise ModelError(
            "has no weight that fits the network of this training",
            where=folder,
            remedy="leave out the options that change the network (--block, --filters, --set network...)",
            code="E-MODEL-UNSUPPORTED",
        )
    share = n_carried / sum(value.numel() for value in state.values())
    lines = [
        f"pretrained: {len(carried)} of {len(state)} tensors ({share:.0%} of the weights) from {folder}, "
        f"network {member.record.name}",
        *names.describe(),
    ]
    if fresh:
        listed = ", ".join(fresh[:_LISTED]) + (", ..." if len(fresh) > _LISTED else "")
        lines.append(f"not carried over (absent or of another shape): {listed}")
    return Transfer(carried=tuple(carried), fresh=tuple(fresh), lines=tuple(lines))


def freeze_stages(network: nn.Module, n_stages: int) -> None:
    """Exclude the weights of the first stages of the encoder from training.

    Raises:
        OptionError: the network has no encoder, or no more stages than that.
    """
    if not n_stages:
        return
    encoder = getattr(network, "encoder", None)
    n_found = len(encoder) if isinstance(encoder, nn.ModuleList) else 0
    if not isinstance(encoder, nn.ModuleList) or n_stages >= n_found:
        raise OptionError(
            f"--freeze-stages {n_stages}: the network's encoder has {n_found} stage(s), and one must be trained",
            remedy=f"use at most {max(n_found - 1, 0)}",
        )
    for stage in encoder[:n_stages]:
        stage.requires_grad_(False)


@dataclass(frozen=True, kw_only=True)
class _Names:
    """Names of input channels and outputs on both sides, and the tensors whose shapes depend on them."""

    inputs: tuple[tuple[str, ...], tuple[str, ...]]
    outputs: tuple[tuple[str, ...], tuple[str, ...]]
    input_axes: Mapping[str, int]
    output_axes: Mapping[str, int]

    @classmethod
    def of(cls, trained: Plan, plan: Plan) -> _Names:
        return cls(
            inputs=(_input_names(trained), _input_names(plan)),
            outputs=(_output_names(trained), _output_names(plan)),
            input_axes=_dependent_axes(plan.network, "in_channels"),
            output_axes=_dependent_axes(plan.network, "out_channels"),
        )

    def fit(self, name: str, trained: Tensor | None, fresh: Tensor) -> Tensor | None:
        """Return the tensor of a trained network in the shape of ``fresh``; ``None``: it does not fit."""
        if trained is None or trained.ndim != fresh.ndim:
            return None
        if (axis := self.input_axes.get(name)) is not None:
            trained = _select(trained, axis, *self.inputs, unknown=trained.mean(axis, keepdim=True))
        if (axis := self.output_axes.get(name)) is not None:
            if not set(self.outputs[0]) & set(self.outputs[1]):
                return None
            kept = fresh.to(trained)
            if kept.movedim(axis, 0).shape[1:] != trained.movedim(axis, 0).shape[1:]:
                return None
            trained = _select(trained, axis, *self.outputs, unknown=kept)
        return trained if trained.shape == fresh.shape else None

    def describe(self) -> list[str]:
        """Return a line about the channels and one about the classes."""
        return [
            _line("channels", *self.inputs, unknown="starts from the mean of the model's channels"),
            _line("outputs", *self.outputs, unknown="starts from random weights"),
        ]


def _select(trained: Tensor, axis: int, old: Sequence[str], new: Sequence[str], *, unknown: Tensor) -> Tensor:
    """Return slices along ``axis`` by name; those of unknown names from ``unknown`` (one slice, or one for each)."""
    parts = []
    for place, name in enumerate(new):
        if name in old:
            parts.append(trained.narrow(axis, old.index(name), 1))
        else:
            parts.append(unknown.narrow(axis, place if unknown.shape[axis] > 1 else 0, 1))
    return torch.cat(parts, dim=axis)


def _line(title: str, old: Sequence[str], new: Sequence[str], *, unknown: str) -> str:
    known = [name for name in new if name in old]
    parts = [f"{', '.join(known)} carried over"] if known else []
    parts += [f"{name} {unknown}" for name in new if name not in old]
    if unused := [name for name in old if name not in new]:
        parts.append(f"{', '.join(unused)} of the model not used")
    return f"{title}: {'; '.join(parts)}"


def _input_names(plan: Plan) -> tuple[str, ...]:
    masks = [f"(previous stage) {structure.name}" for structure in plan.labels.structures] if plan.n_previous else []
    return (*plan.channels, *([FOREGROUND] if plan.foreground_channel else []), *masks)


def _output_names(plan: Plan) -> tuple[str, ...]:
    """Return the names of the outputs; a region (sigmoid) never equals a class (softmax)."""
    title = _OUTPUT_TITLES[plan.labels.kind]
    background = [BACKGROUND] * plan.labels.n_background_outputs
    return (*background, *(title.format(structure.name) for structure in plan.labels.structures))


def _dependent_axes(spec: NetworkSpec, field: str) -> dict[str, int]:
    """Return the tensors whose shape depends on a number of channels of the network, and the axis that does."""
    now = NetworkTensors.of(spec).types
    more = NetworkTensors.of(spec.revised(**{field: getattr(spec, field) + 1})).types
    axes = {}
    for name, tensor in now.items():
        differing = [axis for axis, (a, b) in enumerate(zip(tensor.shape, more[name].shape, strict=True)) if a != b]
        if differing:
            axes[name] = differing[0]
    return axes
