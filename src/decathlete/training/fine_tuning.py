"""Defaults of a training that starts from trained weights; random ones need larger steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from decathlete.errors import OptionError
from decathlete.training.short_forms import COMPONENTS

FINE_TUNING_RATE = 0.1
"""Peak learning rate, share of the optimizer's default."""
FINE_TUNING_WARMUP = 0.1
"""Warm-up, share of the training."""
_DEFAULTS: dict[str, tuple[str, Callable[[float], float]]] = {
    "optimizer": ("learning_rate", lambda default: FINE_TUNING_RATE * default),
    "schedule": ("warmup", lambda _: FINE_TUNING_WARMUP),
}
"""Component -> its setting, and what the default becomes."""
FINE_TUNED_SETTINGS = tuple(setting for setting, _ in _DEFAULTS.values())
"""Short forms of the settings that have other defaults."""


def with_fine_tuning_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a training's config with these defaults, if it starts from a trained model.

    Settings that are given stay, and those that a component does not have are left out.

    Args:
        config: fields in the nested form.
    """
    if config.get("pretrained") is None:
        return dict(config)
    return {**config, **{field: _with_default(config, field, *default) for field, default in _DEFAULTS.items()}}


def _with_default(config: Mapping[str, Any], field: str, setting: str, change: Callable[[float], float]) -> Any:
    registry, standard = COMPONENTS[field]
    given = config.get(field, standard)
    try:
        settings = registry.settings(given)
    except OptionError:
        return given  # it is reported where the config is validated
    known = type(settings).model_fields.get(setting)
    if known is None or setting in settings.model_fields_set:
        return settings
    return settings.revised(**{setting: change(known.default)})
