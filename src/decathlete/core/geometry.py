"""Geometry of voxel grids: positions, axis orders, boxes.

Arrays are Z, Y, X (the reverse of NIfTI's i, j, k). ``Geometry.affine`` maps array indices ``(z, y, x, 1)`` to
world millimetres ``(right, anterior, superior, 1)`` (RAS+), so that permuting or flipping an array is permuting or
flipping the affine's columns.
"""

from __future__ import annotations

from itertools import product
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from decathlete.core.choices import Orientation
from decathlete.core.schema import Schema

Shape = tuple[int, int, int]
Triple = tuple[float, float, float]
Row = tuple[float, float, float, float]
Affine = tuple[Row, Row, Row, Row]


Unit = Literal["mm", "pixel"]
PIXEL: Unit = "pixel"
"""Unit of lengths in images of formats that have no spacing."""

_FLOAT32_ROUNDING = 2.5e-7
"""Error of a position after a few operations in float32, share of its distance from the world's origin."""


class HeaderCodes(Schema):
    """Fields of a file's header beside the affine; kept so that the header of a prediction equals the input's.

    Attributes:
        spatial_unit: unit in the file; :data:`PIXEL` if the format has no spacing.
        axes: number of spatial axes in the file: 2 for a single slice, whose grid is one voxel deep here.
        qform, sform: this transform of a NIfTI file, if it differs from the affine: 4x4, from the array's indices to
            RAS+ mm like the affine. A code of 0 means that readers ignore it.
    """

    qform_code: int = 1
    sform_code: int = 1
    spatial_unit: str = "mm"
    temporal_unit: str = "unknown"
    axes: Literal[2, 3] = 3
    qform: Affine | None = None
    sform: Affine | None = None


class Geometry(Schema):
    """The grid of one volume: shape, full affine (including shear), and fields of the header.

    In images of formats without a spacing (:meth:`pixels`), lengths are in pixels instead of mm.

    Attributes:
        shape_ZYX: number of voxels along each axis, 1 or more.
        affine: 4x4, from the array's indices (z, y, x, 1) to positions in RAS+ mm; finite and invertible.
        header: fields of the file's header.
    """

    shape_ZYX: Shape
    affine: Affine
    header: HeaderCodes = HeaderCodes()

    @model_validator(mode="after")
    def _check_grid(self) -> Self:
        matrix = self.matrix
        if not np.isfinite(matrix).all() or _is_singular(matrix[:3, :3]):
            raise ValueError("the affine is singular or not finite: voxels would have no volume")
        if min(self.shape_ZYX) < 1:
            raise ValueError(f"an empty grid: shape {self.shape_ZYX}")
        return self

    @classmethod
    def from_matrix(cls, shape_ZYX: Shape, matrix: NDArray[np.floating], *, header: HeaderCodes | None = None) -> Self:
        """Make a geometry from a 4x4 matrix (array index to RAS+ mm)."""
        return cls(
            shape_ZYX=(int(shape_ZYX[0]), int(shape_ZYX[1]), int(shape_ZYX[2])),
            affine=as_affine(matrix),
            header=header or HeaderCodes(),
        )

    @classmethod
    def plain(cls, shape_ZYX: Shape, *, spacing_ZYX: Triple = (1.0, 1.0, 1.0)) -> Self:
        """Make an axis-aligned RAS grid with its origin at zero, for arrays without a header."""
        matrix = np.zeros((4, 4))
        for array_axis, world_axis in enumerate((2, 1, 0)):
            matrix[world_axis, array_axis] = spacing_ZYX[array_axis]
        matrix[3, 3] = 1
        return cls.from_matrix(shape_ZYX, matrix)

    @classmethod
    def pixels(cls, shape_ZYX: Shape) -> Self:
        """Make the grid of an image whose format has no spacing: neighbours are one pixel apart."""
        header = HeaderCodes(qform_code=0, sform_code=0, spatial_unit=PIXEL, axes=2 if shape_ZYX[0] == 1 else 3)
        return cls.from_matrix(shape_ZYX, cls.plain(shape_ZYX).matrix, header=header)

    def with_spacing(self, spacing_ZYX: Triple) -> Geometry:
        """Return the same grid with another spacing, mm; voxel (0, 0, 0) stays where it is."""
        matrix = self.matrix
        matrix[:3, :3] = self.direction * np.array(spacing_ZYX)
        header = HeaderCodes(axes=self.header.axes)
        return Geometry.from_matrix(self.shape_ZYX, matrix, header=header)

    @property
    def unit(self) -> Unit:
        """Unit of spacing and origin."""
        return "pixel" if self.header.spatial_unit == PIXEL else "mm"

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The affine as a 4x4 array."""
        return np.array(self.affine, dtype=np.float64)

    @property
    def spacing_ZYX(self) -> Triple:
        """Distance between neighbours along each array axis, mm."""
        z, y, x = np.linalg.norm(self.matrix[:3, :3], axis=0)
        return (float(z), float(y), float(x))

    @property
    def direction(self) -> NDArray[np.float64]:
        """Unit vectors of the array axes in RAS+ world, as columns (3x3)."""
        return np.asarray(self.matrix[:3, :3] / np.array(self.spacing_ZYX), dtype=np.float64)

    @property
    def origin_mm(self) -> Triple:
        """World position of voxel (0, 0, 0), RAS+ mm."""
        r, a, s = self.matrix[:3, 3]
        return (float(r), float(a), float(s))

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel, including shear, mm^3."""
        return float(abs(np.linalg.det(self.matrix[:3, :3])))

    def tolerance_ZYX(self, tolerance_mm: float) -> Triple:
        """Return the greatest length along each array axis that is no difference, mm.

        It is ``tolerance_mm``, or a tenth of the spacing where that is less, but not less than the rounding of
        positions that are stored as float32.
        """
        rounding = _FLOAT32_ROUNDING * max(abs(v) for v in self.origin_mm)
        z, y, x = (min(tolerance_mm, max(0.1 * mm, rounding)) for mm in self.spacing_ZYX)
        return (z, y, x)

    def differences(self, other: Geometry, *, tolerance_mm: float = 1e-2, tolerance: float = 1e-3) -> list[str]:
        """Describe how ``other`` differs from this grid, one text for each property; empty if they agree.

        The spacing along an axis of one voxel is no difference: it has no neighbours, and files of two axes have none.

        Args:
            tolerance_mm: greatest allowed difference of spacing and origin, mm; a tenth of a voxel where that is less.
            tolerance: greatest allowed difference of a direction cosine.
        """
        texts = []
        if self.shape_ZYX != other.shape_ZYX:
            texts.append(f"shape (z, y, x) {self.shape_ZYX} against {other.shape_ZYX}")
        allowed_ZYX = np.array(self.tolerance_ZYX(tolerance_mm))
        has_neighbours = np.maximum(self.shape_ZYX, other.shape_ZYX) > 1
        if (has_neighbours & (np.abs(np.subtract(self.spacing_ZYX, other.spacing_ZYX)) > allowed_ZYX)).any():
            texts.append(f"spacing {_lengths(self.spacing_ZYX, self)} against {_lengths(other.spacing_ZYX, other)}")
        if not np.allclose(self.direction, other.direction, rtol=0, atol=tolerance):
            texts.append(f"direction of the axes: {_axis_names(self)} against {_axis_names(other)}")
        shift = np.subtract(other.origin_mm, self.origin_mm)
        along_ZYX = np.abs(np.linalg.solve(self.direction, shift))
        is_fine = allowed_ZYX < tolerance_mm
        if (np.abs(shift) > tolerance_mm).any() or (is_fine & (along_ZYX > allowed_ZYX)).any():
            texts.append(f"origin {_lengths(self.origin_mm, self)} against {_lengths(other.origin_mm, other)}")
        return texts


def _is_singular(steps: NDArray[np.float64]) -> bool:
    """Return whether the steps along the axes span no volume; voxels of nanometres are compared with their own size."""
    if abs(np.linalg.det(steps)) >= 1e-12:
        return False
    lengths = np.linalg.norm(steps, axis=0)
    return bool(lengths.min() < 1e-12 or abs(np.linalg.det(steps / lengths)) < 1e-12)


def as_affine(matrix: NDArray[np.floating]) -> Affine:
    """Return a 4x4 array as nested tuples, as the schemas store it."""
    first, second, third, last = ((float(a), float(b), float(c), float(d)) for a, b, c, d in matrix)
    return (first, second, third, last)


def _lengths(values: Triple, geometry: Geometry) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + f") {geometry.unit}"


def _axis_names(geometry: Geometry) -> str:
    cosines = (np.round(geometry.direction.T, 3) + 0.0).tolist()  # without -0
    return "; ".join("(" + ", ".join(f"{c:g}" for c in axis) + ")" for axis in cosines)


class AxisTransform(Schema):
    """A permutation and flips of the three array axes, with an exact inverse.

    ``apply`` first permutes (output axis ``i`` is input axis ``permutation[i]``), then flips the output axes named
    in ``flips``.
    """

    permutation: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    @model_validator(mode="after")
    def _check_permutation(self) -> Self:
        if sorted(self.permutation) != [0, 1, 2]:
            raise ValueError(f"{self.permutation} is not an order of the axes 0, 1, 2")
        return self

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Transform the last three axes of ``array`` (a view)."""
        lead = array.ndim - 3
        moved = array.transpose(*range(lead), *(lead + p for p in self.permutation))
        z, y, x = (slice(None, None, -1 if f else 1) for f in self.flips)
        return moved[..., z, y, x]

    def invert(self, array: NDArray[Any]) -> NDArray[Any]:
        """Undo ``apply`` (a view)."""
        return self.inverse.apply(array)

    @property
    def inverse(self) -> AxisTransform:
        """The transform that undoes this one."""
        back = [int(i) for i in np.argsort(self.permutation)]
        return AxisTransform(
            permutation=(back[0], back[1], back[2]),
            flips=(self.flips[back[0]], self.flips[back[1]], self.flips[back[2]]),
        )

    def then(self, after: AxisTransform) -> AxisTransform:
        """Return one transform that applies this one and then ``after``."""
        p = [self.permutation[i] for i in after.permutation]
        f = [self.flips[i] != g for i, g in zip(after.permutation, after.flips, strict=True)]
        return AxisTransform(permutation=(p[0], p[1], p[2]), flips=(f[0], f[1], f[2]))

    def shape(self, shape_ZYX: Shape) -> Shape:
        """Return the shape after ``apply``."""
        p = self.permutation
        return (shape_ZYX[p[0]], shape_ZYX[p[1]], shape_ZYX[p[2]])

    def geometry(self, before: Geometry) -> Geometry:
        """Return the grid after ``apply``; every voxel keeps its position in the world."""
        shape = self.shape(before.shape_ZYX)
        moved = {
            name: as_affine(self._move(np.array(matrix), shape))
            for name in ("qform", "sform")
            if (matrix := getattr(before.header, name)) is not None
        }
        header = before.header.revised(**moved) if moved else before.header
        return Geometry.from_matrix(shape, self._move(before.matrix, shape), header=header)

    def _move(self, matrix: NDArray[np.float64], shape: Shape) -> NDArray[np.float64]:
        """Return a 4x4 matrix for the indices after ``apply``; ``shape``: after it, too."""
        after = matrix.copy()
        for axis, (source, flipped) in enumerate(zip(self.permutation, self.flips, strict=True)):
            column = matrix[:3, source]
            after[:3, axis] = -column if flipped else column
            if flipped:
                after[:3, 3] += column * (shape[axis] - 1)
        return after


def reorientation(geometry: Geometry, orientation: Orientation) -> AxisTransform:
    """Return the axis transform from the stored order to the working orientation.

    ``canonical``: array axes Z, Y, X point to superior, anterior and right (RAS in NIfTI's i, j, k). Stored axes are
    assigned to world axes one to one, with the greatest sum of absolute direction cosines; this also holds for oblique
    grids. ``stored``: the identity.
    """
    if orientation == "stored":
        return AxisTransform()
    cosines = geometry.direction  # [world axis, array axis]
    best = max(
        (p for p in product(range(3), repeat=3) if len(set(p)) == 3),
        key=lambda p: sum(abs(cosines[world, p[axis]]) for axis, world in enumerate((2, 1, 0))),
    )
    flips = [bool(cosines[world, best[axis]] < 0) for axis, world in enumerate((2, 1, 0))]
    return AxisTransform(permutation=(best[0], best[1], best[2]), flips=(flips[0], flips[1], flips[2]))


class Box(Schema):
    """A half-open box of voxels, ``start`` included, ``stop`` excluded."""

    start: Shape
    stop: Shape

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Slices that index the last three axes of an array."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return (z, y, x)

    @property
    def shape(self) -> Shape:
        """Extent along each axis."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return (z, y, x)


def nonzero_box(image_CZYX: NDArray[Any]) -> Box:
    """Return the smallest box with all voxels that are non-zero in any channel (the whole grid if there are none)."""
    mask_ZYX = (image_CZYX != 0).any(axis=0)
    start, stop = [], []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        indices = np.flatnonzero(mask_ZYX.any(axis=others))
        start.append(int(indices[0]) if indices.size else 0)
        stop.append(int(indices[-1]) + 1 if indices.size else mask_ZYX.shape[axis])
    return Box(start=(start[0], start[1], start[2]), stop=(stop[0], stop[1], stop[2]))
