"""The plan: every decision about one model of one dataset, with the reason for each in words.

All sizes and spacings are in the *working order* of the axes: the stored array is reoriented
(``orientation``), then its axes are permuted (``axis_order``, the coarsest first). 2D models see slices across the
first working axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import Field, computed_field, model_validator

from decathlete.core.choices import Configuration, ForegroundRule, Order, Orientation
from decathlete.core.files import value_digest
from decathlete.core.geometry import AxisTransform, Geometry, Shape, Triple, Unit, reorientation
from decathlete.core.labels import LabelSet
from decathlete.core.registry import Registry
from decathlete.core.schema import Schema
from decathlete.core.structure_codes import StructureCode
from decathlete.errors import OptionError
from decathlete.planning.architectures import ARCHITECTURES, AnyNetworkSpec
from decathlete.planning.mirror_pairs import (
    MirrorPair,
    SideSwap,
    make_side_swap,
    missing_swapped_annotations,
    pair_problems,
)
from decathlete.planning.network_spec import Axes, Dims
from decathlete.planning.normalizations import NORMALIZATIONS, AnyNormalization
from decathlete.planning.plan_versions import PLAN_VERSION, WITHOUT_EFFECT, digest_form, is_version_1, upgrade


class Resampling(Schema):
    """How images are resampled.

    Attributes:
        image_order: B-spline order for images, in plane (and through plane where no axis is separated).
        separate_axis: whether the coarsest axis is resampled separately, by nearest neighbour. ``auto``: if the spacing
            before or after resampling is anisotropic by more than ``separate_ratio``.
    """

    image_order: Literal[0, 1, 3] = 3
    separate_axis: Literal["auto", "always", "never"] = "auto"
    separate_ratio: float = Field(default=3.0, gt=1)


class Range(Schema):
    """A closed interval."""

    low: float
    high: float


class TrainingRanges(Schema):
    """Ranges of the training images; a prediction warns if its input is outside.

    Attributes:
        spacing: range of each working axis, mm.
        size: range of each working axis' extent after cropping, mm.
        intensity: per channel, range of the training images' mean intensity inside the crop box.
    """

    spacing: tuple[Range, Range, Range]
    size: tuple[Range, Range, Range]
    intensity: tuple[Range, ...]


class CoarseStart(Schema):
    """A coarser grid on which a training begins, with the same network, patch and batch (progressive resolution).

    Attributes:
        target_spacing: mm, working order.
        share: share of the training after which it continues on the plan's own grid.
    """

    target_spacing: tuple[float | None, float | None, float | None]
    share: float = Field(default=0.5, gt=0, lt=1)


class Plan(Schema):
    """Every decision about one model of one dataset.

    Attributes:
        configuration: name of the configuration; if it is not given: ``2d`` or ``3d``, by ``dims``.
        previous_stage: of a cascade: the configuration whose prediction is an additional input of the network, a mask
            for each structure.
        preprocessing_order: order of the preprocessing steps.
        target_spacing: mm, working order; the first is ``None`` if slices keep their own distance (2D), all are
            ``None`` if nothing is resampled.
        coarse_start: coarser grid on which the training begins; ``None``: all of it uses the plan's grid.
        spacing_unit: of every spacing and size here; ``pixel`` if the format of the images has no spacing.
        patch_size: voxels, working order: 3 numbers, or 2 in plane for a 2D model.
        batch_size: patches in each step on each device, 1 or more.
        mirror_axes: axes of the patch along which training mirrors at random (and test-time augmentation may flip);
            ``None``: all.
        mirror_pairs: names of classes that change sides when a patch is flipped from left to right.
        normalization: settings of each channel's normalisation.
        foreground_channel: whether the network has one more input channel after the image's: 1 in the foreground, 0
            outside.
        foreground_rule: definition of the foreground: the ``object`` (non-zero voxels, holes filled), or the voxels
            where every normalised channel is ``positive``, as in NVIDIA's recipe.
        fill_slice_holes: whether holes of the object belong to it in an image of a single slice, too. nnU-Net fills
            holes only in volumes.
        network: specification of the network, of any architecture.
        keep_largest: whether predictions keep only the largest connected component of the foreground.
        structure_codes: codes of structures in DICOM objects, where the dataset declares them. No decision depends on
            them.
        training_ranges: of the training images.
        reasons: field -> why it has this value, in words for the reader. No decision depends on them.
        user_set: field -> option by which the user set it (``--set patch_size=40,56,40``); the planner and the compute
            budget leave these fields as they are.
        requires: component (``architecture.NAME``) -> distribution and version that provides it, for components of
            other packages.
    """

    has_checksum = True

    version: int = PLAN_VERSION
    dataset: str
    dims: Dims
    configuration: Configuration | None = None
    previous_stage: Configuration | None = None
    channels: tuple[str, ...]
    labels: LabelSet
    orientation: Orientation = "canonical"
    axis_order: tuple[int, int, int] = (0, 1, 2)
    preprocessing_order: Order = "nnunet"
    target_spacing: tuple[float | None, float | None, float | None]
    spacing_unit: Unit = "mm"
    coarse_start: CoarseStart | None = None
    median_shape: Shape
    patch_size: Axes
    batch_size: int = Field(ge=1)
    normalization: tuple[AnyNormalization, ...]
    foreground_channel: bool = False
    foreground_rule: ForegroundRule = "object"
    fill_slice_holes: bool = Field(default=True, exclude_if=bool)
    resampling: Resampling = Resampling()
    network: AnyNetworkSpec
    mirror_axes: Axes | None = None
    mirror_pairs: tuple[MirrorPair, ...] = Field(default=(), exclude_if=lambda pairs: not pairs)
    keep_largest: bool = False
    structure_codes: dict[str, StructureCode] = Field(default={}, exclude_if=lambda codes: not codes)
    training_ranges: TrainingRanges
    fingerprint_digest: str
    reasons: dict[str, str] = {}
    user_set: dict[str, str] = {}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def requires(self) -> dict[str, str]:
        """Components of other packages: ``KIND.NAME`` -> distribution and version."""
        used: list[tuple[Registry[Any], str]] = [(ARCHITECTURES, self.network.architecture)]
        used += [(NORMALIZATIONS, settings.component) for settings in self.normalization]
        origins = {
            f"{registry.kind}.{name}": registry.resolve(name).origin
            for registry, name in used
            if name not in registry.builtin_names
        }
        return {name: f"{o.distribution or 'unknown'} {o.version or ''}".strip() for name, o in origins.items()}

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        """Convert version 1, and check that the components are installed.

        Raises:
            OptionError: one is not.
        """
        if not isinstance(data, Mapping):
            return data
        data = upgrade(data) if is_version_1(data) else dict(data)
        _check_installed(data.pop("requires", None))
        if data.get("configuration") is None and data.get("dims") in (2, 3):  # of an older release
            data["configuration"] = f"{data['dims']}d"
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if self.version != PLAN_VERSION:
            problems.append(f"version {self.version} is unknown: this release reads versions 1 and {PLAN_VERSION}")
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
        if self.previous_stage is not None and (self.dims == 2 or self.previous_stage == "3d_cascade"):
            problems.append(f"a {self.dims}D plan cannot have the previous stage {self.previous_stage}")
        if self.configuration is not None and self.configuration[:2] != f"{self.dims}d":
            problems.append(f"the configuration is {self.configuration}, the plan {self.dims}D")
        if self.mirror_pairs:
            unfit = pair_problems(self.mirror_pairs, self.labels)
            problems += [f"mirror_pairs: {problem}" for problem in unfit]
            if not unfit and (missing := missing_swapped_annotations(self.labels, self.mirror_pairs)):
                problems.append(f"labels.unannotated needs the sets of classes of mirrored patches, too: {missing}")
            if self.orientation != "canonical":
                problems.append(
                    "mirror_pairs need the orientation canonical: left and right are unknown in stored axes"
                )
        if self.network.dims != self.dims:
            problems.append(f"the network is {self.network.dims}D, the plan {self.dims}D")
        unset = tuple(s is None for s in self.target_spacing)
        if any(unset) and not all(unset) and (self.dims == 3 or unset != (True, False, False)):
            of = "volumes needs every axis" if self.dims == 3 else "slices needs both axes in plane"
            problems.append(f"target_spacing of {of}, or none")
        if any(s is not None and s <= 0 for s in self.target_spacing):
            problems.append(f"target_spacing must be positive, it is {self.target_spacing}")
        if self.coarse_start is not None:
            problems += self._coarse_start_problems(self.coarse_start)
        if len(self.normalization) != len(self.channels):
            problems.append(f"normalization needs {len(self.channels)} entries, one per channel")
        if self.network.in_channels != self.n_inputs:
            problems.append(f"the network has {self.network.in_channels} input channels, not {self.n_inputs}")
        if self.network.out_channels != self.labels.n_outputs:
            problems.append(f"the network has {self.network.out_channels} outputs, not {self.labels.n_outputs}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _coarse_start_problems(self, start: CoarseStart) -> Iterator[str]:
        own, coarse = self.target_spacing, start.target_spacing
        unset = tuple(s is None for s in own)
        if tuple(s is None for s in coarse) != unset or all(unset):
            yield "coarse_start needs a spacing for the axes that target_spacing resamples, and for no others"
        elif any(new < old for old, new in zip(own, coarse, strict=True) if old is not None and new is not None):
            yield f"coarse_start {coarse} must not be finer than target_spacing {own} along any axis"
        elif own == coarse:
            yield f"coarse_start {coarse} must be coarser than target_spacing"

    @property
    def digest(self) -> str:
        """Digest of every decision, without the reasons. It does not change with the version of the schema."""
        return value_digest(digest_form(self.model_dump(mode="json")))

    def differing_fields(self, other: Plan) -> list[str]:
        """Return the names of the decisions that differ between two plans, those of the digest."""
        if self.digest == other.digest:
            return []
        fields = (name for name in type(self).model_fields if name not in WITHOUT_EFFECT)
        return [name for name in fields if getattr(self, name) != getattr(other, name)]

    def on_coarse_grid(self) -> Self:
        """Return the plan of the first part of a training; the plan itself if all of it uses one grid."""
        if self.coarse_start is None:
            return self
        reasons = dict(self.reasons)
        reasons["target_spacing"] = reasons.pop("coarse_start", "the coarse grid on which a training begins")
        return self.at_spacing(self.coarse_start.target_spacing).revised(reasons=reasons)

    def on_own_grid(self) -> Self:
        """Return the plan without its coarse start, on which no prediction depends."""
        reasons = {field: why for field, why in self.reasons.items() if field != "coarse_start"}
        return self.revised(coarse_start=None, reasons=reasons)

    def at_spacing(self, spacing: tuple[float | None, float | None, float | None]) -> Self:
        """Return a copy on another grid (mm, working order), with the same network, patch and batch."""
        first, second, third = (
            size if old is None or new is None else max(round(size * old / new), 1)
            for size, old, new in zip(self.median_shape, self.target_spacing, spacing, strict=True)
        )
        return self.revised(target_spacing=spacing, median_shape=(first, second, third), coarse_start=None)

    def with_codes(self, codes: Mapping[str, StructureCode]) -> Self:
        """Return a copy with the codes of those structures that it has."""
        names = [structure.name for structure in self.labels.structures]
        return self.revised(structure_codes={name: codes[name] for name in names if name in codes})

    @property
    def n_inputs(self) -> int:
        """Number of input channels of the network: the image's and the masks."""
        return len(self.channels) + self.n_masks

    @property
    def n_masks(self) -> int:
        """Number of input channels of 0 and 1 after the image: the foreground, then the previous stage."""
        return int(self.foreground_channel) + self.n_previous

    @property
    def n_previous(self) -> int:
        """Number of input channels with the prediction of the previous stage: one for each structure, or none."""
        return 0 if self.previous_stage is None else len(self.labels.structures)

    @property
    def configuration_name(self) -> Configuration:
        """Name of the configuration."""
        return self.configuration or ("2d" if self.dims == 2 else "3d")

    @property
    def mirrored_axes(self) -> Axes:
        """``mirror_axes``, with ``None`` replaced by all axes."""
        return tuple(range(self.dims)) if self.mirror_axes is None else self.mirror_axes

    @property
    def side_swap(self) -> SideSwap | None:
        """The effect of a flip from left to right; ``None`` without pairs or if the patch has no such axis."""
        axis = self.axis_order.index(2) - (3 - self.dims)
        if not self.mirror_pairs or axis < 0:
            return None
        first_mask = None if self.previous_stage is None else self.n_inputs - self.n_previous
        return make_side_swap(self.labels, self.mirror_pairs, axis=axis, first_mask=first_mask)

    @property
    def network_spacing(self) -> tuple[float, ...]:
        """Spacing of the axes that the network sees, mm: all three, or the two in plane; 1 if not resampled."""
        return tuple(1.0 if s is None else s for s in self.target_spacing[3 - self.dims :])

    def axes(self, geometry: Geometry) -> AxisTransform:
        """Return the transform from an image as stored to the working order: reorientation, then axis order."""
        return reorientation(geometry, self.orientation).then(AxisTransform(permutation=self.axis_order))

    def target(self, spacing: Triple) -> Triple:
        """Return the spacing that an image of ``spacing`` (working order, mm) is resampled to."""
        first, second, third = (own if s is None else s for own, s in zip(spacing, self.target_spacing, strict=True))
        return (first, second, third)


def _check_installed(requires: Any) -> None:
    if not isinstance(requires, Mapping):
        return
    for registry in (ARCHITECTURES, NORMALIZATIONS):
        for component, distribution in requires.items():
            kind, _, name = str(component).partition(".")
            if kind == registry.kind and name not in registry.names():
                package = str(distribution).partition(" ")[0]
                raise OptionError(
                    f"the plan uses the {kind} {name!r} of {distribution}, which is not installed",
                    remedy=f"install the package {package}"
                    if package != "unknown"
                    else "import the module that registers it (on the command line: --plugin MODULE)",
                    code="E-COMPONENT-UNKNOWN",
                )
