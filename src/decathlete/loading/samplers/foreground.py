"""Random patches, some of them forced to show foreground: nnU-Net's oversampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from decathlete.core.geometry import Shape
from decathlete.core.labels import IGNORE_INDEX
from decathlete.core.registry import ComponentSettings
from decathlete.core.rng import stream
from decathlete.errors import OptionError
from decathlete.loading.patches import box_size, keep_inside, three
from decathlete.loading.samplers import SAMPLERS, SamplerContext


@SAMPLERS.register("foreground")
class ForegroundSampler:
    """Patches anywhere, and a share of each batch centred on a voxel of the foreground.

    In a case with ignored voxels, the other patches are centred on a voxel that is not ignored, as in nnU-Net.
    The last samples of the global batch are centred, as far as the volume's border allows; the class is drawn first,
    each class of the case with the same probability.
    """

    class Settings(ComponentSettings):
        oversampling: float = Field(default=0.33, ge=0, le=1)
        """Share of each batch's patches that are centred on foreground."""
        nvol: int | None = Field(default=None, ge=1)
        """2D: number of volumes that a batch's slices come from, equally many each; none: each slice from its own."""

    def __init__(self, settings: Settings, context: SamplerContext) -> None:
        if not context.case_ids:
            raise OptionError("there are no cases to train on", remedy="choose a fold with training cases")
        problems = list(self.problems(settings, dims=len(context.patch_size), global_batch=context.global_batch))
        if problems:
            raise OptionError("; ".join(problems), remedy="change or leave out nvol")
        self.settings, self.context = settings, context

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
        volume = index if self.settings.nvol is None else index * self.settings.nvol // self.context.global_batch
        return self.context.case_ids[
            int(stream(self.context.seed, "case", step, volume).integers(len(self.context.case_ids)))
        ]

    def start(self, shape: Shape, foreground: Mapping[int, NDArray[np.int64]], step: int, index: int) -> Shape:
        """Return the first voxel of the patch; negative along axes where the volume is smaller (it is centred there).

        A case without foreground is cut anywhere.
        """
        random = stream(self.context.seed, "patch", step, index)
        forced = self._forced(index, random.random())
        classes = sorted(value for value in foreground if value != IGNORE_INDEX) if forced else []
        if classes or (self.context.has_ignore and IGNORE_INDEX in foreground):
            voxels = foreground[classes[int(random.integers(len(classes)))] if classes else IGNORE_INDEX]
            centre = np.unravel_index(int(voxels[int(random.integers(len(voxels)))]), shape)
            start = [int(c) - p // 2 for c, p in zip(centre, self._box_size, strict=True)]
        else:
            start = [int(random.integers(max(n - p, 0) + 1)) for n, p in zip(shape, self._box_size, strict=True)]
        return three([keep_inside(s, n, p) for s, n, p in zip(start, shape, self._box_size, strict=True)])

    @property
    def _box_size(self) -> Shape:
        return box_size(self.context.patch_size)

    def _forced(self, index: int, uniform: float) -> bool:
        n, share = self.context.global_batch, self.settings.oversampling
        n_free = round(n * (1 - share))
        if n_free < n:
            return index >= n_free
        # A share too small for one sample of each batch: the last one, as often as makes the share.
        return (
            index == self.context.global_batch - 1 and uniform < self.settings.oversampling * self.context.global_batch
        )
