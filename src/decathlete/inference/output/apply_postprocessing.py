"""Post-processing of a finished label map: steps change the masks of structures, and the masks determine the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import ndimage

from decathlete.core.geometry import Geometry
from decathlete.core.labels import LabelSet, Region
from decathlete.core.schema import describe
from decathlete.errors import ModelError, OptionError
from decathlete.inference.output.postprocessing import POSTPROCESSING, Postprocessing, PostprocessingSettings
from decathlete.models.record import PostprocessingStep

LabelZYX = NDArray[np.integer[Any]]

_REMEDY = "fix the step, or combine the model again with other post-processing"


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step that is ready to run.

    Attributes:
        structures: indices of those that it changes.
        together: whether it changes their union, not one after the other.
    """

    run: Postprocessing
    structures: tuple[int, ...]
    together: bool = False


def build_steps(steps: Sequence[PostprocessingStep], labels: LabelSet) -> tuple[Step, ...]:
    """Make the steps that a model's record lists.

    Raises:
        ModelError: an unknown step, settings that it does not have, or a structure that ``labels`` do not have.
    """
    return tuple(_build_step(step, labels) for step in steps)


def postprocess(label_ZYX: LabelZYX, geometry: Geometry, labels: LabelSet, steps: Sequence[Step]) -> LabelZYX:
    """Return the label map after all steps; ``label_ZYX`` itself is not modified.

    A voxel that leaves a structure gets the label of the last structure that it is still part of, in the order of
    painting, or background. A voxel that joins a structure gets that structure's label, or that of a later structure
    inside it; of exclusive classes only background voxels join.

    Args:
        label_ZYX: file values on the grid of ``geometry``.
    """
    label_ZYX = label_ZYX.copy()
    for step in steps:
        if step.together:
            _remove_from_union(label_ZYX, step, labels, geometry.voxel_volume_mm3)
            continue
        for index in step.structures:
            _change_structure(label_ZYX, step.run, index, labels, geometry.voxel_volume_mm3)
    return label_ZYX


def _build_step(step: PostprocessingStep, labels: LabelSet) -> Step:
    try:
        settings = POSTPROCESSING.resolve(step.name).settings.model_validate(step.settings)
    except ValidationError as problem:
        message = f"post-processing {step.name}: {'; '.join(describe(problem))}"
        raise ModelError(message, remedy=_REMEDY, code="E-MODEL-POSTPROCESSING") from None
    except OptionError as problem:
        raise ModelError(problem.problem, remedy=problem.remedy, code="E-MODEL-POSTPROCESSING") from None
    names = [structure.name for structure in labels.structures]
    chosen = (settings.structures if isinstance(settings, PostprocessingSettings) else ()) or names
    if unknown := [name for name in chosen if name not in names]:
        raise ModelError(
            f"post-processing {step.name} names unknown structures: {', '.join(unknown)}",
            remedy=f"choose among {', '.join(names)}",
            code="E-MODEL-POSTPROCESSING",
        )
    together = isinstance(settings, PostprocessingSettings) and settings.together
    return Step(
        run=POSTPROCESSING.build(settings), structures=tuple(names.index(name) for name in chosen), together=together
    )


def _change_structure(
    label_ZYX: LabelZYX, run: Postprocessing, index: int, labels: LabelSet, voxel_volume_mm3: float
) -> None:
    """Change one structure of ``label_ZYX`` in place."""
    structure = labels.structures[index]
    cut = _cut_out(label_ZYX, structure.values)
    if cut is None:
        return
    inside_ZYX, part_ZYX = cut
    changed_ZYX = run(inside_ZYX, voxel_volume_mm3)
    removed_ZYX, added_ZYX = inside_ZYX & ~changed_ZYX, changed_ZYX & ~inside_ZYX
    if labels.activation == "softmax":  # exclusive classes
        added_ZYX &= part_ZYX == 0
    part_ZYX[removed_ZYX] = _without(part_ZYX[removed_ZYX], structure, labels)
    part_ZYX[added_ZYX] = _with(part_ZYX[added_ZYX], index, labels)


def _remove_from_union(label_ZYX: LabelZYX, step: Step, labels: LabelSet, voxel_volume_mm3: float) -> None:
    """Remove voxels from all structures of a step in place, where it removes them from their union."""
    structures = [labels.structures[index] for index in step.structures]
    cut = _cut_out(label_ZYX, sorted({value for structure in structures for value in structure.values}))
    if cut is None:
        return
    inside_ZYX, part_ZYX = cut
    removed_ZYX = inside_ZYX & ~step.run(inside_ZYX, voxel_volume_mm3)
    for structure in structures:
        leaving_ZYX = removed_ZYX & np.isin(part_ZYX, structure.values)
        part_ZYX[leaving_ZYX] = _without(part_ZYX[leaving_ZYX], structure, labels)


def _cut_out(label_ZYX: LabelZYX, values: Sequence[int]) -> tuple[NDArray[np.bool_], LabelZYX] | None:
    """Return the mask of some values and a view of the label map, in the box that contains them; ``None`` without any.

    The box has a border of one voxel, so that an axis has size 1 only if the image has.
    """
    mask_ZYX = np.isin(label_ZYX, values)
    boxes = ndimage.find_objects(mask_ZYX.astype(np.uint8))
    if not boxes:
        return None
    box = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in boxes[0])
    return mask_ZYX[box], label_ZYX[box]


def _without(values: LabelZYX, removed: Region, labels: LabelSet) -> LabelZYX:
    """Return the new values of voxels that leave a structure."""
    out = np.zeros_like(values)
    for structure, painted in zip(labels.structures, labels.structure_values, strict=True):
        if painted not in removed.values:
            out[np.isin(values, structure.values)] = painted
    return out


def _with(values: LabelZYX, index: int, labels: LabelSet) -> LabelZYX:
    """Return the new values of voxels that join a structure."""
    joined = labels.structures[index]
    out = values.copy()
    for number, (structure, painted) in enumerate(zip(labels.structures, labels.structure_values, strict=True)):
        if painted in joined.values:
            out[np.isin(values, structure.values) | (number == index)] = painted
    return out
