"""What samplers share that centre a share of each batch's patches on chosen voxels and cut the others anywhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from decathlete.core.geometry import Shape
from decathlete.core.labels import IGNORE_INDEX
from decathlete.core.registry import ComponentSettings
from decathlete.core.rng import stream
from decathlete.errors import OptionError
from decathlete.loading.patches import box_size, keep_inside, three
from decathlete.loading.samplers import SamplerContext

Foreground = Mapping[int, NDArray[np.int64]]
"""Class index -> flat places of some of its voxels."""


class OversamplingSettings(ComponentSettings):
    """What all samplers with oversampling can be set to."""

    oversampling: float = Field(default=0.33, ge=0, le=1)
    """Share of each batch's patches that are centred on foreground."""


class OversamplingSampler(ABC):
    """Patches anywhere, and a share of each batch centred on a voxel that the subclass chooses.

    In a case with ignored voxels, the other patches are centred on a voxel that is not ignored, as in nnU-Net.
    The last samples of the global batch are centred, as far as the volume's border allows.

    Raises:
        OptionError: no cases, or settings that do not fit the batch.
    """

    def __init__(self, settings: OversamplingSettings, context: SamplerContext) -> None:
        if not context.case_ids:
            raise OptionError("there are no cases to train on", remedy="choose a fold with training cases")
        problems = list(self.problems(settings, dims=len(context.patch_size), global_batch=context.global_batch))
        if problems:
            raise OptionError("; ".join(problems), remedy="change or leave out these settings of the sampler")
        self.settings, self.context = settings, context
        self._box_size = box_size(context.patch_size)

    @classmethod
    def problems(cls, settings: Any, *, dims: int, global_batch: int | None) -> Iterator[str]:  # noqa: ARG003
        """See :class:`~decathlete.loading.samplers.Sampler`."""
        yield from ()

    def case_id(self, step: int, index: int) -> str:
        """Return the case of sample ``index`` of the global batch; each case is equally likely."""
        return self.equally_likely_case(step, index)

    def equally_likely_case(self, step: int, volume: int) -> str:
        """Return a case, by the number of the volume in the step."""
        random = stream(self.context.seed, "case", step, volume)
        return self.context.case_ids[int(random.integers(len(self.context.case_ids)))]

    def start(self, shape: Shape, foreground: Foreground, step: int, index: int) -> Shape:
        """Return the first voxel of the patch; negative along axes where the volume is smaller (it is centred there).

        A case without foreground is cut anywhere.
        """
        random = stream(self.context.seed, "patch", step, index)
        forced = self._is_forced(index, random.random())
        voxels = self.choose_voxels(foreground, step, index, random) if forced else None
        if voxels is None and self.context.has_ignore and IGNORE_INDEX in foreground:
            voxels = foreground[IGNORE_INDEX]
        if voxels is not None:
            centre = np.unravel_index(int(voxels[int(random.integers(len(voxels)))]), shape)
            start = [int(c) - p // 2 for c, p in zip(centre, self._box_size, strict=True)]
        else:
            start = [int(random.integers(max(n - p, 0) + 1)) for n, p in zip(shape, self._box_size, strict=True)]
        return three([keep_inside(s, n, p) for s, n, p in zip(start, shape, self._box_size, strict=True)])

    @abstractmethod
    def choose_voxels(
        self, foreground: Foreground, step: int, index: int, random: np.random.Generator
    ) -> NDArray[np.int64] | None:
        """Return flat places of which one becomes the centre of the patch; ``None``: the case has no foreground.

        Args:
            random: generator of this sample alone.
        """

    def is_centred(self, step: int, index: int) -> bool:
        """Return whether sample ``index`` is to be centred on foreground."""
        return self._is_forced(index, stream(self.context.seed, "patch", step, index).random())

    def _is_forced(self, index: int, uniform: float) -> bool:
        n, share = self.context.global_batch, self.settings.oversampling
        n_free = round(n * (1 - share))
        if n_free < n:
            return index >= n_free
        # A share too small for one sample of each batch: the last one, as often as makes the share.
        return index == n - 1 and uniform < share * n


def equally_likely_class(foreground: Foreground, random: np.random.Generator) -> NDArray[np.int64] | None:
    """Return the voxels of one of the case's classes, each equally likely; ``None``: it has none."""
    classes = sorted(value for value in foreground if value != IGNORE_INDEX)
    return foreground[classes[int(random.integers(len(classes)))]] if classes else None
