"""Measure what each step of post-processing would do to the Dice of held-out cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from decathlete.core.geometry import Geometry, Triple
from decathlete.core.labels import LabelSet, Region
from decathlete.evaluation.overlap import joint_box
from decathlete.inference.output.apply_postprocessing import Step, build_steps, postprocess
from decathlete.io.dicom_label import LabelStructures
from decathlete.io.format_settings import FormatSettings
from decathlete.io.images import read_label
from decathlete.models.record import PostprocessingStep

LabelZYX = NDArray[np.integer[Any]]
StructureDice = tuple[float | None, ...]
"""Dice of each structure, in the order of the labels; ``None`` where neither side has it."""

N_VOLUMES = 6
"""Smallest volumes that are tried for ``remove_small``, at most."""


@dataclass(frozen=True, kw_only=True)
class HeldOutCase:
    """A held-out case on disk.

    Attributes:
        spacing, formats: see :mod:`decathlete.io.images`.
        structures: of a truth that is a DICOM SEG object or RT structure set.
        unannotated: values of the classes that the truth does not annotate; their structures have no Dice.
    """

    prediction: Path
    truth: Path
    spacing: Triple | None = None
    formats: FormatSettings = ()
    structures: LabelStructures | None = None
    unannotated: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StepEffects:
    """The Dice of one case without and with each step.

    Attributes:
        before: of the prediction as it is.
        after: with a step alone, by the index of each step that changes the prediction.
        in_truth: whether the truth has each structure, in the order of the labels.
    """

    before: StructureDice
    after: Mapping[int, StructureDice]
    in_truth: tuple[bool, ...]


def candidate_steps(structure: str, smallest_truth_ml: float | None) -> list[PostprocessingStep]:
    """Return the steps that are tried for a structure, the component filters first.

    Volumes for ``remove_small`` are 1, 2 and 5 times powers of ten, up to half of the structure's smallest true volume
    in a held-out case: a larger one could remove a whole structure.

    >>> [step.settings.get("min_volume_ml") for step in candidate_steps("liver", 0.12)][1:-1]
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05]
    """
    of = {"structures": [structure]}
    volumes = [] if not smallest_truth_ml else _round_volumes(smallest_truth_ml / 2)
    return [
        PostprocessingStep(name="keep_largest_component", settings=of),
        *(PostprocessingStep(name="remove_small", settings={**of, "min_volume_ml": volume}) for volume in volumes),
        PostprocessingStep(name="fill_holes", settings=of),
    ]


def _round_volumes(largest_ml: float) -> list[float]:
    """Return the greatest numbers of the series 1, 2, 5, 10, ... up to ``largest_ml``, in ascending order."""
    top = floor(log10(largest_ml))
    series = [float(f"{digit}e{power}") for power in range(top - 2, top + 1) for digit in (1, 2, 5)]
    return [volume for volume in series if volume <= largest_ml][-N_VOLUMES:]


def measure_steps(case: HeldOutCase, *, labels: LabelSet, steps: Sequence[PostprocessingStep]) -> StepEffects:
    """Measure each step by itself on one case.

    Args:
        steps: each changes one structure.
    """
    prediction_ZYX, truth_ZYX, geometry = _read(case)
    counts = _Counts(prediction_ZYX, truth_ZYX, labels, unannotated=case.unannotated)
    boxes = ndimage.find_objects(prediction_ZYX)
    changed = {}
    for index, step in enumerate(build_steps(steps, labels)):
        (structure,) = step.structures
        box = _box(boxes, labels.structures[structure], prediction_ZYX.shape)
        if box is None:
            continue
        after_ZYX = postprocess(prediction_ZYX[box], geometry, labels, [step])
        dice = counts.dice_with(box, after_ZYX)
        if dice is not None:
            changed[index] = dice
    return StepEffects(before=counts.dice(), after=changed, in_truth=counts.in_truth())


def measure_all_steps(case: HeldOutCase, *, labels: LabelSet, steps: Sequence[PostprocessingStep]) -> StructureDice:
    """Return the Dice of each structure after all steps, one after the other."""
    prediction_ZYX, truth_ZYX, geometry = _read(case)
    run: tuple[Step, ...] = build_steps(steps, labels)
    after_ZYX = postprocess(prediction_ZYX, geometry, labels, run)
    return _Counts(after_ZYX, truth_ZYX, labels, unannotated=case.unannotated).dice()


def _read(case: HeldOutCase) -> tuple[LabelZYX, LabelZYX, Geometry]:
    """Read prediction and truth, cropped to the box around the foreground of both."""
    prediction = read_label(case.prediction, spacing=case.spacing, formats=case.formats)
    truth = read_label(case.truth, spacing=case.spacing, formats=case.formats, structures=case.structures)
    box = joint_box(prediction.array_ZYX, truth.array_ZYX, margin=1).slices
    return prediction.array_ZYX[box].astype(np.int32), truth.array_ZYX[box].astype(np.int32), truth.geometry


def _box(boxes: Sequence[Any], structure: Region, shape: Sequence[int]) -> tuple[slice, ...] | None:
    """Return the box around all values of a structure, with a border of one voxel inside the image."""
    found = [boxes[value - 1] for value in structure.values if value <= len(boxes) and boxes[value - 1] is not None]
    if not found:
        return None
    return tuple(
        slice(max(min(box[axis].start for box in found) - 1, 0), min(max(box[axis].stop for box in found) + 1, size))
        for axis, size in enumerate(shape)
    )


class _Counts:
    """Voxels by predicted and true value, from which the Dice of every structure follows."""

    def __init__(
        self, prediction_ZYX: LabelZYX, truth_ZYX: LabelZYX, labels: LabelSet, *, unannotated: Sequence[int] = ()
    ) -> None:
        self._is_annotated = labels.annotated_structures(unannotated)
        values = sorted({int(v) for v in labels.values} | ({labels.ignore} if labels.ignore is not None else set()))
        self._index = {value: index for index, value in enumerate(values)}
        self._values = np.array(values)
        self._ignored = None if labels.ignore is None else self._index[labels.ignore]
        self._members = np.array([[value in s.values for value in values] for s in labels.structures], np.int64)
        self._prediction_ZYX, self._truth_ZYX = prediction_ZYX, truth_ZYX
        self._table = sum(
            (self._count(p, t) for p, t in zip(prediction_ZYX, truth_ZYX, strict=True)), self._count_none()
        )

    def dice(self) -> StructureDice:
        """Return the Dice of each structure."""
        return self._dice_of(self._table)

    def in_truth(self) -> tuple[bool, ...]:
        """Return whether the truth has each structure; voxels that it ignores do not count."""
        true = self._members @ self._table.sum(0)
        return tuple(bool(scored and t) for t, scored in zip(true, self._is_annotated, strict=True))

    def dice_with(self, box: tuple[slice, ...], changed_ZYX: LabelZYX) -> StructureDice | None:
        """Return the Dice if the prediction were ``changed_ZYX`` inside ``box``; ``None`` if nothing changes."""
        before_ZYX = self._prediction_ZYX[box]
        differs_ZYX = before_ZYX != changed_ZYX
        if not differs_ZYX.any():
            return None
        truth_V = self._truth_ZYX[box][differs_ZYX]
        removed, added = self._count(before_ZYX[differs_ZYX], truth_V), self._count(changed_ZYX[differs_ZYX], truth_V)
        return self._dice_of(self._table - removed + added)

    def _count_none(self) -> NDArray[np.int64]:
        return np.zeros((len(self._values),) * 2, np.int64)

    def _count(self, prediction_V: LabelZYX, truth_V: LabelZYX) -> NDArray[np.int64]:
        n = len(self._values)
        places = np.searchsorted(self._values, prediction_V) * n + np.searchsorted(self._values, truth_V)
        table = np.bincount(places.ravel(), minlength=n * n).reshape(n, n)
        if self._ignored is not None:
            table[:, self._ignored] = 0
        return table

    def _dice_of(self, table: NDArray[np.int64]) -> StructureDice:
        predicted, true = self._members @ table.sum(1), self._members @ table.sum(0)
        both = ((self._members @ table) * self._members).sum(1)
        return tuple(
            float(2 * b / (p + t)) if scored and p + t else None
            for p, t, b, scored in zip(predicted, true, both, self._is_annotated, strict=True)
        )


def gather(dice: Mapping[str, StructureDice], structure: int) -> dict[str, float | None]:
    """Return the Dice of one structure in each case."""
    return {case_id: values[structure] for case_id, values in dice.items()}
