"""The plan: every decision about one model of one dataset, with the reason for each in words.

All sizes and spacings are in the *working order* of the axes: the stored array is reoriented
(``orientation``), then its axes are permuted (``axis_order``, the coarsest first). 2D models see slices across the
first working axis.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from decathlete.core.choices import ForegroundRule, Order, Orientation
from decathlete.core.files import value_digest
from decathlete.core.geometry import AxisTransform, Geometry, Shape, Triple, reorientation
from decathlete.core.labels import LabelSet
from decathlete.core.schema import Schema
from decathlete.planning.network_spec import Axes, Dims, NetworkSpec

PLAN_VERSION = 1


class Normalization(Schema):
    """How one channel's intensities become network input.

    ``ct``: clip to ``clip_low``..``clip_high`` (HU), subtract ``mean``, divide by ``std``, all of the foreground of
    the training cases. ``zscore``: each image by its own mean and std, over its non-zero voxels only if
    ``nonzero_only`` (the rest becomes 0). ``rescale``: each image to 0..1 by its own range. ``none``: unchanged.
    """

    scheme: Literal["ct", "zscore", "rescale", "none"]
    nonzero_only: bool = False
    clip_low: float = 0.0
    clip_high: float = 0.0
    mean: float = 0.0
    std: float = 1.0


class Resampling(Schema):
    """How volumes change grid.

    Attributes:
        image_order: B-spline order for images, in plane (and through plane where no axis is separated).
        separate_axis: ``auto`` treats the coarsest axis apart (nearest neighbour along it) where the spacing before
            or after resampling is anisotropic by more than ``separate_ratio``; ``always`` and ``never`` say so.
    """

    image_order: Literal[0, 1, 3] = 3
    separate_axis: Literal["auto", "always", "never"] = "auto"
    separate_ratio: float = Field(default=3.0, gt=1)


class Range(Schema):
    """A closed interval."""

    low: float
    high: float


class TrainingRanges(Schema):
    """What the training images were like; a prediction warns where its input leaves it.

    Attributes:
        spacing: range of each working axis, mm.
        size: range of each working axis' extent after cropping, mm.
        intensity: per channel, range of the training images' mean intensity inside the crop box.
    """

    spacing: tuple[Range, Range, Range]
    size: tuple[Range, Range, Range]
    intensity: tuple[Range, ...]


class Plan(Schema):
    """Every decision about one model of one dataset.

    Attributes:
        target_spacing: mm, working order; the first is ``None`` where slices keep their own distance (2D), all are
            where nothing is resampled.
        patch_size: voxels, working order: 3 numbers, or 2 in plane for a 2D model.
        mirror_axes: axes of the patch along which training mirrors at random (and test-time augmentation may flip);
            ``None``: all.
        foreground_channel: the network sees, after the image's channels, one more: 1 in the foreground, 0 outside.
        foreground_rule: what that is: the ``object`` (non-zero voxels, holes filled), or where every normalised
            channel is ``positive``, which NVIDIA's recipe takes.
        reasons: field -> why it is so, in words.
    """

    version: int = PLAN_VERSION
    dataset: str
    dims: Dims
    channels: tuple[str, ...]
    labels: LabelSet
    orientation: Orientation = "canonical"
    axis_order: tuple[int, int, int] = (0, 1, 2)
    order: Order = "nnunet"
    target_spacing: tuple[float | None, float | None, float | None]
    median_shape: Shape
    patch_size: Axes
    batch_size: int = Field(ge=1)
    normalization: tuple[Normalization, ...]
    foreground_channel: bool = False
    foreground_rule: ForegroundRule = "object"
    resampling: Resampling = Resampling()
    network: NetworkSpec
    mirror_axes: Axes | None = None
    trained_on: TrainingRanges
    fingerprint_digest: str
    reasons: dict[str, str] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if self.version != PLAN_VERSION:
            problems.append(f"version {self.version} is not {PLAN_VERSION}: make the plan again with this release")
        if sorted(self.axis_order) != [0, 1, 2]:
            problems.append(f"axis_order must order the axes 0, 1, 2; it is {self.axis_order}")
        if len(self.patch_size) != self.dims:
            problems.append(f"patch_size needs {self.dims} numbers, it has {len(self.patch_size)}")
        elif any(p < 1 or p % d for p, d in zip(self.patch_size, self.network.divisor, strict=False)):
            problems.append(
                f"patch_size {self.patch_size} must be a positive multiple of {self.network.divisor}, "
                "the product of the network's strides"
            )
        if self.mirror_axes is not None and not set(self.mirror_axes) <= set(range(self.dims)):
            problems.append(f"mirror_axes {self.mirror_axes} must be among the patch's axes {tuple(range(self.dims))}")
        if self.network.dims != self.dims:
            problems.append(f"the network is {self.network.dims}D, the plan {self.dims}D")
        unset = tuple(s is None for s in self.target_spacing)
        if any(unset) and not all(unset) and (self.dims == 3 or unset != (True, False, False)):
            of = "volumes is given for every axis" if self.dims == 3 else "slices is given in plane"
            problems.append(f"target_spacing of {of}, or not at all")
        if any(s is not None and s <= 0 for s in self.target_spacing):
            problems.append(f"target_spacing must be positive, it is {self.target_spacing}")
        if len(self.normalization) != len(self.channels):
            problems.append(f"normalization needs {len(self.channels)} entries, one per channel")
        if self.network.in_channels != self.n_inputs:
            problems.append(f"the network takes {self.network.in_channels} channels, not {self.n_inputs}")
        if self.network.out_channels != self.labels.n_outputs:
            problems.append(f"the network has {self.network.out_channels} outputs, not {self.labels.n_outputs}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def digest(self) -> str:
        """Of every choice; the reasons for them do not count."""
        return value_digest(self.model_dump(mode="json", exclude={"reasons"}))

    @property
    def n_inputs(self) -> int:
        """Channels that the network sees: the image's, and the foreground if there is such a channel."""
        return len(self.channels) + self.foreground_channel

    @property
    def mirrored_axes(self) -> Axes:
        """``mirror_axes``, written out where it means all."""
        return tuple(range(self.dims)) if self.mirror_axes is None else self.mirror_axes

    @property
    def network_spacing(self) -> tuple[float, ...]:
        """Of the axes that the network sees, mm: all three, or the two in plane; 1 where images keep their own."""
        return tuple(1.0 if s is None else s for s in self.target_spacing[3 - self.dims :])

    def axes(self, geometry: Geometry) -> AxisTransform:
        """From an image as stored to the working order: reorientation, then axis order."""
        return reorientation(geometry, self.orientation).then(AxisTransform(permutation=self.axis_order))

    def target(self, spacing: Triple) -> Triple:
        """The spacing that an image of ``spacing`` (working order, mm) is resampled to."""
        first, second, third = (own if s is None else s for own, s in zip(spacing, self.target_spacing, strict=True))
        return (first, second, third)
