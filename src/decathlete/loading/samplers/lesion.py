"""Patches by lesion: each connected component of a class is shown equally often, however small it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from decathlete.core.labels import IGNORE_INDEX
from decathlete.core.rng import stream
from decathlete.errors import OptionError
from decathlete.loading.samplers import SAMPLERS, SamplerContext
from decathlete.loading.samplers._oversampling import Foreground, OversamplingSampler, OversamplingSettings

MERGED = 1
"""Key of the components of all classes together."""

Lesions = Mapping[int, tuple[NDArray[np.int64], ...]]
"""Class index -> for each component, flat places of some of its voxels."""

Slices = tuple[slice, ...]
"""A box in a volume, one slice for each axis."""


@SAMPLERS.register("lesion")
class LesionSampler(OversamplingSampler):
    """Patches anywhere, and a share of each batch on a connected component of the foreground (a lesion).

    The class is drawn first, each class of the case with the same probability; then one of its components, each with
    the same probability; then a voxel of it. With the sampler ``foreground``, a lesion with a tenth of the volume is
    shown a tenth as often.

    Components are found in the prepared label when a case is first used in a process, and kept (up to
    ``voxels_per_lesion`` places of each).

    Raises:
        OptionError: the labels of the training cases are not available.
    """

    class Settings(OversamplingSettings):
        merge_classes: bool = False
        """Whether touching voxels of different classes belong to one lesion, e.g. a tumour with its parts."""
        voxels_per_lesion: int = Field(default=64, ge=1, le=10_000)
        """Number of voxels of a lesion that can become the centre of a patch."""

    settings: Settings

    def __init__(self, settings: Settings, context: SamplerContext) -> None:
        super().__init__(settings, context)
        if context.read_label is None:
            raise OptionError(
                "the sampler lesion needs the labels of the training cases", remedy="use the sampler foreground"
            )
        self._read_label = context.read_label
        self._lesions: dict[str, Lesions] = {}
        self._lock = Lock()

    def choose_voxels(
        self, foreground: Foreground, step: int, index: int, random: np.random.Generator
    ) -> NDArray[np.int64] | None:
        """Return voxels of one lesion of the case."""
        classes = [value for value in foreground if value != IGNORE_INDEX]
        if not classes:
            return None
        lesions = self._lesions_of(self.case_id(step, index), classes)
        if not lesions:
            return None
        of_class = lesions[sorted(lesions)[int(random.integers(len(lesions)))]]
        return of_class[int(random.integers(len(of_class)))]

    def _lesions_of(self, case_id: str, classes: Sequence[int]) -> Lesions:
        found = self._lesions.get(case_id)
        if found is None:
            with self._lock:  # one case at a time: labelling needs several times the label's memory
                found = self._lesions.get(case_id)
                if found is None:
                    found = self._lesions[case_id] = self._find_lesions(case_id, classes)
        return found

    def _find_lesions(self, case_id: str, classes: Sequence[int]) -> Lesions:
        """Find the components of one class after the other, each in its box: masks of all classes take much memory.

        Args:
            classes: neither the index of ignored voxels nor that of background that is not annotated.
        """
        from scipy import ndimage

        label_ZYX = self._read_label(case_id)
        boxes = dict(enumerate(ndimage.find_objects(label_ZYX, max(classes)), start=1))
        found = [value for value in sorted(classes) if boxes[value] is not None]
        groups = {value: [value] for value in found}
        if self.settings.merge_classes and found:
            groups = {MERGED: found}
        return {
            value: self._components(
                label_ZYX, members, _joint_box([boxes[m] for m in members]), stream(0, "lesion", case_id, value)
            )
            for value, members in groups.items()
        }

    def _components(
        self, label_ZYX: NDArray[np.uint8], members: Sequence[int], box: Slices, random: np.random.Generator
    ) -> tuple[NDArray[np.int64], ...]:
        """Return some places of each component, drawn evenly; voxels that share a corner are connected.

        Args:
            members: indices of the classes whose voxels belong to the components.
            box: contains all of these voxels.
        """
        from scipy import ndimage

        components_ZYX, _ = ndimage.label(np.isin(label_ZYX[box], members), np.ones((3, 3, 3)))
        places = np.flatnonzero(components_ZYX)
        numbers = components_ZYX.ravel()[places]
        order = np.argsort(numbers, kind="stable")
        ends = np.cumsum(np.bincount(numbers)[1:])[:-1]
        return tuple(
            _places_in_volume(self._some(voxels, random), box, label_ZYX.shape)
            for voxels in np.split(places[order], ends)
        )

    def _some(self, voxels: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        n = self.settings.voxels_per_lesion
        return voxels if len(voxels) <= n else np.sort(random.choice(voxels, n, replace=False))


def _joint_box(boxes: Sequence[Slices]) -> Slices:
    """Return the smallest box around boxes."""
    return tuple(slice(min(p.start for p in parts), max(p.stop for p in parts)) for parts in zip(*boxes, strict=True))


def _places_in_volume(places: NDArray[np.int64], box: Slices, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Convert flat places in a box of a volume to flat places in the volume."""
    corners = np.unravel_index(places, [part.stop - part.start for part in box])
    flat: NDArray[np.int64] = np.ravel_multi_index(
        tuple(c + part.start for c, part in zip(corners, box, strict=True)), shape
    )
    return flat
