"""Origins of the components that a training uses, for the record of its model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.transforms import TRANSFORMS
from decathlete.core.registry import Component, used_components
from decathlete.models.components import merge_origins, origin_of
from decathlete.models.record import ComponentOrigin
from decathlete.training.config import TrainConfig
from decathlete.training.reporting.loggers import chosen_loggers
from decathlete.training.short_forms import COMPONENTS


def training_origins(config: TrainConfig, augmentation: AugmentationConfig) -> tuple[ComponentOrigin, ...]:
    """List where loss, optimizer, schedule, sampler, loader, loggers and enabled transforms come from, each once.

    Components that are settings of these, such as the losses of a sum, are listed, too.
    """
    return merge_origins(*map(origin_of, _used(config, augmentation)))


def _used(config: TrainConfig, augmentation: AugmentationConfig) -> Iterator[Component[Any]]:
    yield from used_components([getattr(config, field) for field in COMPONENTS])
    yield from used_components(chosen_loggers(config.loggers))
    for name in augmentation.names:
        if augmentation[name].chance:
            yield TRANSFORMS.resolve(name)
