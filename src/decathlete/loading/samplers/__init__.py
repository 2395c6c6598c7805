"""Samplers: where training patches are cut. Each module is one sampler, registered by its own name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Shape
from decathlete.core.registry import Registry
from decathlete.planning.network_spec import Axes


@dataclass(frozen=True, kw_only=True)
class SamplerContext:
    """What patches are cut from.

    Attributes:
        case_ids: cases to cut from, one at least; all have labels.
        patch_size: 2 or 3 numbers, voxels, in working order.
        global_batch: samples per step over all ranks.
        seed: of every draw.
        has_ignore: whether label maps may have ignored voxels.
        class_volumes: returns the volume of each class that a case contains: case id -> class index -> mm³ (of images
            without a spacing: voxels).
        read_label: reads the whole prepared label ZYX of a case, by its id.
    """

    case_ids: tuple[str, ...]
    patch_size: Axes
    global_batch: int
    seed: int
    has_ignore: bool = False
    class_volumes: Callable[[], Mapping[str, Mapping[int, float]]] | None = None
    read_label: Callable[[str], NDArray[np.uint8]] | None = None


class Sampler(Protocol):
    """A sampler is made with its settings and a :class:`SamplerContext`.

    Its answers are pure functions of seed, global step and index in the global batch (use
    :func:`decathlete.core.rng.stream`), so that they do not depend on ranks, readers or resumption.
    """

    @classmethod
    def problems(cls, settings: object, *, dims: int, global_batch: int | None) -> Iterator[str]:
        """Settings that do not fit a model of ``dims`` axes or, if it is known, a batch of so many samples."""
        ...

    def case_id(self, step: int, index: int) -> str:
        """Return the case that sample ``index`` of the global batch is cut from."""
        ...

    def start(self, shape: Shape, foreground: Mapping[int, NDArray[np.int64]], step: int, index: int) -> Shape:
        """Return the first voxel of the patch; negative along axes where the volume is smaller.

        Args:
            shape: of the case, Z, Y, X.
            foreground: class index -> flat places of some of its voxels; absent classes have no entry. In a case with
                ignored voxels, ``IGNORE_INDEX`` has places of voxels that are not ignored.
        """
        ...


SAMPLERS: Registry[Sampler] = Registry("sampler", package=__name__)
