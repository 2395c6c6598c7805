"""Which engine computes a model: the one that the user names, or the fastest that was measured and is installed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from decathlete.core.registry import ComponentSettings
from decathlete.errors import MissingPackageError, ModelError, OptionError
from decathlete.inference.engines import ENGINES, USE_TORCH, Engine
from decathlete.inference.options import AUTO, PredictOptions
from decathlete.networks.devices import resolve_device
from decathlete.networks.precision import resolve_precision
from decathlete.planning.plan import Plan

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EngineSelection:
    """The engines that may compute a model, the preferred one first.

    Attributes:
        engines: settings of each. Engines after the first are for models that those before cannot compute; there are
            some only with ``--engine auto``.
    """

    engines: tuple[ComponentSettings, ...]
    device: torch.device


def select_engines(options: PredictOptions) -> EngineSelection:
    """Select the engines for some options.

    ``auto`` prefers the engine with the greatest measured speed on the device. Nothing is timed: the same packages on
    the same machine always give the same selection.

    Raises:
        OptionError: an engine that is unknown, or not for this device, precision or layout.
        MissingPackageError: a package of the engine is missing, or does not load.
    """
    if options.engine == AUTO:
        return _select_fastest(options)
    settings = options.engine
    if isinstance(settings, str):
        settings = ENGINES.load(settings).settings()
    return _select_by_name(settings, options)


class EngineBuilder:
    """Builds the engines of models.

    With ``--engine auto``, the next engine computes a model that the preferred one cannot compute, and all models after
    it, with one warning.
    """

    def __init__(self, options: PredictOptions) -> None:
        selection = select_engines(options)
        self._settings = {settings.component: settings for settings in selection.engines}
        self._candidates = list(selection.engines)
        self._options = options
        self.device = selection.device

    def build(self, networks: Sequence[nn.Module], plan: Plan) -> list[Engine]:
        """Return an engine for each network of a model.

        Raises:
            OptionError: the engine does not have this precision here, or cannot compute the model.
            ModelError: the model is too large for the engine.
        """
        while True:
            try:
                return [self._engine(self._candidates[0], network, plan) for network in networks]
            except (OptionError, ModelError) as problem:
                if len(self._candidates) == 1:
                    raise
                _, fallback = self._candidates[:2]
                log.warning("%s; %s predicts instead", problem.problem, fallback.component)
                del self._candidates[0]

    def settings_of(self, engine: type[Engine]) -> ComponentSettings:
        """Return the settings of the engines of a class: those that the user chose, or the class's defaults.

        An exported program is computed by its own engine, which may be another one than those of the models.
        """
        return self._settings.get(engine.Settings.component) or engine.Settings()

    def _engine(self, settings: ComponentSettings, network: nn.Module, plan: Plan) -> Engine:
        cls = _class_of(settings)
        if not cls.supports(plan):
            raise OptionError(
                f"the engine {settings.component} cannot compute this model's architecture",
                remedy="choose another --engine, or leave --engine out",
            )
        options = self._options
        with _suggest_torch():
            return cls.from_network(
                settings, network, plan, device=self.device, precision=options.precision, layout=options.layout
            )


def _select_fastest(options: PredictOptions) -> EngineSelection:
    device = resolve_device(options.device)
    resolve_precision(options.precision, device)  # its error, if no engine has it
    ranked = sorted(_usable(options, device), key=lambda cls: -cls.relative_speed(device))
    available = [cls for cls in ranked if _is_available(cls)]
    return EngineSelection(engines=tuple(cls.Settings() for cls in available), device=device)


def _usable(options: PredictOptions, device: torch.device) -> Iterator[type[Engine]]:
    """Yield the engines that ``auto`` may choose."""
    for name in ENGINES.names():
        try:
            cls = ENGINES.resolve(name).cls
        except (ImportError, OptionError) as problem:  # of somebody else's module
            log.warning("the engine %s cannot be used (%s)", name, problem)
            continue
        if (
            device.type in cls.devices
            and options.precision in (AUTO, *cls.precisions)
            and (options.layout == AUTO or cls.follows_layout)
            and cls.relative_speed(device) >= 1
        ):
            yield cls


def _is_available(cls: type[Engine]) -> bool:
    try:
        cls.check_available()
    except MissingPackageError as problem:
        if problem.broken:
            log.warning("%s; another engine predicts instead", problem.problem)
        return False
    return True


def _select_by_name(settings: ComponentSettings, options: PredictOptions) -> EngineSelection:
    cls, name = _class_of(settings), settings.component
    device = resolve_device(options.device)
    if device.type not in cls.devices:
        if options.device != AUTO:
            raise OptionError(
                f"the engine {name} computes on {' or '.join(cls.devices)}, not on {options.device}",
                remedy="leave out --device, or choose another --engine",
            )
        device = resolve_device(cls.devices[0])
    if options.precision != AUTO:
        resolve_precision(options.precision, device)  # its error, if no engine has it
        if options.precision not in cls.precisions:
            raise OptionError(
                f"the engine {name} does not compute in {options.precision}",
                remedy=f"choose --precision {' or '.join(cls.precisions)}, or another --engine",
            )
    if options.layout != AUTO and not cls.follows_layout:
        raise OptionError(f"the engine {name} has a memory layout of its own", remedy="leave out --layout")
    with _suggest_torch():
        cls.check_available()
    return EngineSelection(engines=(settings,), device=device)


@contextmanager
def _suggest_torch() -> Iterator[None]:
    """Let the error of a missing package say that torch predicts without it. Where a program is exported, it cannot."""
    try:
        yield
    except MissingPackageError as problem:
        raise MissingPackageError(
            problem.problem,
            package=problem.package,
            extra=problem.extra,
            broken=problem.broken,
            remedy=f"{problem.remedy}, or {USE_TORCH}",
        ) from problem


def _class_of(settings: ComponentSettings) -> type[Engine]:
    return ENGINES.resolve(settings.component).cls
