"""The random numbers of the transforms: functions of seed, step, index in the global batch and transform alone.

So a sample comes out the same whatever the number of ranks and readers, and a transform that is added, disabled or
moved leaves the draws of the others as they were: each has one stream per sample, keyed by its registered name.

Letters: R rows, each one channel of one sample; spatial axes are written ZYX, 2D rows lack Z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decathlete.core.rng import stream, stream_key

_PLACEHOLDER_SEED = np.random.SeedSequence(0)
"""Given to generators that are set to a stream before use: without one, NumPy asks the system for entropy."""


class TransformStreams:
    """The random numbers of the transforms in one step: ``stream(seed, "transform", name, step, index)``.

    One generator is set to the start of each stream: to make one for each takes several times as long.
    """

    def __init__(self, seed: int, step: int) -> None:
        self._seed, self._step = seed, step
        self._bits = np.random.Philox(_PLACEHOLDER_SEED)
        self._generator = np.random.Generator(self._bits)

    def generator(self, name: str, index: int) -> np.random.Generator:
        """Return a transform's generator for sample ``index`` of the global batch, valid until the next call."""
        key = stream_key(self._seed, "transform", name, self._step, index)
        # Philox as it begins. Tuples: it reads them faster than arrays.
        state: Any = {
            "bit_generator": "Philox",
            "state": {"counter": (0, 0, 0, 0), "key": (key & (2**64 - 1), key >> 64)},
            "buffer": (0, 0, 0, 0),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        self._bits.state = state
        return self._generator


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
        return "transform", self.transform, self.step, self.samples[row], self.channels[row]
