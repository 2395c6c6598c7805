"""Origins of the components that a training uses, for the record of its model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.transforms import TRANSFORMS
from decathlete.core.registry import Component
from decathlete.models.components import origin_of
from decathlete.models.record import ComponentOrigin
from decathlete.training.config import TrainConfig
from decathlete.training.reporting.loggers import LOGGERS, chosen_loggers
from decathlete.training.short_forms import COMPONENTS


def training_origins(config: TrainConfig, augmentation: AugmentationConfig) -> tuple[ComponentOrigin, ...]:
    """List where loss, optimizer, schedule, sampler, loader, loggers and enabled transforms come from."""
    return tuple(origin_of(component) for component in _used(config, augmentation))


def _used(config: TrainConfig, augmentation: AugmentationConfig) -> Iterator[Component[Any]]:
    for field, (registry, _) in COMPONENTS.items():
        yield registry.resolve(getattr(config, field).component)
    for settings in chosen_loggers(config.loggers):
        yield LOGGERS.resolve(settings.component)
    for name in augmentation.names:
        if augmentation[name].chance:
            yield TRANSFORMS.resolve(name)
