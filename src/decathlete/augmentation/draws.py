"""The random numbers of the transforms: functions of seed, step, index in the global batch and transform alone.

So a sample comes out the same whatever the number of ranks and readers, and switching one transform off leaves the
others as they were. The transforms of nnU-Net share two streams per sample, in which each has a place of its own; every
other transform has one stream per sample.

Letters: B samples, R rows (each one channel of one sample), U uniform numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decathlete.core.rng import stream, stream_key

_SPATIAL_PLACES = {
    "rotation": np.array([0, 2, 3, 4]),
    "scaling": np.array([1, 5]),
    "mirroring": np.array([6, 7, 8]),
}
_INTENSITY_PLACES = ("noise", "blur", "brightness", "contrast", "low_resolution", "gamma_inverted", "gamma")


class _Numbers:
    """Numbers that were drawn before, handed out as a generator hands them out."""

    def __init__(self, uniform_U: NDArray[np.float64]) -> None:
        self._uniform_U, self._next = uniform_U, 0

    def random(self, size: int | None = None) -> float | NDArray[np.float64]:
        start, self._next = self._next, self._next + (1 if size is None else size)
        return self._uniform_U[start] if size is None else self._uniform_U[start : self._next]


def spatial_generators(seed: int, step: int, index: int) -> Callable[[str], np.random.Generator]:
    """Return a function from a spatial transform's name to its generator for one sample.

    Args:
        index: of the sample in the global batch.
    """
    joint_U = stream(seed, "spatial", step, index).random(9)

    def generator(name: str) -> np.random.Generator:
        if name in _SPATIAL_PLACES:
            return cast(np.random.Generator, _Numbers(joint_U[_SPATIAL_PLACES[name]]))
        return stream(seed, "transform", name, step, index)

    return generator


def intensity_generators(
    seed: int, step: int, indices: Sequence[int], n_channels: int
) -> Callable[[str, int], np.random.Generator]:
    """Return a function from an intensity transform's name and a sample's position in ``indices`` to its generator.

    Args:
        indices: of the samples in the global batch.
    """
    shape = (len(_INTENSITY_PLACES), 1 + 2 * n_channels)
    joint_BTU = [stream(seed, "intensity", step, index).random(shape) for index in indices]

    def generator(name: str, sample: int) -> np.random.Generator:
        if name in _INTENSITY_PLACES:
            return cast(np.random.Generator, _Numbers(joint_BTU[sample][_INTENSITY_PLACES.index(name)]))
        return stream(seed, "transform", name, step, indices[sample])

    return generator


@dataclass(frozen=True, kw_only=True)
class RowContext:
    """Which rows an intensity transform changes, and the random numbers of each.

    Attributes:
        seed: of the training.
        transform: registered name of the transform.
        step: the global step.
        samples: of each row, the index of its sample in the global batch.
        channels: of each row, its channel.
    """

    seed: int
    transform: str
    step: int
    samples: tuple[int, ...]
    channels: tuple[int, ...]

    def generator(self, row: int, *purpose: str | int) -> np.random.Generator:
        """Return the row's own generator of numbers on the host.

        Args:
            purpose: distinguishes the generators of a transform that needs several.
        """
        return stream(self.seed, *self._key(row), *purpose)

    def torch_generator(self, row: int, device: torch.device, *purpose: str | int) -> torch.Generator | None:
        """Return the row's own generator on ``device``; ``None`` on the meta device, which has no numbers.

        Numbers repeat on devices of one kind only.
        """
        if device.type == "meta":
            return None
        key = stream_key(self.seed, *self._key(row), *purpose)
        return torch.Generator(device).manual_seed(key & (2**63 - 1))

    def normal_like(self, rows_RZYX: Tensor, *purpose: str | int) -> Tensor:
        """Return standard normal noise of the rows' shape and device, each row from its own generator."""
        noise_RZYX = torch.empty_like(rows_RZYX)
        for row, values_ZYX in enumerate(noise_RZYX):
            values_ZYX.normal_(generator=self.torch_generator(row, values_ZYX.device, *purpose))
        return noise_RZYX

    def _key(self, row: int) -> tuple[str | int, ...]:
        return self.transform, self.step, self.samples[row], self.channels[row]
