"""Meaning of the values of a label map: classes, overlapping regions, the ignore label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from decathlete.core.schema import Schema

IGNORE_INDEX = 255
"""Class index of voxels without a reference label, in prepared label maps."""
_LAST_UNANNOTATED = 254
"""Index of the first set of ``LabelSet.unannotated`` in prepared label maps; the others count down from it."""

MAX_INDICES = 254
"""Largest number of classes and sets of unannotated classes together, background included."""

Activation = Literal["softmax", "sigmoid"]
LabelKind = Literal["classes", "regions"]


class LabelClass(Schema):
    """One class.

    Attributes:
        name: name in reports and scores.
        value: value of its voxels in label maps.
    """

    name: str
    value: int


class Region(Schema):
    """One output channel of a region model: a named set of label values (whole tumour = {1, 2, 3}).

    Attributes:
        name: name in reports and scores.
        values: values of the classes that the region consists of.
    """

    name: str
    values: tuple[int, ...]


class LabelSet(Schema):
    """The classes of a dataset, background (value 0) first, then by value.

    Files contain *values*; prepared data and networks use *class indices* 0..K-1, so that gaps between values do not
    matter.

    Attributes:
        regions: overlapping output channels (sigmoid); empty for exclusive classes (softmax).
        region_order: the value that is written for each region, in the order of ``regions``; later regions overwrite
            earlier ones.
        ignore: the value of voxels without a reference label, if there is one.
        unannotated: sets of class values that were not annotated in some cases. In the prepared label map of such a
            case, the background has an index of its own (:meth:`unannotated_index`), because it may hide these classes.
    """

    classes: tuple[LabelClass, ...]
    regions: tuple[Region, ...] = ()
    region_order: tuple[int, ...] = ()
    ignore: int | None = None
    unannotated: tuple[tuple[int, ...], ...] = Field(default=(), exclude_if=lambda sets: not sets)

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        values = [c.value for c in self.classes]
        problems = []
        if not values or values[0] != 0:
            problems.append("the first class must be the background with value 0, even if no voxel has it")
        if values != sorted(set(values)):
            problems.append(f"class values must be distinct and ascending, found {values}")
        if len({c.name for c in self.classes}) != len(values):
            problems.append("two classes have the same name")
        if len(values) > MAX_INDICES - len(self.unannotated):
            sets = f" with {len(self.unannotated)} sets of classes that are not annotated" if self.unannotated else ""
            problems.append(f"{len(values)} classes{sets} are more than the {MAX_INDICES} that are supported")
        if len(set(self.unannotated)) < len(self.unannotated):
            problems.append("two sets of unannotated classes are equal")
        if wrong := sorted({v for members in self.unannotated for v in members} - set(values[1:])):
            problems.append(f"unannotated contains values that are no foreground class: {wrong}")
        if self.ignore is not None and self.ignore in values:
            problems.append(f"the ignore value {self.ignore} is also a class")
        for region in self.regions:
            unknown = sorted(set(region.values) - set(values))
            if unknown:
                problems.append(f"region {region.name!r} uses undeclared values {unknown}")
        if len(self.region_order) != len(self.regions):
            problems.append("region_order needs one value per region")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @classmethod
    def from_names(cls, foreground: list[str], *, background: str = "background") -> Self:
        """Make a label set of the background and the named classes with values 1, 2, ..."""
        names = [background, *foreground]
        return cls(classes=tuple(LabelClass(name=n, value=v) for v, n in enumerate(names)))

    @property
    def values(self) -> tuple[int, ...]:
        """File value of each class index."""
        return tuple(c.value for c in self.classes)

    @property
    def foreground(self) -> tuple[LabelClass, ...]:
        """All classes except the background."""
        return self.classes[1:]

    @property
    def n_classes(self) -> int:
        """Number of classes, including the background."""
        return len(self.classes)

    @property
    def max_unannotated(self) -> int:
        """Largest number of sets of unannotated classes that these classes leave room for."""
        return max(0, MAX_INDICES - self.n_classes)

    @property
    def n_outputs(self) -> int:
        """Number of output channels: one per region, or one per class including the background."""
        return len(self.regions) or self.n_classes

    @property
    def kind(self) -> LabelKind:
        """Kind of the output channels: exclusive ``classes``, the background included, or overlapping ``regions``."""
        return "regions" if self.regions else "classes"

    @property
    def output_names(self) -> tuple[str, ...]:
        """Name of each output channel."""
        return tuple(output.name for output in self.regions or self.classes)

    @property
    def n_background_outputs(self) -> int:
        """Number of output channels before those of the structures: one for the background of exclusive classes."""
        return self.n_outputs - len(self.structures)

    @property
    def structures(self) -> tuple[Region, ...]:
        """The structures that are learned, predicted and scored: the regions, or each foreground class."""
        return self.regions or tuple(Region(name=c.name, values=(c.value,)) for c in self.foreground)

    @property
    def structure_indices(self) -> tuple[tuple[int, ...], ...]:
        """Class indices of each structure."""
        return tuple(tuple(self.values.index(value) for value in s.values) for s in self.structures)

    @property
    def structure_values(self) -> tuple[int, ...]:
        """The value that each structure writes to a label map; later structures overwrite earlier ones."""
        return self.region_order if self.regions else self.values[1:]

    @property
    def activation(self) -> Activation:
        """The function from logits to probabilities: ``sigmoid`` for overlapping regions, else ``softmax``."""
        return "sigmoid" if self.regions else "softmax"

    def unannotated_index(self, values: Sequence[int]) -> int:
        """Return the index of the background where the classes ``values`` are not annotated: 254, 253, ..."""
        return _LAST_UNANNOTATED - self.unannotated.index(tuple(values))

    @property
    def possible_indices(self) -> dict[int, tuple[int, ...]]:
        """Index of an unannotated background -> the class indices that its voxels may have, 0 first."""
        return {
            self.unannotated_index(members): (0, *(self.values.index(value) for value in members))
            for members in self.unannotated
        }

    def annotated_structures(self, unannotated: Sequence[int]) -> tuple[bool, ...]:
        """Return which structures have a reference in a case without annotations of the classes ``unannotated``."""
        return tuple(not set(structure.values) & set(unannotated) for structure in self.structures)

    def find_undeclared_values(self, label: NDArray[Any]) -> list[float]:
        """Return the values of ``label`` that are neither a class nor the ignore value, ascending."""
        known = set(self.values) | ({self.ignore} if self.ignore is not None else set())
        return [v for v in np.unique(label).tolist() if v not in known]

    def to_indices(self, label: NDArray[Any], *, unannotated: Sequence[int] = ()) -> NDArray[np.uint8]:
        """Convert file values to class indices; ``ignore`` becomes :data:`IGNORE_INDEX`, undeclared values become 0.

        Args:
            unannotated: values of the classes that were not annotated in this case; one of the sets of
                ``self.unannotated``. Background and these classes get the index of this set.
        """
        background = self.unannotated_index(unannotated) if unannotated else 0
        out = np.full(label.shape, background, np.uint8)
        indices = enumerate(self.values[1:], start=1)
        known = [(value, background if value in unannotated else index) for index, value in indices]
        if self.ignore is not None:
            known.append((self.ignore, IGNORE_INDEX))
        if label.dtype in (np.uint8, np.int8, np.uint16, np.int16):
            _look_up(known, label, out, background)
        else:
            for value, index in known:
                out[label == value] = index
        return out

    def to_values(self, indices: NDArray[Any]) -> NDArray[Any]:
        """Convert class indices to file values, in the smallest integer type that can store all of them."""
        table = np.array(self.values)
        return np.asarray(table.astype(np.min_scalar_type(int(table.max())))[indices])


def _look_up(known: Sequence[tuple[int, int]], label: NDArray[Any], out: NDArray[np.uint8], background: int) -> None:
    """Write the class index of each voxel to ``out`` with a table of all values of a small integer type.

    One pass for any number of classes; slice by slice, since NumPy converts every index to 8 bytes.
    """
    limits = np.iinfo(label.dtype)
    table = np.full(limits.max - limits.min + 1, background, np.uint8)
    for value, index in known:
        if limits.min <= value <= limits.max:
            table[value] = index  # negative values index from the end of the table, as in the lookup below
    for plane in range(len(out)):
        out[plane] = table[label[plane]]


def foreground_mask(indices: NDArray[np.uint8], n_classes: int) -> NDArray[np.bool_]:
    """Return where a map of class indices has a foreground class; ignored and unannotated voxels are none."""
    return np.asarray((indices > 0) & (indices < n_classes))
