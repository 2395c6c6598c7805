"""Match the weights of two networks: tensors by name, input channels and outputs by theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decathlete.core.labels import LabelKind
from decathlete.models.weights import NetworkTensors
from decathlete.planning.network_spec import NetworkSpec
from decathlete.planning.plan import Plan

FOREGROUND = "(foreground)"
"""Name of the input channel that marks the foreground; it equals that of another plan."""
BACKGROUND = "(background)"
"""Name of the output of the background, whatever a dataset calls it."""
_OUTPUT_TITLES: dict[LabelKind, str] = {"classes": "{}", "regions": "region {}"}


@dataclass(frozen=True, kw_only=True)
class NameMatch:
    """Names of input channels and outputs on both sides, and the tensors whose shapes depend on them.

    Attributes:
        inputs, outputs: names of the trained network, names of the new one.
        input_axes, output_axes: name of a tensor -> axis with an entry for each input channel or output.
    """

    inputs: tuple[tuple[str, ...], tuple[str, ...]]
    outputs: tuple[tuple[str, ...], tuple[str, ...]]
    input_axes: Mapping[str, int]
    output_axes: Mapping[str, int]

    @classmethod
    def of(cls, trained: Plan, plan: Plan) -> NameMatch:
        """Return the names of a trained network's plan and of another plan."""
        return cls(
            inputs=(input_names(trained), input_names(plan)),
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

    def unknown(self, name: str) -> tuple[str, ...]:
        """Return the channels and outputs of a tensor for which the trained network has no weights."""
        new = [_unknown(*self.inputs)] if name in self.input_axes else []
        new += [_unknown(*self.outputs)] if name in self.output_axes else []
        return tuple(entry for entries in new for entry in entries)

    def describe(self) -> list[str]:
        """Return a line about the channels and one about the classes."""
        return [
            _line("channels", *self.inputs, unknown="starts from the mean of the model's channels"),
            _line("outputs", *self.outputs, unknown="starts from random weights"),
        ]


def input_names(plan: Plan) -> tuple[str, ...]:
    """Return the names of the input channels of a plan's network, those of its masks included."""
    masks = [f"(previous stage) {structure.name}" for structure in plan.labels.structures] if plan.n_previous else []
    return (*plan.channels, *([FOREGROUND] if plan.foreground_channel else []), *masks)


def _output_names(plan: Plan) -> tuple[str, ...]:
    """Return the names of the outputs; a region (sigmoid) never equals a class (softmax)."""
    title = _OUTPUT_TITLES[plan.labels.kind]
    background = [BACKGROUND] * plan.labels.n_background_outputs
    return (*background, *(title.format(structure.name) for structure in plan.labels.structures))


def _select(trained: Tensor, axis: int, old: Sequence[str], new: Sequence[str], *, unknown: Tensor) -> Tensor:
    """Return slices along ``axis`` by name; those of unknown names from ``unknown`` (one slice, or one for each)."""
    parts = []
    for place, name in enumerate(new):
        if name in old:
            parts.append(trained.narrow(axis, old.index(name), 1))
        else:
            parts.append(unknown.narrow(axis, place if unknown.shape[axis] > 1 else 0, 1))
    return torch.cat(parts, dim=axis)


def _unknown(old: Sequence[str], new: Sequence[str]) -> list[str]:
    return [name for name in new if name not in old]


def _line(title: str, old: Sequence[str], new: Sequence[str], *, unknown: str) -> str:
    known = [name for name in new if name in old]
    parts = [f"{', '.join(known)} carried over"] if known else []
    parts += [f"{name} {unknown}" for name in _unknown(old, new)]
    if unused := _unknown(new, old):
        parts.append(f"{', '.join(unused)} of the model not used")
    return f"{title}: {'; '.join(parts)}"


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
