"""Random patches, some of them forced to show foreground: nnU-Net's oversampling."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from decathlete.loading.samplers import SAMPLERS
from decathlete.loading.samplers._oversampling import (
    Foreground,
    OversamplingSampler,
    OversamplingSettings,
    equally_likely_class,
)


@SAMPLERS.register("foreground")
class ForegroundSampler(OversamplingSampler):
    """Patches anywhere, and a share of each batch centred on a voxel of the foreground.

    In a case with ignored voxels, the other patches are centred on a voxel that is not ignored, as in nnU-Net.
    The last samples of the global batch are centred, as far as the volume's border allows; the class is drawn first,
    each class of the case with the same probability.
    """

    class Settings(OversamplingSettings):
        nvol: int | None = Field(default=None, ge=1)
        """2D: number of volumes that a batch's slices come from, equally many each; none: each slice from its own."""

    settings: Settings

    @classmethod
    def problems(cls, settings: Settings, *, dims: int, global_batch: int | None) -> Iterator[str]:
        """See :class:`~decathlete.loading.samplers.Sampler`."""
        if settings.nvol is None:
            return
        if dims == 3:
            yield "nvol is for 2D models, whose batches are slices"
        elif global_batch is not None and global_batch % settings.nvol:
            yield (
                f"{global_batch} samples per step do not come from {settings.nvol} volumes, equally many each: choose "
                "nvol so that it divides the batch size (over all devices)"
            )

    def case_id(self, step: int, index: int) -> str:
        """Return the case of sample ``index`` of the global batch; each case is equally likely."""
        nvol = self.settings.nvol
        return self.equally_likely_case(step, index if nvol is None else index * nvol // self.context.global_batch)

    def choose_voxels(
        self,
        foreground: Foreground,
        step: int,  # noqa: ARG002
        index: int,  # noqa: ARG002
        random: np.random.Generator,
    ) -> NDArray[np.int64] | None:
        """Return the voxels of one of the case's classes, each equally likely."""
        return equally_likely_class(foreground, random)
