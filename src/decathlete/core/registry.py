"""Components by kind and name: those of this package, of installed plug-ins, and of modules that a user names.

A component is one module: a class, its nested ``Settings``, and one registration::

    @LOSSES.register("tversky")
    class TverskyLoss:
        class Settings(ComponentSettings):
            alpha: float = Field(default=0.3, ge=0, le=1, description="Weight of false positives.")

A registry finds a name in three places, in this order: what has been registered in this process; the built-in modules
of its package, each of which has the name that it registers, so that names are listed without importing them; and the
entry points of installed distributions, in the group ``decathlete.components``, named ``KIND.NAME`` with underscores
for spaces in the kind (``loss.tversky``, ``image_format.minc``). A name with a colon, ``module:Class``, is imported as
it stands. Nothing that a file names is ever imported by its path: see :meth:`Registry.resolve`.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import pkgutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from decathlete.core.component_names import builtin_names
from decathlete.core.component_sources import read_field_docstrings
from decathlete.core.schema import Schema, describe_error
from decathlete.errors import OptionError
from decathlete.version import __version__

ENTRY_POINTS = "decathlete.components"
"""The group of entry points by which a distribution offers its components."""

T = TypeVar("T")
Class = TypeVar("Class", bound=type[Any])

_registries: dict[str, Registry[Any]] = {}
_log = logging.getLogger(__name__)


class ComponentSettings(Schema):
    """Base of every component's nested ``Settings``: documented, range-checked fields with defaults.

    Attributes:
        component: the registered name of the component that the settings belong to; set by the registration.
        component_kind: the kind of its registry; set by the registration, too.
        free_on_resume: names of settings that do not change the weights which a training ends with, so that a resumed
            run may have others.
    """

    component: ClassVar[str] = ""
    component_kind: ClassVar[str] = ""
    free_on_resume: ClassVar[frozenset[str]] = frozenset()

    def to_config(self) -> dict[str, Any]:
        """Return the component as a file has it: its name, then its settings."""
        return {"name": self.component, **self.model_dump(mode="json")}

    @classmethod
    def descriptions(cls) -> dict[str, str]:
        """Return the description of every setting by its name, empty where there is none.

        It is the ``description`` of the setting's ``Field``, or else the text below the setting in the class that
        declares it. Sources are read on the first call only: no command needs descriptions except to show them.

        Example:
            ``LOSSES.resolve("tversky").settings.descriptions()["alpha"]``
        """
        texts: dict[str, str] = {}
        for base in reversed(cls.__mro__):
            if issubclass(base, ComponentSettings):
                texts |= read_field_docstrings(base)
        return {name: field.description or texts.get(name, "") for name, field in cls.model_fields.items()}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a component comes from.

    Attributes:
        name: registered name.
        distribution: installed distribution that holds it, e.g. ``"decathlete"``; ``None`` for a loose module.
        version: of that distribution.
    """

    name: str
    distribution: str | None
    version: str | None


@dataclass(frozen=True, kw_only=True)
class Component(Generic[T]):
    """One registered component.

    Attributes:
        cls: the class, which is called with its settings first.
        settings: the class of its settings.
    """

    kind: str
    name: str
    cls: type[T]
    settings: type[ComponentSettings]

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (self.cls.__doc__ or "").strip().partition("\n")[0]

    @property
    def origin(self) -> Origin:
        """The distribution and version that the component comes from."""
        distribution = _distribution_of(self.cls.__module__)
        return Origin(name=self.name, distribution=distribution, version=_version_of(distribution))


class Registry(Generic[T]):
    """All components of one kind.

    Args:
        kind: singular, e.g. ``"loss"``: the entry points' prefix and the word in messages.
        package: of the built-in modules, e.g. ``"decathlete.training.objective.losses"``. Modules whose names begin
            with an underscore are not components.
        home: the module that holds the registry; ``None``: the package.
    """

    def __init__(self, kind: str, *, package: str, home: str | None = None) -> None:
        self.kind = kind
        self.package = package
        self.home = home or package
        self._registered: dict[str, Component[T]] = {}
        _registries[kind] = self

    def register(self, name: str) -> Callable[[Class], Class]:
        """Return a class decorator that registers the class under ``name``.

        Raises:
            ValueError: the name is taken by another class, or a built-in's module has another name.
        """

        def decorate(cls: Class) -> Class:
            module = cls.__module__
            if module.startswith(f"{self.package}.") and module.rpartition(".")[2] != name:
                raise ValueError(f"{module} registers {name!r}: a built-in {self.kind} has the name of its module")
            known = self._registered.get(name)
            if known is not None and (known.cls.__module__, known.cls.__qualname__) != (module, cls.__qualname__):
                raise ValueError(f"two components are called {self.kind} {name!r}: {known.cls.__module__}, {module}")
            if name in self.builtin_names and not module.startswith(f"{self.package}."):
                raise ValueError(f"{module} registers {name!r}, but a built-in {self.kind} has this name")
            settings = _settings_of(cls, name)
            settings.component_kind = self.kind
            self._registered[name] = Component(kind=self.kind, name=name, cls=cls, settings=settings)
            return cls

        return decorate

    @contextmanager
    def isolated(self, *, without: Collection[str] = ()) -> Iterator[None]:
        """Forget at the end what is registered inside, except built-ins: for tests of components.

        Args:
            without: registered names that are unknown inside.

        Example:
            ``with LOSSES.isolated(): LOSSES.register("mine")(MyLoss)``
        """
        before = self._registered
        self._registered = {name: component for name, component in before.items() if name not in without}
        try:
            yield
        finally:  # the module of a built-in is not executed again, so its registration is kept
            builtins = {name: c for name, c in self._registered.items() if name in self.builtin_names}
            self._registered = before | builtins

    def names(self) -> tuple[str, ...]:
        """Return all known names, sorted: built in, registered, and of installed plug-ins. No component is imported."""
        return tuple(sorted({*self.installed_names, *self._registered}))

    @property
    def installed_names(self) -> tuple[str, ...]:
        """The names of built-ins and of installed plug-ins. No component is imported."""
        return tuple(sorted({*self.builtin_names, *entry_points_of(self.kind)}))

    @property
    def registered_names(self) -> tuple[str, ...]:
        """The names that have been registered in this process so far."""
        return tuple(self._registered)

    @cached_property
    def builtin_names(self) -> tuple[str, ...]:
        """The names of the package's own components, without importing them."""
        if self.package.startswith("decathlete."):
            return builtin_names(self.package)
        package = importlib.import_module(self.package)
        return tuple(sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")))

    def resolve(self, name: str) -> Component[T]:
        """Return the component called ``name``: registered, built in, or of an installed plug-in.

        Raises:
            OptionError: there is none, or the plug-in that has it cannot be imported. A name of the form
                ``module:Class`` is never imported here, so that a file from elsewhere cannot have a module run: see
                :meth:`load`.
        """
        found = self._registered.get(name)
        if found is not None:
            return found
        if name in self.builtin_names:
            importlib.import_module(f"{self.package}.{name}")
        elif name in (entry_points := entry_points_of(self.kind)):
            try:
                loaded = entry_points[name].load()
            except Exception as problem:  # a plug-in's module may raise anything
                remedy = f"repair or uninstall the package of {entry_points[name].value}"
                raise _import_failed(f"the {self.kind} {name!r}", problem, remedy=remedy) from problem
            self._find_registered(loaded, name)
        if name not in self._registered:
            raise self._unknown(name)
        return self._registered[name]

    def load(self, name: str) -> Component[T]:
        """Find a component as :meth:`resolve` does, and import ``module:Class``: for names that the user wrote.

        Raises:
            OptionError: there is no such component.
        """
        if ":" not in name:
            return self.resolve(name)
        remedy = "use an installed module and a class in it, as module:Class"
        return self._find_registered(_import_named(name, text=f"the {self.kind} {name!r}", remedy=remedy), name)

    def settings(self, value: str | Mapping[str, Any] | ComponentSettings) -> ComponentSettings:
        """Validated settings from a name, ``{"name": ..., **settings}``, or settings as they are.

        Raises:
            OptionError: an unknown component, or settings that it does not have or allow, all together.
        """
        if isinstance(value, ComponentSettings):
            return value
        if not isinstance(value, str | Mapping):
            raise OptionError(f"the {self.kind} is chosen by its name, not by {value!r}", remedy="write its name")
        given = {"name": value} if isinstance(value, str) else dict(value)
        name = given.pop("name", None)
        if not isinstance(name, str):
            raise OptionError(f"a {self.kind} needs a name", remedy=f"write name: one of {', '.join(self.names())}")
        settings = self.resolve(name).settings
        try:
            return settings.model_validate(given)
        except ValidationError as problem:
            raise self._invalid(name, settings, problem) from None

    def build(self, settings: ComponentSettings, *args: Any, **kwargs: Any) -> T:
        """Make an instance of the component that ``settings`` belong to."""
        make: Callable[..., T] = self.resolve(settings.component).cls
        return make(settings, *args, **kwargs)

    def __iter__(self) -> Iterator[Component[T]]:
        """Yield all components, each imported; a plug-in that cannot be imported is left out, with a warning."""
        for name in self.names():
            try:
                component = self.resolve(name)
            except OptionError as problem:
                _log.warning("%s", problem.problem)
            else:
                yield component

    def _find_registered(self, loaded: object, name: str) -> Component[T]:
        """Return the component that the import of ``loaded`` (a class or a module) has registered."""
        mine = [c for c in self._registered.values() if loaded is c.cls or c.cls.__module__ == _module_name(loaded)]
        exact = [c for c in mine if loaded is c.cls] or [c for c in mine if c.name == name] or mine
        if not exact:
            raise OptionError(
                f"{name!r} is not registered as a component of kind {self.kind}",
                remedy=f"decorate the class with register(NAME) of the registry in {self.home}",
                code="E-COMPONENT-IMPORT",
            )
        return exact[0]

    def _invalid(self, name: str, settings: type[ComponentSettings], problem: ValidationError) -> OptionError:
        """Return the error for invalid settings; for an unknown setting, the message lists the known ones."""
        known = ", ".join(settings.model_fields) or "none"
        problems, values = [], []
        for error in problem.errors():
            if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
                field = error["loc"][0]
                problems.append(f"{field} is not a setting of the {self.kind} {name} (which has {known})")
            else:
                values.append(describe_error(error))
        return OptionError(
            "; ".join([*problems, *values]),
            where=f"{self.kind} {name}" if values else None,
            remedy=f"see `decathlete components {self.kind.replace(' ', '-')}`",
        )

    def _unknown(self, name: str) -> OptionError:
        close = difflib.get_close_matches(name, self.names(), n=1)
        guess = f"; did you mean {close[0]}?" if close else ""
        return OptionError(
            f"there is no {self.kind} called {name!r}{guess}",
            remedy=f"choose among {', '.join(self.names())}, or install the package that has it",
            code="E-COMPONENT-UNKNOWN",
        )


def registries() -> dict[str, Registry[Any]]:
    """Return every registry that has been imported, by kind."""
    return dict(sorted(_registries.items()))


def used_components(value: object) -> Iterator[Component[Any]]:
    """Yield the components whose settings are in ``value``, and those that these settings contain, at any depth."""
    if isinstance(value, ComponentSettings):
        yield _registries[value.component_kind].resolve(value.component)
    parts: Iterable[object] = ()
    if isinstance(value, BaseModel):
        parts = (part for _, part in value)
    elif isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, list | tuple):
        parts = value
    for part in parts:
        yield from used_components(part)


def import_components(name: str) -> None:
    """Import a module with components, or ``module:Class``, of which the class must be a registered component.

    Raises:
        OptionError: the module cannot be imported, or the class is not a component.
    """
    remedy = "install it, or set PYTHONPATH to the folder that contains it"
    loaded = _import_named(name, text=f"the plug-in {name!r}", remedy=remedy)
    components = [component for registry in _registries.values() for component in registry._registered.values()]
    if ":" in name and all(loaded is not component.cls for component in components):
        raise OptionError(
            f"the plug-in {name!r} is not registered as a component",
            remedy="decorate the class with register(NAME) of the registry of its kind",
            code="E-COMPONENT-IMPORT",
        )


def entry_points_of(kind: str) -> dict[str, metadata.EntryPoint]:
    """Return the entry points of installed plug-ins that have components of a kind, by the component's name."""
    found = {}
    for entry_point in metadata.entry_points(group=ENTRY_POINTS):
        prefix, _, name = entry_point.name.partition(".")
        if prefix.replace("_", " ") == kind:
            found[name] = entry_point
    return found


def _import_named(name: str, *, text: str, remedy: str) -> Any:
    """Import ``module`` or ``module:Class``, and return it; ``text`` names it in the error."""
    module, colon, attribute = name.partition(":")
    try:
        loaded = importlib.import_module(module)
        return getattr(loaded, attribute) if colon else loaded
    except Exception as problem:  # the module may raise anything
        raise _import_failed(text, problem, remedy=remedy) from problem


def _import_failed(text: str, problem: Exception, *, remedy: str) -> OptionError:
    problem_text = f"{text} cannot be imported ({type(problem).__name__}: {problem})"
    return OptionError(problem_text, remedy=remedy, code="E-COMPONENT-IMPORT")


def _settings_of(cls: type[Any], name: str) -> type[ComponentSettings]:
    """Return the ``Settings`` of ``cls`` with the component's name; inherited ones get a subclass of their own."""
    own = cls.__dict__.get("Settings")
    shared = isinstance(own, type) and own.__dict__.get("component", name) != name  # by two components
    if own is None or shared:
        inherited: type[ComponentSettings] = getattr(cls, "Settings", ComponentSettings)
        qualname = f"{cls.__qualname__}.Settings"  # where pickle finds it
        own = type("Settings", (inherited,), {"__module__": cls.__module__, "__qualname__": qualname})
        cls.Settings = own
    if not (isinstance(own, type) and issubclass(own, ComponentSettings)):
        raise ValueError(f"{cls.__qualname__}.Settings must derive from ComponentSettings")
    own.component = name
    return own


def _module_name(loaded: object) -> str | None:
    return getattr(loaded, "__name__", None) if not isinstance(loaded, type) else None


_OWN = "decathlete"
"""Name of this package and of its distribution."""


def _version_of(distribution: str | None) -> str | None:
    """Return the version of a distribution; of this one from its source, which an editable install does not follow."""
    if distribution == _OWN:
        return __version__
    return metadata.version(distribution) if distribution else None


@cache
def _packages_distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()  # reads the metadata of everything that is installed: slow


def _distribution_of(module: str) -> str | None:
    package = module.partition(".")[0]
    if package == _OWN:
        return _OWN
    for name in _packages_distributions().get(package, [package]):  # an editable install lists no packages
        with suppress(metadata.PackageNotFoundError):
            return metadata.distribution(name).name
    return None
