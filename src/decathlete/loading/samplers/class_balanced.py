"""Class-balanced patches: small and rare classes are shown more often, whichever cases they are in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from decathlete.core.rng import stream
from decathlete.errors import OptionError
from decathlete.loading.samplers import SAMPLERS, SamplerContext
from decathlete.loading.samplers._oversampling import (
    Foreground,
    OversamplingSampler,
    OversamplingSettings,
    equally_likely_class,
)


@SAMPLERS.register("class_balanced")
class ClassBalancedSampler(OversamplingSampler):
    """Patches anywhere, and a share of each batch on a class that is drawn by its volume in all training cases.

    For the patches of the share, the class is drawn first, with a probability proportional to volume ** -exponent. Then
    one of the cases that contain it is drawn, and a voxel of it in this case. So a class that few cases contain is
    shown as often as the others, which the sampler ``foreground`` cannot do: it draws the case first.

    Raises:
        OptionError: the volumes of the training cases' classes are unknown.
    """

    class Settings(OversamplingSettings):
        exponent: float = Field(default=0.5, ge=0, le=1)
        """How much more often small classes are drawn: 0 draws all classes equally often, 1 in inverse proportion to
        their volume."""

    settings: Settings

    def __init__(self, settings: Settings, context: SamplerContext) -> None:
        super().__init__(settings, context)
        volumes = {} if context.class_volumes is None else context.class_volumes()
        if any(case_id not in volumes for case_id in context.case_ids):
            raise OptionError(
                "the sampler class_balanced needs the volume of each class, which the prepared data do not contain",
                remedy="run `decathlete preprocess` again, or use the sampler foreground",
            )
        self._cases: dict[int, list[str]] = {}
        total: dict[int, float] = {}
        for case_id in context.case_ids:
            for index, volume in volumes[case_id].items():
                if volume > 0:
                    self._cases.setdefault(index, []).append(case_id)
                    total[index] = total.get(index, 0.0) + volume
        self._classes = sorted(total)
        weights = np.array([total[index] for index in self._classes]) ** -settings.exponent
        self._up_to = np.cumsum(weights) / max(weights.sum(), np.finfo(float).tiny)

    def case_id(self, step: int, index: int) -> str:
        """Return the case of sample ``index`` of the global batch."""
        if not self._classes or not self.is_centred(step, index):
            return self.equally_likely_case(step, index)
        class_index, random = self._draw_class(step, index)
        cases = self._cases[class_index]
        return cases[int(random.integers(len(cases)))]

    def choose_voxels(
        self, foreground: Foreground, step: int, index: int, random: np.random.Generator
    ) -> NDArray[np.int64] | None:
        """Return the voxels of the sample's class; of any other class, if resampling removed this one."""
        if self._classes:
            class_index, _ = self._draw_class(step, index)
            if class_index in foreground:
                return foreground[class_index]
        return equally_likely_class(foreground, random)

    def _draw_class(self, step: int, index: int) -> tuple[int, np.random.Generator]:
        """Draw the class of a sample; the generator continues with its case."""
        random = stream(self.context.seed, "class", step, index)
        place = int(np.searchsorted(self._up_to, random.random(), side="right"))
        return self._classes[min(place, len(self._classes) - 1)], random
