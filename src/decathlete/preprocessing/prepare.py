"""One case from its own grid to what the network sees: the same function for training and for prediction.

Reorientation and axis order, crop to the non-zero box of the *image* (so that a prediction, which has no label, is
cropped in the same way), then normalisation and resampling in the plan's order. Padding is left to the code that cuts
patches.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from decathlete.core.geometry import nonzero_box
from decathlete.core.labels import IGNORE_INDEX, foreground_mask
from decathlete.core.rng import stream
from decathlete.errors import GridMismatchError, ImageError, ModelError
from decathlete.io.volumes import SPLIT_4D, Image, LabelMap, describe_misplaced_channels
from decathlete.planning.plan import Plan
from decathlete.preprocessing.normalize import needs_mask, normalize, object_mask
from decathlete.preprocessing.prepared import PreparedCase, Restoration
from decathlete.preprocessing.resample import resample_image, resample_label, resampled_shape, separated_axis

log = logging.getLogger(__name__)

FOREGROUND_SAMPLES = 10_000
"""Voxels of each class whose places are kept for foreground oversampling."""
_CHUNK = 1 << 22
"""Voxels whose classes are looked up at a time."""


def prepare(
    image: Image, plan: Plan, *, label: LabelMap | None = None, unannotated: Sequence[int] = (), case_id: str = ""
) -> PreparedCase:
    """Make a case ready for the network.

    Args:
        image: as read, on its own grid.
        label: file values, on the image's grid; without it the case is prepared for prediction.
        unannotated: values of the classes that were not annotated in this case.
        case_id: names the case in messages and seeds its foreground sample.

    Raises:
        ModelError: the image has another number of channels than the plan.
        ImageError: NaN or infinite intensities.
        GridMismatchError: image and label lie on different grids.
    """
    _check(image, plan, label, case_id)
    axes = plan.axes(image.geometry)
    image_CZYX = axes.apply(image.array_CZYX)
    crop = nonzero_box(image_CZYX)
    spacing = axes.geometry(image.geometry).spacing_ZYX
    target = plan.target(spacing)
    restoration = Restoration(
        geometry=image.geometry,
        axes=axes,
        crop=crop,
        shape=resampled_shape(crop.shape, spacing, target),
        separate_axis=separated_axis(plan.resampling, spacing, target),
        logits_axis=separated_axis(plan.resampling, target, spacing),
    )
    cropped_CZYX = np.ascontiguousarray(image_CZYX[:, *crop.slices], dtype=np.float32)
    label_ZYX = None
    if label is not None:
        indices_ZYX = axes.apply(plan.labels.to_indices(label.array_ZYX, unannotated=unannotated))
        label_ZYX = _prepare_label(indices_ZYX, restoration, plan, case_id)
    return PreparedCase(
        case_id=case_id,
        image_CZYX=_prepare_image(cropped_CZYX, restoration, plan),
        label_ZYX=label_ZYX,
        foreground={} if label_ZYX is None else foreground_sample(label_ZYX, case_id, plan.labels.n_classes),
        restoration=restoration,
    )


def _check(image: Image, plan: Plan, label: LabelMap | None, case_id: str) -> None:
    where = f"case {case_id}" if case_id else "the image"
    n_channels = image.array_CZYX.shape[0]
    if n_channels != len(plan.channels):
        raise ModelError(
            f"has {_channels(n_channels)}, but the plan is for {_channels(len(plan.channels))} "
            f"({', '.join(plan.channels)}){describe_misplaced_channels(image, len(plan.channels))}",
            where=where,
            remedy=f"{SPLIT_4D}; convert colours to grey values"
            if len(plan.channels) == 1
            else "use one file per channel (ID_0000, ID_0001, ...) or one with all channels, as in training",
            code="E-IMAGE-CHANNELS",
        )
    if not np.isfinite(image.array_CZYX).all():
        raise ImageError(
            "contains voxels that are NaN, infinite or beyond 3.4e38, the range of 32-bit numbers",
            where=where,
            remedy="replace them by another value (for example the background's) in the file",
            code="E-IMAGE-VALUES",
        )
    differences = image.geometry.differences(label.geometry) if label is not None else []
    if differences:
        raise GridMismatchError(
            f"image and label lie on different grids: {'; '.join(differences)}",
            where=where,
            remedy="resample the label to the image's grid, or correct its header",
        )


def _channels(n: int) -> str:
    return f"{n} channel" if n == 1 else f"{n} channels"


def _prepare_image(image_CZYX: NDArray[np.float32], restoration: Restoration, plan: Plan) -> NDArray[np.float32]:
    shown = plan.foreground_channel and plan.foreground_rule == "object"
    mask_ZYX = resampled_ZYX = None
    if shown or needs_mask(plan.normalization):
        mask_ZYX = object_mask(image_CZYX, fill_slice_holes=plan.fill_slice_holes)
    if mask_ZYX is not None and (shown or plan.preprocessing_order == "recipe"):
        # As a label: a voxel belongs to the object or does not, also between the voxels of the file.
        resampled_ZYX = _resampled_label(mask_ZYX.astype(np.uint8), restoration, 2).astype(bool)
    if plan.preprocessing_order == "nnunet":
        out_CZYX = _resample(normalize(image_CZYX, plan.normalization, mask_ZYX), restoration, plan)
    else:
        out_CZYX = normalize(_resample(image_CZYX, restoration, plan), plan.normalization, resampled_ZYX)
    if not plan.foreground_channel:
        return out_CZYX
    positive_ZYX: NDArray[np.bool_] = np.all(out_CZYX > 0, axis=0)
    foreground_ZYX = resampled_ZYX if shown and resampled_ZYX is not None else positive_ZYX
    return np.concatenate([out_CZYX, foreground_ZYX[None].astype(np.float32)])


def _resample(image_CZYX: NDArray[np.float32], restoration: Restoration, plan: Plan) -> NDArray[np.float32]:
    return resample_image(
        torch.from_numpy(image_CZYX),
        restoration.shape,
        order=plan.resampling.image_order,
        separate_axis=restoration.separate_axis,
    ).numpy()


def _resampled_label(label_ZYX: NDArray[np.uint8], restoration: Restoration, n_classes: int) -> NDArray[np.uint8]:
    return resample_label(
        torch.from_numpy(label_ZYX), restoration.shape, n_classes, separate_axis=restoration.separate_axis
    ).numpy()


def _prepare_label(
    indices_ZYX: NDArray[np.uint8], restoration: Restoration, plan: Plan, case_id: str
) -> NDArray[np.uint8]:
    crop = restoration.crop
    cropped_ZYX = np.ascontiguousarray(indices_ZYX[crop.slices])
    n_classes = plan.labels.n_classes
    lost = int(foreground_mask(indices_ZYX, n_classes).sum() - foreground_mask(cropped_ZYX, n_classes).sum())
    if lost:
        log.warning("case %s: %d labelled voxels lie outside the image's non-zero box and are lost", case_id, lost)
    return _resampled_label(cropped_ZYX, restoration, n_classes)


def foreground_sample(
    label_ZYX: NDArray[np.uint8], case_id: str, n_classes: int = IGNORE_INDEX
) -> dict[int, NDArray[np.int64]]:
    """Class index -> flat places of at most :data:`FOREGROUND_SAMPLES` of its voxels, ascending; no absent class.

    Of a label map with ignored voxels, ``IGNORE_INDEX`` has places of the others, so that patches can be cut there.
    """
    flat = label_ZYX.reshape(-1)
    counts = np.zeros(IGNORE_INDEX + 1, np.int64)
    for part in _chunks(flat):
        counts += np.bincount(part[part > 0], minlength=len(counts))
    present = np.flatnonzero(foreground_mask(np.arange(len(counts), dtype=np.uint8), n_classes) & (counts > 0)).tolist()
    sizes = {value: int(counts[value]) for value in present}
    if counts[IGNORE_INDEX] and (n_annotated := flat.size - int(counts[IGNORE_INDEX])):
        sizes = {IGNORE_INDEX: n_annotated, **sizes}
    ranks = {value: _some_ranks(size, case_id, value) for value, size in sizes.items()}
    found: dict[int, list[NDArray[np.int64]]] = {value: [] for value in sizes}
    seen = dict.fromkeys(sizes, 0)
    for number, part in enumerate(_chunks(flat)):
        for value, places in _places_by_value(part, sizes):
            lowest, highest = np.searchsorted(ranks[value], [seen[value], seen[value] + len(places)])
            chosen = ranks[value][lowest:highest] - seen[value]
            found[value].append(places[chosen] + number * _CHUNK)
            seen[value] += len(places)
    return {value: np.concatenate(parts).astype(np.int64) for value, parts in found.items()}


def _chunks(flat: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Yield a label map in parts: places and their order take 16 bytes for each voxel of a part."""
    return (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))


def _some_ranks(size: int, case_id: str, value: int) -> NDArray[np.int64]:
    """Choose at most :data:`FOREGROUND_SAMPLES` of ``size`` voxels, ascending."""
    if size <= FOREGROUND_SAMPLES:
        return np.arange(size)
    chosen = stream(0, "foreground", case_id, value).choice(size, FOREGROUND_SAMPLES, replace=False)
    ranks: NDArray[np.int64] = np.sort(chosen)
    return ranks


def _places_by_value(part: NDArray[np.uint8], wanted: Container[int]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield the places of each wanted class, ascending; of ``IGNORE_INDEX`` those of all other voxels."""
    if IGNORE_INDEX in wanted:
        yield IGNORE_INDEX, np.flatnonzero(part != IGNORE_INDEX)
    places = np.flatnonzero((part > 0) & (part != IGNORE_INDEX))
    if not places.size:
        return
    values = part[places]
    by_class = np.argsort(values, kind="stable")
    present, first = np.unique(values[by_class], return_index=True)
    for value, members in zip(present.tolist(), np.split(by_class, first[1:]), strict=True):
        if value in wanted:
            yield value, places[members]
