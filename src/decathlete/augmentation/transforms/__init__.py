"""Transforms: random changes of training patches. Here are the registry, the roles and their settings.

A transform has one of these roles. A :class:`SpatialTransform` contributes to the one matrix by which a sample is
resampled, to its flips, or to its displacement field; image, masks and label follow together. An
:class:`IntensityTransform` changes the values of *rows*, each one channel of one sample; labels and masks are never
passed to it. A third role is for cascades alone: a ``MaskTransform`` (in ``_masks.py``) corrupts the masks of the
previous stage. A plug-in is one module::

    @TRANSFORMS.register("offset")
    class Offset(IntensityTransform):
        \"\"\"Add a constant to the intensities.\"\"\"

        class Settings(IntensitySettings):
            between: Interval = Field(default=(-0.5, 0.5), description="Range of the constant.")

        def __call__(self, rows_RZYX, strength_R, context):
            return rows_RZYX + per_row(strength_R, rows_RZYX)

Listing names imports no transform and not torch.

Letters: R rows; spatial axes are written ZYX, 2D lacks Z; D the spatial axes of a patch (2 or 3).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from decathlete.core.registry import ComponentSettings, Registry
from decathlete.planning.network_spec import Axes

if TYPE_CHECKING:
    from torch import Tensor

    from decathlete.augmentation.displacement import Displacement
    from decathlete.augmentation.draws import RowContext

Matrix = NDArray[np.float64]


def _ascending(interval: tuple[float, float]) -> tuple[float, float]:
    low, high = interval
    if not low <= high < float("inf"):
        raise ValueError(f"a range runs from its low to its high end, both finite; got {low:g}, {high:g}")
    return interval


def _not_negative(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] < 0:
        raise ValueError("must not be negative")
    return interval


def _positive(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] <= 0:
        raise ValueError("must be positive")
    return interval


Interval = Annotated[tuple[float, float], AfterValidator(_ascending)]
"""A range from which a strength is drawn uniformly: low and high end."""
NonNegativeInterval = Annotated[Interval, AfterValidator(_not_negative)]
PositiveInterval = Annotated[Interval, AfterValidator(_positive)]

Probability = Annotated[float, Field(ge=0, le=1, description="Probability that a sample is changed.")]
ChannelProbability = Annotated[
    float, Field(ge=0, le=1, description="Probability that a channel is changed, in a sample that is changed.")
]


class TransformSettings(ComponentSettings):
    """What all transforms can be set to."""

    enabled: bool = True
    """Whether the transform is used."""
    probability: Probability = 0.2

    @property
    def chance(self) -> float:
        """The probability, 0 for a disabled transform."""
        return self.probability if self.enabled else 0.0


class IntensitySettings(TransformSettings):
    """Settings of every intensity transform; a subclass sets the default and the description of ``between``."""

    channel_probability: ChannelProbability = 1.0
    between: Interval


@dataclass(frozen=True, kw_only=True)
class Patch:
    """The patches that a transform is built for.

    Attributes:
        size: 2 or 3 numbers, voxels.
        in_plane: whether the first axis is so coarse that transforms change only the plane of the other two (3D).
        side_axis: axis from left to right, if flips along it swap the labels of mirror pairs.
    """

    size: Axes
    in_plane: bool = False
    side_axis: int | None = None


@dataclass(frozen=True, kw_only=True)
class SpatialChange:
    """What one transform contributes to the resampling of one sample.

    Attributes:
        matrix: from an offset to the patch's centre in the result to the offset in the source, voxels, [D, D];
            ``None``: no interpolation is needed.
        flips: whether each axis is mirrored, besides the matrix.
        displacement: added to an offset to the patch's centre in the result, before every matrix; those of several
            transforms are added.
    """

    matrix: Matrix | None = None
    flips: tuple[bool, ...] | None = None
    displacement: Displacement | None = None


class SpatialTransform(ABC):
    """A change of a sample in space.

    Args:
        settings: of the component.
        patch: what the transform is built for.
    """

    def __init__(self, settings: TransformSettings, patch: Patch) -> None:
        self.settings = settings
        self.patch = patch

    def draw(self, random: np.random.Generator) -> SpatialChange | None:
        """Decide whether and how one sample changes; ``None`` if it does not.

        Args:
            random: generator of this transform for this sample alone.
        """
        return self.change(random) if random.random() < self.settings.chance else None

    @abstractmethod
    def change(self, random: np.random.Generator) -> SpatialChange:
        """Draw the change of a sample that is changed."""


class IntensityTransform(ABC):
    """A change of intensities, with a strength drawn uniformly from ``between`` for each sample and channel.

    Args:
        settings: of the component.
        patch: what the transform is built for.
    """

    def __init__(self, settings: IntensitySettings, patch: Patch) -> None:
        self.settings = settings
        self.patch = patch

    def draw(self, random: np.random.Generator, n_channels: int) -> dict[int, float]:
        """Decide which channels of one sample change, and how strongly: channel -> strength.

        Args:
            random: generator of this transform for this sample alone.
            n_channels: of the image, without masks.
        """
        settings = self.settings
        if random.random() >= settings.chance:
            return {}
        uniform: list[float] = random.random(2 * n_channels).tolist()
        low, high = settings.between
        return {
            channel: low + (high - low) * uniform[n_channels + channel]
            for channel in range(n_channels)
            if uniform[channel] < settings.channel_probability
        }

    @abstractmethod
    def __call__(self, rows_RZYX: Tensor, strength_R: Tensor, context: RowContext) -> Tensor:
        """Return the changed rows, same shape, type and device; never make the host wait for the device.

        Args:
            rows_RZYX: float32, each row one channel of one sample; may be overwritten.
            strength_R: float32, on the same device.
            context: which rows these are, and random numbers for each of them.
        """


TRANSFORMS: Registry[Any] = Registry("transform", package=__name__)
"""Spatial transforms, intensity transforms, and transforms of the masks of a cascade (``_masks.MaskTransform``)."""
