"""The input of DALI for a batch: patches, and the parameters of each sample's augmentation.

Drawn as it is for :class:`~decathlete.augmentation.pipeline.Augmenter`, from the same numbers.

Letters: B samples, C channels, T the transforms of ``CHANNEL_TRANSFORMS``; spatial axes are written ZYX, 2D lacks Z.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from decathlete.augmentation.batch import RawBatch, SpatialParams
from decathlete.augmentation.draws import RowContext
from decathlete.augmentation.pipeline import Augmenter
from decathlete.planning.network_spec import Axes

CHANNEL_TRANSFORMS = ("blur", "brightness", "contrast")
"""Those that each channel has for itself, in the order in which they are applied; noise precedes them."""
LEAST_SIGMA = 1e-3
"""Of a blur, voxels: to DALI, 0 is a sigma that is not given."""


class Feed(NamedTuple):
    """One batch of DALI's input: each field has one array for each sample.

    Attributes:
        image: float32 CZYX, as large as it was cut. label: uint8 ZYX with one channel before it, as large.
        noise: float32 CZYX, to be added to the patch; a single 0 where there is none.
        zoomed, noisy: whether ``roi`` and ``noise`` are to be heeded.
        roi: float32, first and last corner of what is shown, voxels from the edge of what was cut.
        flips: int32, 1 for each axis that is mirrored.
        changed_CT, strength_CT: bool and float32.
    """

    image: list[NDArray[np.float32]]
    label: list[NDArray[np.uint8]]
    noise: list[NDArray[np.float32]]
    zoomed: list[NDArray[np.bool_]]
    roi: list[NDArray[np.float32]]
    flips: list[NDArray[np.int32]]
    noisy: list[NDArray[np.bool_]]
    changed_CT: list[NDArray[np.bool_]]
    strength_CT: list[NDArray[np.float32]]


def make_feed(raw: RawBatch, augmenter: Augmenter) -> Feed:
    """Make the input of a batch from the augmenter's draws, which zoom and mirror but do not rotate."""
    patches = list(_patches(raw))
    n_channels = patches[0][0].shape[0]
    changed_BCT, strength_BCT, std_BC = _intensities(raw, augmenter, n_channels)
    noise = [_noise(raw, augmenter, sample, std_C) for sample, std_C in enumerate(std_BC)]
    return Feed(
        image=[image for image, _ in patches],
        label=[label for _, label in patches],
        noise=noise,
        zoomed=[np.array(draw.matrix is not None) for draw in raw.draws],
        roi=[_roi(draw, augmenter.patch_size) for draw in raw.draws],
        flips=[np.array(draw.flips, np.int32) for draw in raw.draws],
        noisy=[np.array(field.size > 1) for field in noise],
        changed_CT=list(changed_BCT),
        strength_CT=list(strength_BCT),
    )


def _patches(raw: RawBatch) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    """Return image and label (with a channel) of each sample, in order, as they were cut."""
    plain = zip(raw.plain_PCZYX.numpy(), raw.plain_label_PZYX.numpy(), strict=True)
    warped = zip(raw.warped_WCZYX.numpy(), raw.warped_label_WZYX.numpy(), strict=True)
    for draw in raw.draws:
        image, label = next(plain if draw.matrix is None else warped)
        inside = (..., *(slice(n) for n in draw.size))
        yield np.ascontiguousarray(image[inside]), np.ascontiguousarray(label[None][inside])


def _roi(draw: SpatialParams, patch_size: Axes) -> NDArray[np.float32]:
    """Return the region of the patch in the box that was cut around the same centre.

    DALI looks up the centre of voxel i of n at ``start + (i + 1/2) * (end - start) / n``: with this region, at as many
    voxels from the centre as the matrix says.
    """
    cut = np.array(draw.size)
    if draw.matrix is None:
        return np.stack([np.zeros_like(cut), cut]).astype(np.float32)
    shown = np.abs(np.diag(np.array(draw.matrix))) * patch_size
    return np.stack([(cut - shown) / 2, (cut + shown) / 2]).astype(np.float32)


def _intensities(
    raw: RawBatch, augmenter: Augmenter, n_channels: int
) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
    """changed_BCT and strength_BCT without masks, and the noise's standard deviations std_BC with them (0: none)."""
    n_changing = n_channels - augmenter.n_masks
    changed_RT = np.zeros((len(raw) * n_changing, len(CHANNEL_TRANSFORMS)), bool)
    strength_RT = np.ones(changed_RT.shape, np.float32)
    std_R = np.zeros(len(raw) * n_changing, np.float32)
    for name, rows, values in augmenter.strengths(raw.step, raw.indices, n_changing):
        if name == "noise":
            std_R[rows] = values
        else:
            place = CHANNEL_TRANSFORMS.index(name)
            changed_RT[rows, place] = True
            strength_RT[rows, place] = np.maximum(values, LEAST_SIGMA)
    by_sample = (len(raw), n_changing, len(CHANNEL_TRANSFORMS))
    std_BC = np.pad(std_R.reshape(len(raw), n_changing), ((0, 0), (0, augmenter.n_masks)))
    return changed_RT.reshape(by_sample), strength_RT.reshape(by_sample), std_BC


def _noise(raw: RawBatch, augmenter: Augmenter, sample: int, std_C: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the noise that is added to one sample."""
    if not std_C.any():
        return np.zeros([1] * (1 + len(augmenter.patch_size)), np.float32)
    noise = torch.zeros((len(std_C), *augmenter.patch_size))
    channels = np.flatnonzero(std_C)
    context = RowContext(
        seed=augmenter.seed,
        transform="noise",
        step=raw.step,
        samples=(raw.indices[sample],) * len(channels),
        channels=tuple(channels.tolist()),
    )
    noise[channels] = context.normal_like(noise[channels])
    return noise.numpy() * std_C.reshape(-1, *[1] * len(augmenter.patch_size))
