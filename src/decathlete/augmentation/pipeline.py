"""All augmentation of one batch, on the training device.

What is drawn depends on seed, step and index in the global batch alone, so the same sample comes out whatever the
number of ranks and readers. (The noise field is generated on the device: equal on devices of one kind.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decathlete.augmentation import intensity
from decathlete.augmentation.batch import RawBatch, SpatialParams
from decathlete.augmentation.config import AugmentationConfig, IntensityTransform
from decathlete.augmentation.device import put_rows, to_device
from decathlete.augmentation.spatial import SpatialSampler, place
from decathlete.core.rng import stream, stream_key
from decathlete.errors import OptionError
from decathlete.planning.network_spec import Axes, Dims

_ORDER = ("noise", "blur", "brightness", "contrast", "low_resolution", "gamma_inverted", "gamma")

RowTransform = Callable[[Tensor, Tensor], Tensor]


class Augmenter:
    """Turns batches as read into batches to train on.

    Args:
        patch_size: 2 or 3 numbers, voxels.
        seed: of every draw.
        n_masks: so many last channels are masks of 0 and 1: they move with the image, but have no intensities.

    Raises:
        OptionError: the configuration mirrors an axis that the patch does not have.
    """

    def __init__(self, config: AugmentationConfig, *, patch_size: Axes, seed: int, n_masks: int = 0) -> None:
        dims: Dims = 3 if len(patch_size) == 3 else 2
        self.config = config
        self.patch_size = patch_size
        self.seed = seed
        self.n_masks = n_masks
        self.mirror_axes = config.mirror_axes(dims)
        if any(axis >= dims for axis in self.mirror_axes):
            raise OptionError(
                f"mirroring.axes {self.mirror_axes} name an axis that a {dims}D patch does not have",
                remedy=f"choose among {tuple(range(dims))}, or leave it unset for all axes",
            )
        self._spatial = SpatialSampler(config, patch_size=patch_size, mirror_axes=self.mirror_axes, seed=seed)

    def draw(self, step: int, index: int) -> SpatialParams:
        """What happens in space to sample ``index`` of the global batch in ``step``; its ``size`` is to be cut."""
        return self._spatial.draw(step, index)

    @torch.no_grad()
    def __call__(self, batch: RawBatch, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Augment a batch on ``device``.

        Returns:
            image_BCZYX (float32) and label_BZYX (uint8 class indices, ``IGNORE_INDEX`` where there is no truth);
            2D: BCYX and BYX.
        """
        batch = batch.to(device, non_blocking=True)
        image_BCZYX, label_BZYX = place(batch, self.patch_size)
        if self.n_masks:
            masks_BMZYX = image_BCZYX[:, -self.n_masks :]
            masks_BMZYX.copy_(masks_BMZYX > 0.5)  # rotation interpolates
        self._change_intensities(image_BCZYX, batch)
        return image_BCZYX, label_BZYX

    def _change_intensities(self, image_BCZYX: Tensor, batch: RawBatch) -> None:
        """In place; rows that are counted here leave out the masks."""
        n_channels = image_BCZYX.shape[1] - self.n_masks
        rows = image_BCZYX.flatten(0, 1)
        for name, drawn, values in self.strengths(batch.step, batch.indices, n_channels):
            index = drawn + drawn // n_channels * self.n_masks
            changed = self._transform(name, drawn, batch, n_channels)(
                rows.index_select(0, to_device(index, rows.device)), to_device(values, rows.device)
            )
            put_rows(rows, index, changed)

    def strengths(
        self, step: int, indices: Sequence[int], n_channels: int
    ) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.float64]]]:
        """What happens to the intensities of samples of the global batch in ``step``.

        Args:
            n_channels: without masks.

        Yields:
            In the order in which they are applied, the transforms that change something: name, which rows
            (position in ``indices`` * n_channels + channel), and how strongly.
        """
        # Every transform has its own numbers, drawn or not: switching one off leaves the others as they were.
        # [sample, transform, (gate, gate of each channel, strength of each channel)], uniform in 0..1
        shape = (len(_ORDER), 1 + 2 * n_channels)
        uniform_BTU = np.stack([stream(self.seed, "intensity", step, index).random(shape) for index in indices])
        for place_, name in enumerate(_ORDER):
            drawn, values = drawn_rows(getattr(self.config, name), uniform_BTU[:, place_])
            if drawn.size:
                yield name, drawn, values

    def fill_with_noise(self, row_ZYX: Tensor, step: int, index: int, channel: int) -> None:
        """The standard normal noise of one channel of sample ``index`` of the global batch, in place."""
        key = stream_key(self.seed, "noise", step, index, channel)
        row_ZYX.normal_(generator=_generator(row_ZYX.device, key))

    def _transform(self, name: str, drawn: NDArray[np.int64], batch: RawBatch, n_channels: int) -> RowTransform:
        if name == "noise":
            return partial(self._add_noise, drawn=drawn, batch=batch, n_channels=n_channels)
        if name == "blur":
            return partial(intensity.blur, max_sigma=self.config.blur.between[1])
        if name == "low_resolution":
            return partial(intensity.lower_resolution, first_axis=1 if self._spatial.in_plane else 0)
        return {
            "brightness": intensity.multiply,
            "contrast": intensity.change_contrast,
            "gamma_inverted": intensity.change_gamma_inverted,
            "gamma": intensity.change_gamma,
        }[name]

    def _add_noise(
        self, rows: Tensor, std: Tensor, *, drawn: NDArray[np.int64], batch: RawBatch, n_channels: int
    ) -> Tensor:
        field = torch.empty_like(rows)
        for row, place_ in zip(field, drawn.tolist(), strict=True):
            sample, channel = divmod(place_, n_channels)
            self.fill_with_noise(row, batch.step, batch.indices[sample], channel)
        return intensity.add_noise(rows, std, field)


def _generator(device: torch.device, key: int) -> torch.Generator | None:
    if device.type == "meta":  # shapes without numbers: nothing to seed
        return None
    return torch.Generator(device).manual_seed(key & (2**63 - 1))


def drawn_rows(
    transform: IntensityTransform, uniform_BU: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which rows (sample * channels + channel) are changed, and how strongly.

    Args:
        uniform_BU: per sample: gate, gate of each channel, strength of each channel; uniform in 0..1.
    """
    n_channels = uniform_BU.shape[1] // 2
    sample_gate = uniform_BU[:, :1] < transform.chance
    channel_gate = uniform_BU[:, 1 : 1 + n_channels] < transform.channel_probability
    low, high = transform.between
    strength_BC = low + (high - low) * uniform_BU[:, 1 + n_channels :]
    drawn = np.flatnonzero(sample_gate & channel_gate)
    return drawn, strength_BC.reshape(-1)[drawn]
