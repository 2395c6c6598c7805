"""Short forms: settings of components and groups that also have a name of their own, such as ``momentum``.

The command line, presets and Python accept them beside the nested form: ``momentum=0.8`` is
``optimizer={"name": "sgd", "momentum": 0.8}``. Files hold the nested form alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import BaseModel

from decathlete.core.component_field import ComponentField
from decathlete.core.registry import ComponentSettings, Registry
from decathlete.errors import OptionError
from decathlete.loading.loaders import LOADERS
from decathlete.loading.samplers import SAMPLERS
from decathlete.training.objective.losses import LOSSES
from decathlete.training.objective.optimizers import OPTIMIZERS
from decathlete.training.objective.schedules import SCHEDULES
from decathlete.training.reporting.loggers import LOGGERS

COMPONENTS: dict[str, tuple[Registry[Any], str]] = {
    "loss": (LOSSES, "cross_entropy"),
    "optimizer": (OPTIMIZERS, "sgd"),
    "schedule": (SCHEDULES, "cosine"),
    "sampler": (SAMPLERS, "foreground"),
    "loader": (LOADERS, "threads"),
}
"""Field of the config -> registry, and the name of the default."""
SHORT_FORMS: dict[str, str] = {
    "batch_dice": "loss.batch_dice",
    "learning_rate": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "gradient_clip": "optimizer.gradient_clip",
    "momentum": "optimizer.momentum",
    "warmup": "schedule.warmup",
    "restarts": "schedule.restarts",
    "steps": "schedule.steps",
    "factor": "schedule.factor",
    "lr_patience": "schedule.patience",
    "oversampling": "sampler.oversampling",
    "nvol": "sampler.nvol",
    "readers": "loader.readers",
    "prefetch": "loader.prefetch",
    "wandb_mode": "loggers.wandb.mode",
    "mlflow_uri": "loggers.mlflow.uri",
    "val_every": "validation.every",
    "skip_first": "validation.skip_first",
    "val_cases": "validation.cases",
    "val_overlap": "validation.window.overlap",
    "val_blend": "validation.window.blend",
    "val_batch_size": "validation.window.batch_size",
}
"""Short form -> dotted path of the nested form."""


def nest(options: Mapping[str, Any], *, replaceable: Collection[str] = ()) -> dict[str, Any]:
    """Return ``options`` with short forms and dotted names in their nested places.

    Args:
        replaceable: names of options that are defaults: others may change settings in them.

    Raises:
        ValueError: one setting is given twice, or a logger's setting without the logger.
    """
    config = {name: value for name, value in options.items() if name not in SHORT_FORMS and "." not in name}
    for name, value in options.items():
        path = SHORT_FORMS.get(name, name)
        if "." in path:
            _place(config, path.split("."), value, name=name, replace=path.partition(".")[0] in replaceable)
    return config


def paths_of(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the dotted path of each setting in ``options``: of short forms, dotted names, and inside mappings."""
    for name, value in options.items():
        path = SHORT_FORMS.get(name, name)
        yield path
        if isinstance(value, Mapping):
            yield from (f"{path}.{key}" for key in value)


def drop_ineffective(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``options`` without short forms that the chosen components do not have."""
    return {name: value for name, value in options.items() if name not in set(find_ineffective(options))}


def find_ineffective(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield short forms in ``options`` that the chosen components do not have, or that are ``None``."""
    for name, value in options.items():
        head, _, rest = SHORT_FORMS.get(name, "").partition(".")
        if not head:
            continue
        if value is None and not (head == "sampler" and rest == "nvol"):
            yield name
        elif head in COMPONENTS:
            registry, default = COMPONENTS[head]
            with suppress(OptionError):  # an unknown component is reported where the config is validated
                if rest not in registry.resolve(_name_of(options.get(head), default)).settings.model_fields:
                    yield name
        elif head == "loggers" and rest.partition(".")[0] not in map(_name_of, options.get("loggers") or ()):
            yield name


def why_ineffective(name: str, options: Mapping[str, Any]) -> str:
    """Say why the short form ``name`` has no effect beside the other ``options``."""
    head, _, rest = SHORT_FORMS[name].partition(".")
    if head == "loggers":
        return f"{name} is for the logger {rest.partition('.')[0]}: leave it out"
    registry, default = COMPONENTS[head]
    chosen = _name_of(options.get(head), default)
    known = ", ".join(registry.resolve(chosen).settings.model_fields) or "none"
    return f"{name} is not a setting of the {registry.kind} {chosen} (which has {known}): leave it out"


def upgrade_version_1(config: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the flat config that release 0.1 and older recorded to the nested form."""
    return nest(drop_ineffective(config))


def is_version_1(config: Mapping[str, Any]) -> bool:
    """Return whether a recorded config has the flat form of release 0.1 and older."""
    return "val_cases" in config


def load_components(options: Mapping[str, Any]) -> dict[str, Any]:
    """Import each ``module:Class`` in ``options``, also in settings, and put the registered name in its place.

    Only for what the user of this process wrote: it runs the module.

    Raises:
        OptionError: there is no such component.
    """
    loaded = dict(options)
    for field, (registry, default) in COMPONENTS.items():
        mark = ComponentField(registry)
        if field in options:
            loaded[field] = mark.load(options[field])
        name = _name_of(loaded.get(field), default)
        for path in (path for path in options if path.startswith(f"{field}.")):
            setting = path.partition(".")[2]
            loaded[path] = mark.load({"name": name, setting: options[path]})[setting]
    if loggers := options.get("loggers"):
        given = [name.strip() for name in loggers.split(",")] if isinstance(loggers, str) else loggers
        if not isinstance(given, Sequence):
            raise OptionError(f"loggers is a list of names, not {given!r}", remedy="write names separated by commas")
        loaded["loggers"] = tuple(ComponentField(LOGGERS).load(value) for value in given)
    return loaded


def _name_of(value: Any, default: str = "") -> str:
    if value is None:
        return default
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return str(value.get("name", default))
    return str(getattr(value, "component", ""))  # of anything else: none, which validation reports


def _place(config: dict[str, Any], path: list[str], value: Any, *, name: str, replace: bool = False) -> None:
    """Set ``value`` at ``path``, in place; with ``replace`` also where another value is."""
    head, *rest = path
    if head == "loggers":
        config[head] = _with_logger_setting(config.get(head), rest, value, name=name)
        return
    branch = _branch(config.get(head), default=COMPONENTS[head][1] if head in COMPONENTS else None)
    config[head] = branch
    for key in rest[:-1]:
        branch[key] = _branch(branch.get(key))
        branch = branch[key]
    if not replace and rest[-1] in branch and branch[rest[-1]] != value:
        raise ValueError(f"{name} is set twice: {branch[rest[-1]]} and {value}")
    branch[rest[-1]] = value


def _branch(value: Any, *, default: str | None = None) -> dict[str, Any]:
    """Return a mutable mapping of the value that a user gave for a component or a group."""
    if value is None:
        return {} if default is None else {"name": default}
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping):
        return dict(value) if default is None or "name" in value else {"name": default, **value}
    if isinstance(value, ComponentSettings):
        return {"name": value.component, **value.model_dump(mode="json", exclude_unset=True)}
    if isinstance(value, BaseModel):
        return dict(value.model_dump(exclude_unset=True))
    raise ValueError(f"{value!r} has no settings: write a name, or a mapping with a name and settings")


def _with_logger_setting(loggers: Any, path: list[str], value: Any, *, name: str) -> tuple[Any, ...]:
    if len(path) != 2:
        raise ValueError(f"{name} is not a setting of a logger: write loggers.NAME.SETTING")
    logger, setting = path
    given = [_branch(entry) for entry in loggers or ()]
    own = [entry for entry in given if entry.get("name") == logger]
    if not own:
        raise ValueError(f"{name} is for the logger {logger}: leave it out")
    own[0][setting] = value
    return tuple(given)
