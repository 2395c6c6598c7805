"""Which random changes training patches undergo, how often and how strongly."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from decathlete.core.schema import Schema
from decathlete.planning.network_spec import Axes, Dims


def _ascending(interval: tuple[float, float]) -> tuple[float, float]:
    low, high = interval
    if not low <= high < float("inf"):
        raise ValueError(f"a range runs from its low to its high end, both finite; got {low:g}, {high:g}")
    return interval


Interval = Annotated[tuple[float, float], AfterValidator(_ascending)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Transform(Schema):
    """One random change.

    Attributes:
        enabled: the switch.
        probability: of a sample being changed (mirroring: of each axis).
    """

    enabled: bool = True
    probability: Probability = 0.2

    @property
    def chance(self) -> float:
        """The probability, 0 where switched off."""
        return self.probability if self.enabled else 0.0


class Rotation(Transform):
    """Rotation about the patch's centre, each angle uniform in -degrees..degrees.

    Attributes:
        degrees: ``None``: nnU-Net's rule by the patch's shape: 30 about every axis in 3D; 180 where only the plane
            is rotated, but 15 in 2D where one side of the patch is more than 1.5 times the other (a greater angle
            would turn its content out of the frame).
        in_plane: 3D: rotate about the first axis alone, and scale nothing along it. ``None``: where the longest side
            of the patch is more than 3 times its first.
    """

    degrees: float | None = Field(default=None, ge=0, le=180)
    in_plane: bool | None = None


class Scaling(Transform):
    """Magnification, the same along every axis.

    Attributes:
        between: side of the region that is shown in one patch / side of the patch: below 1 magnifies.
    """

    between: Interval = (0.7, 1.4)


class Mirroring(Transform):
    """Flips, each axis on its own.

    Attributes:
        axes: spatial axes (0 is the first of the patch); ``None``: all.
    """

    probability: Probability = 0.5
    axes: Axes | None = None


class IntensityTransform(Transform):
    """A change of intensities whose strength is drawn anew for each sample and channel.

    Attributes:
        channel_probability: of each channel being changed in a sample that is.
        between: the range of the strength; what it means is said in :class:`AugmentationConfig`.
    """

    channel_probability: Probability = 1.0
    between: Interval


class AugmentationConfig(Schema):
    """All random changes of training patches, in the order in which they are applied (mirroring with the first two).

    The defaults are nnU-Net's (Isensee et al., Nature Methods 2021, supplementary note 4). Intensities are those of
    normalised images, so 1 is one standard deviation under z-score and CT normalisation.

    Attributes:
        noise: Gaussian; the range is of its standard deviation (the default's variance goes up to 0.1).
        blur: Gaussian; the range is of sigma, voxels.
        brightness: intensities multiplied.
        contrast: distances to the channel's mean multiplied, then clamped to the channel's old range.
        low_resolution: every voxel but a few forgotten and interpolated again; the range is of the grid's scale.
        gamma_inverted: ``gamma`` of the negative image.
        gamma: intensities, mapped to 0..1, raised to a power; mean and standard deviation stay.
    """

    rotation: Rotation = Rotation()
    scaling: Scaling = Scaling()
    mirroring: Mirroring = Mirroring()
    noise: IntensityTransform = IntensityTransform(probability=0.1, between=(0.0, 0.316))
    blur: IntensityTransform = IntensityTransform(probability=0.2, channel_probability=0.5, between=(0.5, 1.0))
    brightness: IntensityTransform = IntensityTransform(probability=0.15, between=(0.75, 1.25))
    contrast: IntensityTransform = IntensityTransform(probability=0.15, between=(0.75, 1.25))
    low_resolution: IntensityTransform = IntensityTransform(
        probability=0.25, channel_probability=0.5, between=(0.5, 1.0)
    )
    gamma_inverted: IntensityTransform = IntensityTransform(probability=0.1, between=(0.7, 1.5))
    gamma: IntensityTransform = IntensityTransform(probability=0.3, between=(0.7, 1.5))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        for name in ("noise", "blur"):
            if getattr(self, name).between[0] < 0:
                problems.append(f"{name}.between must not be negative")
        for name in ("scaling", "brightness", "contrast", "low_resolution", "gamma_inverted", "gamma"):
            if getattr(self, name).between[0] <= 0:
                problems.append(f"{name}.between must be positive")
        if self.low_resolution.between[1] > 1:
            problems.append("low_resolution.between must not exceed 1: it only takes resolution away")
        axes = self.mirroring.axes or ()
        if len(set(axes)) != len(axes) or any(a not in range(3) for a in axes):
            problems.append(f"mirroring.axes must be distinct axes among 0, 1, 2; they are {axes}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @classmethod
    def default(cls, dims: Dims) -> Self:
        """nnU-Net's augmentation, mirroring along all ``dims`` axes."""
        return cls(mirroring=Mirroring(axes=tuple(range(dims))))

    @classmethod
    def recipe(cls, dims: Dims) -> Self:
        """That of NVIDIA's nnU-Net for PyTorch: zoom, mirroring, noise, blur, brightness, contrast."""

        def changed(low: float, high: float) -> IntensityTransform:
            return IntensityTransform(probability=0.15, between=(low, high))

        default = cls.default(dims)
        return cls(
            rotation=Rotation(enabled=False),
            scaling=Scaling(probability=0.15, between=(0.7, 1.0)),
            mirroring=default.mirroring,
            noise=changed(0.0, 0.33),
            blur=changed(0.5, 1.5),
            brightness=changed(0.7, 1.3),
            contrast=changed(0.65, 1.5),
            low_resolution=default.low_resolution.revised(enabled=False),
            gamma_inverted=default.gamma_inverted.revised(enabled=False),
            gamma=default.gamma.revised(enabled=False),
        )

    @classmethod
    def none(cls) -> Self:
        """Patches as they are: every transform switched off."""
        full = cls()
        return cls.model_validate({name: getattr(full, name).revised(enabled=False) for name in cls.model_fields})

    def mirroring_within(self, axes: Axes | None, dims: Dims) -> Self:
        """The same, mirroring along no other than ``axes`` (``None``: wherever it does)."""
        mirrored = self.mirror_axes(dims)
        kept = mirrored if axes is None else tuple(axis for axis in mirrored if axis in axes)
        if kept == mirrored:
            return self
        return self.revised(mirroring=self.mirroring.revised(axes=kept, enabled=bool(kept)))

    def mirror_axes(self, dims: Dims) -> Axes:
        """Spatial axes along which training mirrors: those that test-time augmentation may flip."""
        if not self.mirroring.chance:
            return ()
        return tuple(range(dims)) if self.mirroring.axes is None else tuple(sorted(self.mirroring.axes))
