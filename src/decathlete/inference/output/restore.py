"""Restore the logits of a prepared image to the grid of its file, slab by slab.

The steps: resample to the shape of the crop (linear; nearest along a separated axis), decide on a label value, insert
into the uncropped grid, reorder the axes as in the file. Memory follows the slab: an output plane needs one or two
input planes along the first axis, so only the last planes are kept for the next slab.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decathlete.core.labels import IGNORE_INDEX, LabelSet
from decathlete.errors import ModelError
from decathlete.inference.output.probabilities import ProbabilityArray, ProbabilityStore
from decathlete.inference.windows.tiles import CHUNK_BYTES, FLOAT_BYTES
from decathlete.networks.outputs import activate, background_probability, decide_logits, file_dtype
from decathlete.preprocessing.prepared import Restoration
from decathlete.preprocessing.resample import linear_taps, resample_in_plane, resample_label

_BATCH_VALUES = 2**24
"""Logits that are restored at a time (64 MiB of float32); at least one plane of all classes."""


@dataclass(frozen=True, kw_only=True)
class RestoredPrediction:
    """A prediction on the grid of its file.

    Attributes:
        label_ZYX: file values, in the smallest integer type that holds them; background outside the crop.
        probabilities_KZYX: float32, 0..1, of each class (softmax) or region (sigmoid); outside the crop, the background
            has probability 1.
    """

    label_ZYX: NDArray[np.integer[Any]]
    probabilities_KZYX: NDArray[np.float32] | None = None


class Restorer:
    """Restores the slabs of one prediction, in ascending order of the first axis; never holds a volume of logits.

    Args:
        restoration: how the image was prepared.
        labels: of the model.
        probabilities: store that receives the probability of each class (softmax) or region (sigmoid), 0..1; outside
            the crop, the background has probability 1.
        temperature: logits are divided by it before they become probabilities.
    """

    def __init__(
        self,
        restoration: Restoration,
        labels: LabelSet,
        *,
        probabilities: ProbabilityStore | None = None,
        temperature: float = 1.0,
    ) -> None:
        self._restoration = restoration
        self._labels = labels
        self._taps = linear_taps(restoration.shape, restoration.crop.shape, restoration.logits_axis)
        self._device_taps = self._taps  # the same, where the logits are
        working = restoration.axes.shape(restoration.geometry.shape_ZYX)
        self._label_ZYX = np.zeros(working, file_dtype(labels))
        self._probabilities = probabilities
        self._temperature = temperature
        self._kept_KZYX: Tensor | None = None
        self._first = 0  # first of the input planes that are kept
        self._n_received = 0
        self._n_finished = 0

    def add(self, slab_KZYX: Tensor) -> None:
        """Restore the next planes of logits (any float type and device, working order, prepared grid).

        Raises:
            ModelError: the logits are not finite.
            ValueError: the slab does not fit the prepared image.
        """
        expected = (self._labels.n_outputs, *self._restoration.shape[1:])
        if (slab_KZYX.shape[0], *slab_KZYX.shape[2:]) != expected:
            raise ValueError(f"a slab of shape {tuple(slab_KZYX.shape)} does not fit outputs and planes {expected}")
        self._n_received += slab_KZYX.shape[1]
        if self._n_received > self._restoration.shape[0]:
            raise ValueError(f"{self._n_received} planes for an image of {self._restoration.shape[0]}")
        require_finite(slab_KZYX)
        slab_KZYX = slab_KZYX.float()
        known_KZYX = slab_KZYX if self._kept_KZYX is None else torch.cat([self._kept_KZYX, slab_KZYX], dim=1)
        self._kept_KZYX = None
        stop = int((self._taps[0].high < self._n_received).sum())  # output planes with all their input planes
        for first in range(self._n_finished, stop, self._batch):
            self._finish_planes(known_KZYX, first, min(first + self._batch, stop))
        self._n_finished = stop
        self._keep(known_KZYX)

    @property
    def _batch(self) -> int:
        _, height, width = self._restoration.crop.shape
        return max(1, _BATCH_VALUES // (self._labels.n_outputs * height * width))

    def _keep(self, known_KZYX: Tensor) -> None:
        """Keep the input planes that later output planes need."""
        low = self._taps[0].low
        needed = int(low[self._n_finished]) if self._n_finished < len(low) else self._n_received
        offset = min(max(needed - self._first, 0), known_KZYX.shape[1])
        if offset < known_KZYX.shape[1]:
            self._kept_KZYX = known_KZYX[:, offset:].clone()  # a view would keep the whole slab in memory
        self._first += offset

    def _finish_planes(self, known_KZYX: Tensor, start: int, stop: int) -> None:
        if self._device_taps[0].low.device != known_KZYX.device:  # once: the host waits for the device when it copies
            z_taps, y_taps, x_taps = (taps.to(known_KZYX.device) for taps in self._taps)
            self._device_taps = (z_taps, y_taps, x_taps)
        taps = self._device_taps[0].part(start, stop, offset=self._first)
        logits_KZYX = resample_in_plane(taps(known_KZYX, 1), self._device_taps)
        z, y, x = self._restoration.crop.slices
        planes = slice(z.start + start, z.start + stop)
        self._label_ZYX[planes, y, x] = decide_logits(logits_KZYX, self._labels)
        if self._probabilities is not None:
            if self._temperature != 1:
                logits_KZYX = logits_KZYX / self._temperature
            inside_KZYX = activate(logits_KZYX, self._labels).cpu().numpy()
            self._store_planes(self._probabilities, z.start + start, inside_KZYX)

    def _store_planes(self, store: ProbabilityStore, first: int, inside_KZYX: NDArray[np.float32]) -> None:
        """Store planes of the crop, extended to the whole cross-section."""
        _, y, x = self._restoration.crop.slices
        _, height, width = self._label_ZYX.shape
        for output, inside_ZYX in enumerate(inside_KZYX):
            planes_ZYX = inside_ZYX
            if inside_ZYX.shape[1:] != (height, width):
                planes_ZYX = np.full(
                    (len(inside_ZYX), height, width), background_probability(output, self._labels), np.float32
                )
                planes_ZYX[:, y, x] = inside_ZYX
            store.put(output, first, planes_ZYX)

    def _store_outside(self, store: ProbabilityStore) -> None:
        """Store the planes before and after the crop, where the store holds zeros."""
        depth, height, width = self._label_ZYX.shape
        z, _, _ = self._restoration.crop.slices
        for output in range(self._labels.n_outputs):
            if probability := background_probability(output, self._labels):
                plane_ZYX = np.full((1, height, width), probability, np.float32)
                for place in (*range(z.start), *range(z.stop, depth)):
                    store.put(output, place, plane_ZYX)

    def finish(self) -> NDArray[np.integer[Any]]:
        """Return the label map after all planes were added: file values, in the smallest integer type.

        Raises:
            ValueError: planes are missing.
        """
        if self._n_received != self._restoration.shape[0]:
            raise ValueError(f"{self._n_received} of {self._restoration.shape[0]} planes were added")
        if self._probabilities is not None:
            self._store_outside(self._probabilities)
        return np.ascontiguousarray(self._restoration.axes.invert(self._label_ZYX))


def require_finite(logits_KZYX: Tensor) -> None:
    """Check logits before they become a label map: of NaN, every class is as good, and the background wins.

    A sum reads them once, in parallel and without a copy; only a sum that is not finite needs a closer look, since it
    may be that of finite logits.

    Raises:
        ModelError: some are NaN or infinite.
    """
    if math.isfinite(logits_KZYX.sum().item()) or all(plane.isfinite().all() for plane in logits_KZYX.unbind(1)):
        return
    raise ModelError(
        "the network computed logits that are NaN or infinite",
        remedy="predict with --precision fp32, and check the image for extreme intensities; if neither helps, the "
        "model is damaged",
        code="E-MODEL-LOGITS",
    )


def restoring_bytes(restoration: Restoration, labels: LabelSet) -> int:
    """Return the most memory that a :class:`Restorer` needs beside a slab and the label map."""
    plane_bytes, finished_bytes = (
        FLOAT_BYTES * labels.n_outputs * shape[1] * shape[2] for shape in (restoration.shape, restoration.crop.shape)
    )
    batch_bytes = max(FLOAT_BYTES * _BATCH_VALUES, finished_bytes)
    if restoration.shape == restoration.crop.shape:
        return 2 * batch_bytes  # planes of the slab, their probabilities
    before_bytes = max(plane_bytes, batch_bytes * plane_bytes // finished_bytes)
    joined_bytes = CHUNK_BYTES + 4 * plane_bytes  # planes that are kept, and all with the slab
    return joined_bytes + 3 * before_bytes + 2 * batch_bytes


def restore(
    logits_KZYX: Tensor, restoration: Restoration, labels: LabelSet, *, probabilities: bool = False
) -> RestoredPrediction:
    """Restore a whole volume of logits at once."""
    store = ProbabilityArray(labels.n_outputs, restoration.geometry, restoration.axes) if probabilities else None
    restorer = Restorer(restoration, labels, probabilities=store)
    restorer.add(logits_KZYX)
    return RestoredPrediction(label_ZYX=restorer.finish(), probabilities_KZYX=store.array_KZYX if store else None)


def restore_label(label_ZYX: NDArray[np.uint8], restoration: Restoration, labels: LabelSet) -> NDArray[np.integer[Any]]:
    """Convert class indices on the prepared grid to file values on the file's grid (background outside the crop).

    Voxels without a truth (``IGNORE_INDEX``) become the ignore value.
    """
    cropped_ZYX = resample_label(
        torch.from_numpy(np.ascontiguousarray(label_ZYX)),
        restoration.crop.shape,
        labels.n_classes,
        separate_axis=restoration.separate_axis,
    ).numpy()
    table = np.zeros(256, file_dtype(labels))
    table[: labels.n_classes] = labels.values
    if labels.ignore is not None:
        table[IGNORE_INDEX] = labels.ignore
    out_ZYX = np.zeros(restoration.axes.shape(restoration.geometry.shape_ZYX), table.dtype)
    out_ZYX[restoration.crop.slices] = table[cropped_ZYX]
    return np.ascontiguousarray(restoration.axes.invert(out_ZYX))
