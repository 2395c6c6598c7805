"""All augmentation of one batch, on the training device.

What is drawn depends on seed, step and index in the global batch alone, so the same sample comes out whatever the
number of ranks and readers. (Noise is generated on the device: equal on devices of one kind.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decathlete.augmentation.batch import RawBatch, SpatialParams
from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.device import put_rows, to_device
from decathlete.augmentation.draws import RowContext, TransformStreams
from decathlete.augmentation.spatial import SpatialSampler, apply_spatial
from decathlete.augmentation.transforms import TRANSFORMS, IntensityTransform, SpatialTransform
from decathlete.augmentation.transforms._masks import MaskTransform
from decathlete.planning.mirror_pairs import SideSwap
from decathlete.planning.network_spec import Axes


class Augmenter:
    """Turns batches as read into batches to train on.

    Args:
        patch_size: 2 or 3 numbers, voxels.
        seed: of every draw.
        n_masks: number of last channels that are masks of 0 and 1: they move with the image, but have no intensities.
        side_swap: classes that change sides in flips from left to right; default rotations are then small.
        n_previous: number of the last masks that show the prediction of a cascade's previous stage.

    Raises:
        OptionError: the configuration mirrors an axis that the patch does not have.
    """

    def __init__(
        self,
        config: AugmentationConfig,
        *,
        patch_size: Axes,
        seed: int,
        n_masks: int = 0,
        n_previous: int = 0,
        side_swap: SideSwap | None = None,
    ) -> None:
        self.config = config
        self.patch_size = patch_size
        self.seed = seed
        self.n_masks = n_masks
        self.n_previous = n_previous
        self._side_swap = side_swap
        self._swapped_indices = None if side_swap is None else np.array(side_swap.indices, np.uint8)
        patch = config.patch(patch_size, side_axis=None if side_swap is None else side_swap.axis)
        transforms = {name: TRANSFORMS.build(config[name], patch) for name in config.names if config[name].chance}
        spatial = {name: t for name, t in transforms.items() if isinstance(t, SpatialTransform)}
        self._intensity = {name: t for name, t in transforms.items() if isinstance(t, IntensityTransform)}
        self._masks = {name: t for name, t in transforms.items() if isinstance(t, MaskTransform)}
        self._spatial = SpatialSampler(spatial, patch_size=patch_size, seed=seed)

    def draw(self, step: int, index: int) -> SpatialParams:
        """Draw what happens in space to sample ``index`` of the global batch in ``step``; cut its ``size``."""
        return self._spatial.draw(step, index)

    def swap_sides(
        self, image_CZYX: NDArray[np.float32], label_ZYX: NDArray[np.uint8], draw: SpatialParams
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return image and label of a patch as they are after the flips of ``draw``: left classes become right ones.

        In the image, masks of a cascade's previous stage change places. The loader calls this when it cuts the patch,
        so that flips need no knowledge of classes.
        """
        swap = self._side_swap
        if swap is None or self._swapped_indices is None or not draw.flips[swap.axis]:
            return image_CZYX, label_ZYX
        if swap.swaps_inputs:
            image_CZYX = image_CZYX[list(swap.inputs)]
        return image_CZYX, self._swapped_indices[label_ZYX]

    @torch.no_grad()
    def __call__(self, batch: RawBatch, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Augment a batch on ``device``.

        Returns:
            image_BCZYX (float32) and label_BZYX (uint8 class indices, ``IGNORE_INDEX`` where there is no truth);
            2D: BCYX and BYX.
        """
        batch = batch.to(device, non_blocking=True)
        image_BCZYX, label_BZYX = apply_spatial(batch, self.patch_size)
        if self.n_masks:
            masks_BMZYX = image_BCZYX[:, -self.n_masks :]
            masks_BMZYX.copy_(masks_BMZYX > 0.5)  # rotation interpolates
        self._change_masks(image_BCZYX, batch)
        self._change_intensities(image_BCZYX, batch)
        return image_BCZYX, label_BZYX

    def _change_masks(self, image_BCZYX: Tensor, batch: RawBatch) -> None:
        """Corrupt the masks of the previous stage in place."""
        if not self.n_previous or not self._masks:
            return
        streams = TransformStreams(self.seed, batch.step)
        for index, masks_SZYX in zip(batch.indices, image_BCZYX[:, -self.n_previous :], strict=True):
            for name, transform in self._masks.items():
                transform(masks_SZYX, streams.generator(name, index))

    def _change_intensities(self, image_BCZYX: Tensor, batch: RawBatch) -> None:
        """Change the image in place; the masks are not among the rows."""
        n_channels = image_BCZYX.shape[1] - self.n_masks
        rows = image_BCZYX.flatten(0, 1)
        for name, drawn, values in self.strengths(batch.step, batch.indices, n_channels):
            samples, channels = divmod(drawn, n_channels)
            index = drawn + samples * self.n_masks
            context = RowContext(
                seed=self.seed,
                transform=name,
                step=batch.step,
                samples=tuple(batch.indices[sample] for sample in samples.tolist()),
                channels=tuple(channels.tolist()),
            )
            changed = self._intensity[name](
                rows.index_select(0, to_device(index, rows.device)), to_device(values, rows.device), context
            )
            put_rows(rows, index, changed)

    def strengths(
        self, step: int, indices: Sequence[int], n_channels: int
    ) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.float64]]]:
        """Draw what happens to the intensities of samples of the global batch in ``step``.

        Args:
            n_channels: without masks.

        Yields:
            In the order in which they are applied, the transforms that change something: name, which rows
            (position in ``indices`` * n_channels + channel), and how strongly.
        """
        streams = TransformStreams(self.seed, step)
        for name, transform in self._intensity.items():
            strengths = {
                sample * n_channels + channel: strength
                for sample, index in enumerate(indices)
                for channel, strength in transform.draw(streams.generator(name, index), n_channels).items()
            }
            if strengths:
                yield name, np.array(list(strengths)), np.array(list(strengths.values()))
