"""What the voxels of a label map mean: classes, overlapping regions, the ignore label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from decathlete.core.schema import Schema

IGNORE_INDEX = 255
"""Class index of voxels without a truth, in prepared label maps."""

Activation = Literal["softmax", "sigmoid"]


class LabelClass(Schema):
    """One class: its name and the value it has in the files."""

    name: str
    value: int


class Region(Schema):
    """One output channel of a region model: a named set of label values (whole tumour = {1, 2, 3})."""

    name: str
    values: tuple[int, ...]


class LabelSet(Schema):
    """The classes of a dataset, background (value 0) first, then by value.

    Files hold *values*; prepared data and networks hold *class indices* 0..K-1, so gaps in the values cost nothing.

    Attributes:
        regions: overlapping output channels (sigmoid); empty for exclusive classes (softmax).
        region_order: values written for each region, in the order of painting (later paints over earlier); as
            many as regions.
        ignore: the value of voxels without a truth, if there is one.
    """

    classes: tuple[LabelClass, ...]
    regions: tuple[Region, ...] = ()
    region_order: tuple[int, ...] = ()
    ignore: int | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        values = [c.value for c in self.classes]
        problems = []
        if not values or values[0] != 0:
            problems.append("the first class must be the background with value 0")
        if values != sorted(set(values)):
            problems.append(f"class values must be distinct and ascending, found {values}")
        if len({c.name for c in self.classes}) != len(values):
            problems.append("two classes have one name")
        if len(values) > 254:
            problems.append(f"{len(values)} classes are more than the 254 that are supported")
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
        """Background, then the named classes with values 1, 2, ..."""
        names = [background, *foreground]
        return cls(classes=tuple(LabelClass(name=n, value=v) for v, n in enumerate(names)))

    @property
    def values(self) -> tuple[int, ...]:
        """File value of each class index."""
        return tuple(c.value for c in self.classes)

    @property
    def foreground(self) -> tuple[LabelClass, ...]:
        """All classes but the background."""
        return self.classes[1:]

    @property
    def n_classes(self) -> int:
        """Classes with the background."""
        return len(self.classes)

    @property
    def n_outputs(self) -> int:
        """Channels of the network: one per region, or one per class with the background."""
        return len(self.regions) or self.n_classes

    @property
    def structures(self) -> tuple[Region, ...]:
        """What is learned, predicted and scored: the regions, or each foreground class by itself."""
        return self.regions or tuple(Region(name=c.name, values=(c.value,)) for c in self.foreground)

    @property
    def structure_indices(self) -> tuple[tuple[int, ...], ...]:
        """The class indices that each structure consists of."""
        return tuple(tuple(self.values.index(value) for value in s.values) for s in self.structures)

    @property
    def structure_values(self) -> tuple[int, ...]:
        """The value that each structure writes to a label map; later structures overwrite earlier ones."""
        return self.region_order if self.regions else self.values[1:]

    @property
    def activation(self) -> Activation:
        """What turns logits into probabilities: ``sigmoid`` for overlapping regions, else ``softmax``."""
        return "sigmoid" if self.regions else "softmax"

    def undeclared(self, label: NDArray[Any]) -> list[float]:
        """Values found in ``label`` that are neither a class nor the ignore value, ascending."""
        known = set(self.values) | ({self.ignore} if self.ignore is not None else set())
        return [v for v in np.unique(label).tolist() if v not in known]

    def to_indices(self, label: NDArray[Any]) -> NDArray[np.uint8]:
        """File values to class indices (``ignore`` becomes :data:`IGNORE_INDEX`); undeclared values become 0."""
        out = np.zeros(label.shape, np.uint8)
        known = list(zip(self.values[1:], range(1, self.n_classes), strict=True))
        if self.ignore is not None:
            known.append((self.ignore, IGNORE_INDEX))
        if label.dtype in (np.uint8, np.int8, np.uint16, np.int16):
            _look_up(known, label, out)
        else:
            for value, index in known:
                out[label == value] = index
        return out

    def to_values(self, indices: NDArray[Any]) -> NDArray[Any]:
        """Class indices back to file values, in the smallest integer type that holds them all."""
        table = np.array(self.values)
        return np.asarray(table.astype(np.min_scalar_type(int(table.max())))[indices])


def _look_up(known: Sequence[tuple[int, int]], label: NDArray[Any], out: NDArray[np.uint8]) -> None:
    """Write each voxel's index to ``out`` by a table of all values of a small type: in one pass, for any number of
    classes, and slice by slice, since NumPy makes 8 bytes of every value that it looks up."""
    limits = np.iinfo(label.dtype)
    table = np.zeros(limits.max - limits.min + 1, np.uint8)
    for value, index in known:
        if limits.min <= value <= limits.max:
            table[value] = index  # negative values count from the table's end, as in the lookup
    for plane in range(len(out)):
        out[plane] = table[label[plane]]
