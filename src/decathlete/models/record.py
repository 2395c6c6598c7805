"""The record of a trained model: what ``model.json`` holds, version 2.

A model has one or more *members*. A member is one plan and its networks, e.g. the folds of a cross-validation. Members
may have the same plan or different ones (2D and 3D); see :class:`Combination` for what prediction does with them.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from decathlete.core.choices import Weights
from decathlete.core.labels import LabelSet
from decathlete.core.schema import Schema
from decathlete.errors import ModelError
from decathlete.models.record_versions import MAX_NETWORKS, MODEL_VERSION, VERSION_1_WEIGHTS_FILE, from_version_1
from decathlete.planning.plan import Plan

RECORD_FILE = "model.json"
WEIGHTS_FOLDER = "weights"

FloatType = Literal["float32", "float16", "bfloat16"]


class ComponentOrigin(Schema):
    """A component that a model needs or was trained with, and the package that it comes from.

    Attributes:
        kind: e.g. ``"architecture"``.
        name: registered name.
        distribution: installed package; ``None`` for a loose module, or where it was not installed.
        version: version of ``distribution``.
    """

    kind: str
    name: str
    distribution: str | None = None
    version: str | None = None


class NetworkRecord(Schema):
    """The weights of one network.

    Attributes:
        file: path in the bundle, ``weights/NAME.safetensors`` (version 1: ``weights.safetensors``).
        prefix: prefix of the network's tensors in the file; only version 1 has several networks in one file.
        sha256: digest of the file, hexadecimal; ``None``: not recorded (only version 1).
        dtype: type of every floating-point tensor.
        n_parameters: number of learnable values; ``None``: not recorded (version 1).
        fold: fold of the cross-validation that it was trained on, ``"all"`` for all cases; ``None``: unknown.
    """

    file: str = Field(pattern=r"^weights(/[A-Za-z0-9][A-Za-z0-9_-]*(\.[0-9]+)?)?\.safetensors$")
    prefix: str = Field(default="", pattern=r"^([0-9]+\.)?$")
    sha256: str | None = Field(pattern=r"^[0-9a-f]{64}$")
    dtype: FloatType = "float32"
    n_parameters: int | None = Field(default=None, ge=1)
    fold: str | None = None

    @model_validator(mode="after")
    def _check_digest(self) -> Self:
        if self.sha256 is None and self.file != VERSION_1_WEIGHTS_FILE:
            raise ValueError("sha256 is missing")
        return self


class MemberRecord(Schema):
    """One plan and the networks that were trained by it.

    Attributes:
        name: unique within the model; letters, digits, ``_`` and ``-``.
        mirror_axes: spatial axes (0-based, working order) that training mirrored: those that test-time augmentation
            may flip.
        networks: their logits are averaged.
        weights: averaged weights of the end of training (``final``) or of the best validation (``best``).
        previous_stage: of a cascade: the member whose prediction is an additional input. That member is no output of
            the model.
        components: origins of the components that the plan names, and of those of the training.
        provenance: data, settings, time and software of the training.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    plan: Plan
    mirror_axes: tuple[int, ...] = ()
    networks: tuple[NetworkRecord, ...] = Field(min_length=1, max_length=MAX_NETWORKS)
    weights: Weights = "final"
    previous_stage: str | None = None
    components: tuple[ComponentOrigin, ...] = ()
    provenance: dict[str, JsonValue] = {}

    @model_validator(mode="after")
    def _check_axes(self) -> Self:
        axes, dims = self.mirror_axes, self.plan.dims
        if sorted(set(axes)) != list(axes) or not set(axes) <= set(range(dims)):
            raise ValueError(f"mirror_axes {axes} are not ascending axes of a {dims}D model")
        return self


class Combination(Schema):
    """How the members' outputs become one prediction.

    Attributes:
        within_plan: networks of one plan see the same windows: the mean of their logits.
        between_plans: on the image's own grid: the mean of the plans' probabilities.
        weights: weight of each member's plan in that mean, one per member; members of one plan have the same weight.
            Empty: all plans count equally.
    """

    within_plan: Literal["mean_logits"] = "mean_logits"
    between_plans: Literal["mean_probabilities"] = "mean_probabilities"
    weights: tuple[float, ...] = ()

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < weight < float("inf") for weight in weights):
            raise ValueError(f"weights must be positive and finite, they are {weights}")
        return weights


class PostprocessingStep(Schema):
    """One step of post-processing, by its registered name; see ``decathlete.inference.output.postprocessing``."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    settings: dict[str, JsonValue] = {}


def planned_postprocessing(plan: Plan) -> tuple[PostprocessingStep, ...]:
    """Return the steps that a plan gives to the models that are trained by it."""
    if not plan.keep_largest:
        return ()
    return (PostprocessingStep(name="keep_largest_component", settings={"together": True}),)


class ModelRecord(Schema):
    """Everything about a trained model except its weights.

    Attributes:
        labels: what is segmented; the labels of every member's plan.
        combination: how the members' outputs are combined.
        postprocessing: steps that change the label map, in order; empty: none.
        temperature: logits are divided by it before they become probabilities, 1e-6..1e6; above 1: less confident.
        components: origins of the steps of post-processing; models without steps have none.
        provenance: origin of the model as a whole, beside that of its members.
    """

    version: Literal[2] = MODEL_VERSION
    labels: LabelSet
    members: tuple[MemberRecord, ...] = Field(min_length=1)
    combination: Combination = Combination()
    postprocessing: tuple[PostprocessingStep, ...] = ()
    temperature: float = Field(default=1.0, ge=1e-6, le=1e6, allow_inf_nan=False)
    components: tuple[ComponentOrigin, ...] = Field(default=(), exclude_if=operator.not_)
    provenance: dict[str, JsonValue] = {}

    @model_validator(mode="before")
    @classmethod
    def _read_version_1(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        version = content.get("version", 1 if "plan" in content else MODEL_VERSION)
        if version not in (1, MODEL_VERSION):
            raise ValueError(f"version {version} is unknown: this release reads versions 1 and {MODEL_VERSION}")
        return from_version_1(content) if version == 1 else content

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [
            *self._name_problems(),
            *self._agreement_problems(),
            *self._combination_problems(),
            *self._cascade_problems(),
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _name_problems(self) -> list[str]:
        counts = Counter(member.name.lower() for member in self.members)  # file systems may ignore case
        problems = [f"{n} members are called {name!r}" for name, n in counts.items() if n > 1]
        places = Counter((n.file.lower(), n.prefix) for member in self.members for n in member.networks)
        return problems + [f"{n} networks have the weights {file}" for (file, _), n in places.items() if n > 1]

    def _agreement_problems(self) -> list[str]:
        channels = self.members[0].plan.channels
        problems = [
            f"member {m.name} has other labels than the model" for m in self.members if m.plan.labels != self.labels
        ]
        return problems + [
            f"member {m.name} has other channels than member {self.members[0].name}"
            for m in self.members
            if m.plan.channels != channels
        ]

    def _combination_problems(self) -> list[str]:
        weights = self.combination.weights
        if not weights:
            return []
        if len(weights) != len(self.members):
            return [f"combination.weights has {len(weights)} entries for {len(self.members)} members"]
        by_plan: dict[str, set[float]] = {}
        stages = {member.previous_stage for member in self.members}
        for member, weight in zip(self.members, weights, strict=True):
            if member.name not in stages:
                by_plan.setdefault(member.plan.digest, set()).add(weight)
        return ["members of one plan have different weights"] if any(len(w) > 1 for w in by_plan.values()) else []

    def _cascade_problems(self) -> list[str]:
        by_name = {member.name: member for member in self.members}
        problems = []
        for member in self.members:
            previous = member.previous_stage
            if (member.plan.previous_stage is None) != (previous is None):
                has, needs = ("has no", "needs one") if previous is None else ("has a", "needs none")
                problems.append(f"member {member.name} {has} previous_stage, and its plan {needs}")
            elif previous is not None and (previous == member.name or previous not in by_name):
                problems.append(f"member {member.name}: previous_stage {previous!r} is not another member")
            elif previous is not None and by_name[previous].previous_stage is not None:
                problems.append(f"member {member.name}: previous_stage {previous!r} has a previous stage itself")
        return problems

    @property
    def outputs(self) -> tuple[MemberRecord, ...]:
        """The members whose outputs are combined: all but the first stages of cascades."""
        stages = {member.previous_stage for member in self.members}
        return tuple(member for member in self.members if member.name not in stages)

    @property
    def is_cascade(self) -> bool:
        """Whether a member has a previous stage."""
        return len(self.outputs) < len(self.members)

    @property
    def plan(self) -> Plan:
        """The plan that all members share.

        Raises:
            ModelError: they have different plans; a cascade has two.
        """
        return common_plan(self.members)

    @property
    def output_plan(self) -> Plan:
        """The plan that all outputs share; of a cascade, that of its second stage.

        Raises:
            ModelError: they have different plans.
        """
        return common_plan(self.outputs)

    @property
    def mirror_axes(self) -> tuple[int, ...]:
        """Axes that the training of *all* members mirrored."""
        return tuple(sorted(set.intersection(*(set(member.mirror_axes) for member in self.outputs))))

    @property
    def n_networks(self) -> int:
        """Number of networks of all members."""
        return sum(len(member.networks) for member in self.members)

    @property
    def weights(self) -> str:
        """``final`` or ``best``; both if members differ."""
        return ", ".join(sorted({member.weights for member in self.members}))

    @property
    def training_provenance(self) -> dict[str, JsonValue]:
        """Provenance of the first output, then of the model as a whole."""
        return {**self.outputs[0].provenance, **self.provenance}


def common_plan(members: Sequence[MemberRecord]) -> Plan:
    """Return the plan that members share.

    Raises:
        ModelError: they have different plans.
    """
    if len({member.plan.digest for member in members}) > 1:
        raise ModelError(
            f"has members with different plans ({', '.join(member.name for member in members)})",
            remedy="use it for prediction, or choose a model of one plan",
            code="E-MODEL-SEVERAL-PLANS",
        )
    return members[0].plan
