"""Components are found by name: registered, built in, or installed. What a file names is not imported by its path."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from decathlete.core import registry as module
from decathlete.core.component_field import ComponentField
from decathlete.core.registry import Component, ComponentSettings, Registry
from decathlete.core.schema import Schema
from decathlete.errors import OptionError

SHAPES: Registry[Any] = Registry("test shape", package="made_up_shapes")


class Square:
    """A square.

    With sides.
    """

    class Settings(ComponentSettings):
        side: float = Field(default=1.0, gt=0)

    def __init__(self, settings: ComponentSettings, scale: float = 1.0) -> None:
        self.side = settings.side * scale  # type: ignore[attr-defined]


class Cube(Square):
    """A cube: its settings are inherited."""


@pytest.fixture
def builtins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with the built-in shapes ``disc`` and ``broken``, which cannot be imported."""
    package = tmp_path / "made_up_shapes"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_helper.py").write_text("raise RuntimeError('a helper is no component')\n")
    (package / "broken.py").write_text("raise RuntimeError('listing names must not import')\n")
    (package / "disc.py").write_text(
        "import __main__\nfrom decathlete.core.registry import ComponentSettings, registries\n"
        "@registries()['test shape'].register('disc')\nclass Disc:\n    '''A disc.'''\n"
        "    class Settings(ComponentSettings):\n        radius: float = 2.0\n"
        "    def __init__(self, settings):\n        self.radius = settings.radius\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    SHAPES.__dict__.pop("builtin_names", None)
    with SHAPES.isolated(without=SHAPES.registered_names):
        yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "made_up_shapes"]:
        del sys.modules[name]


def test_names_are_listed_without_importing_anything(builtins: Path) -> None:
    assert SHAPES.names() == ("broken", "disc")
    assert "made_up_shapes.disc" not in sys.modules


def test_a_builtin_is_imported_when_it_is_asked_for(builtins: Path) -> None:
    shape = SHAPES.resolve("disc")
    assert (shape.kind, shape.summary) == ("test shape", "A disc.")
    assert SHAPES.build(shape.settings(radius=3)).radius == 3


def test_settings_come_from_a_name_a_mapping_or_themselves(builtins: Path) -> None:
    SHAPES.register("square")(Square)
    assert SHAPES.settings("square").to_config() == {"name": "square", "side": 1.0}
    made = SHAPES.settings({"name": "square", "side": 2})
    assert SHAPES.settings(made) is made
    assert SHAPES.build(made, scale=2).side == 4


def test_settings_are_checked(builtins: Path) -> None:
    SHAPES.register("square")(Square)
    with pytest.raises(OptionError, match="side: Input should be greater than 0"):
        SHAPES.settings({"name": "square", "side": -1})
    with pytest.raises(OptionError, match=r"radius is not a setting of the test shape square \(which has side\)"):
        SHAPES.settings({"name": "square", "radius": 1})


def test_an_unknown_setting_is_reported_once_whatever_its_name(builtins: Path) -> None:
    SHAPES.register("square")(Square)
    with pytest.raises(OptionError) as caught:
        SHAPES.settings({"name": "square", "side: left": 1})
    assert caught.value.problem == "side: left is not a setting of the test shape square (which has side)"


def test_inherited_settings_know_their_own_component(builtins: Path) -> None:
    SHAPES.register("square")(Square)
    SHAPES.register("cube")(Cube)
    assert SHAPES.settings({"name": "cube", "side": 5}).to_config() == {"name": "cube", "side": 5.0}
    assert SHAPES.settings("square").component == "square"
    copied = pickle.loads(pickle.dumps(SHAPES.settings({"name": "cube", "side": 5})))
    assert (copied.component, copied.side) == ("cube", 5)


def test_an_unknown_name_is_told_what_there_is(builtins: Path) -> None:
    with pytest.raises(OptionError, match="no test shape called 'disk'; did you mean disc") as caught:
        SHAPES.resolve("disk")
    assert caught.value.code == "E-COMPONENT-UNKNOWN"
    assert "broken, disc" in str(caught.value)


def test_two_classes_cannot_share_a_name(builtins: Path) -> None:
    SHAPES.register("square")(Square)
    SHAPES.register("square")(Square)  # imported again: the same
    with pytest.raises(ValueError, match="two components are called test shape 'square'"):
        SHAPES.register("square")(Cube)


def test_a_builtins_module_has_its_name(builtins: Path) -> None:
    (builtins / "made_up_shapes" / "ring.py").write_text(
        "from decathlete.core.registry import registries\n"
        "@registries()['test shape'].register('torus')\nclass Ring: ...\n"
    )
    with pytest.raises(ValueError, match="has the name of its module"):
        SHAPES.resolve("ring")


def test_a_module_and_class_are_imported_only_for_the_user(builtins: Path) -> None:
    (builtins / "loose_shape.py").write_text(
        "from decathlete.core.registry import registries\n"
        "@registries()['test shape'].register('star')\nclass Star:\n    '''A star.'''\n"
    )
    with pytest.raises(OptionError, match="no test shape called 'loose_shape:Star'"):
        SHAPES.settings("loose_shape:Star")  # a file's words
    assert "loose_shape" not in sys.modules
    star = SHAPES.load("loose_shape:Star")
    assert star.name == "star"
    assert star.origin.distribution is None
    assert SHAPES.settings("star").to_config() == {"name": "star"}


@pytest.mark.parametrize("name", ["no_such_module_here:Star", "json:Star"])
def test_a_module_that_cannot_be_imported_is_an_error_of_the_option(builtins: Path, name: str) -> None:
    with pytest.raises(OptionError, match="cannot be imported"):
        SHAPES.load(name)


def test_a_class_that_is_not_registered_is_refused(builtins: Path) -> None:
    with pytest.raises(OptionError, match="not registered"):
        SHAPES.load("pathlib:Path")


def test_a_plugin_may_name_a_module_or_a_class_in_it(builtins: Path) -> None:
    (builtins / "loose_shapes.py").write_text(
        "from decathlete.core.registry import registries\n"
        "@registries()['test shape'].register('moon')\nclass Moon:\n    '''A moon.'''\n"
        "class Sun:\n    '''Not registered.'''\n"
    )
    module.import_components("loose_shapes:Moon")
    assert SHAPES.resolve("moon").summary == "A moon."
    module.import_components("loose_shapes")
    with pytest.raises(OptionError, match="the plug-in 'loose_shapes:Sun' is not registered as a component"):
        module.import_components("loose_shapes:Sun")


@pytest.mark.parametrize("name", ["no_such_module_here", "json:Star", "json:", ":Star"])
def test_a_plugin_that_cannot_be_imported_is_an_error(builtins: Path, name: str) -> None:
    with pytest.raises(OptionError, match=f"the plug-in '{name}' cannot be imported") as caught:
        module.import_components(name)
    assert caught.value.code == "E-COMPONENT-IMPORT"


@pytest.mark.parametrize("target", ["plugged_shape", "plugged_shape:Plug"])
def test_an_entry_point_offers_a_component(builtins: Path, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (builtins / "plugged_shape.py").write_text(
        "from decathlete.core.registry import registries\n"
        "@registries()['test shape'].register('plug')\nclass Plug:\n    '''Plugged.'''\n"
    )
    entry = metadata.EntryPoint("test shape.plug", target, module.ENTRY_POINTS)
    other = metadata.EntryPoint("test loss.plug", "no_such_module", module.ENTRY_POINTS)
    monkeypatch.setattr(metadata, "entry_points", lambda **_: (entry, other))
    assert SHAPES.names() == ("broken", "disc", "plug")
    assert "plugged_shape" not in sys.modules
    assert SHAPES.resolve("plug").summary == "Plugged."
    del sys.modules["plugged_shape"]


@pytest.mark.parametrize("content", ["raise AttributeError('old numpy')", "import no_such_module", "def", "1 / 0"])
def test_a_plugin_that_cannot_be_imported_stops_nothing_else(
    builtins: Path, content: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (builtins / "made_up_shapes" / "broken.py").unlink()
    (builtins / "broken_plugin.py").write_text(content)
    entry = metadata.EntryPoint("test shape.plug", "broken_plugin", module.ENTRY_POINTS)
    monkeypatch.setattr(metadata, "entry_points", lambda **_: (entry,))
    with pytest.raises(OptionError, match="'plug' cannot be imported") as caught:
        SHAPES.resolve("plug")
    assert caught.value.code == "E-COMPONENT-IMPORT"
    with pytest.raises(OptionError, match="cannot be imported"):
        SHAPES.load("broken_plugin:Plug")
    assert [component.name for component in SHAPES] == ["disc"]
    assert "'plug' cannot be imported" in caplog.text


def test_a_plugin_cannot_have_the_name_of_a_builtin(builtins: Path) -> None:
    with pytest.raises(ValueError, match="a built-in test shape has this name"):
        SHAPES.register("disc")(Square)


def test_two_components_may_share_their_settings(builtins: Path) -> None:
    class One:
        class Settings(ComponentSettings):
            side: float = 1.0

        def __init__(self, settings: ComponentSettings) -> None: ...

    class Two(One):
        Settings = One.Settings

    SHAPES.register("one")(One)
    SHAPES.register("two")(Two)
    for name, cls in {"one": One, "two": Two}.items():
        assert type(SHAPES.build(SHAPES.settings(name))) is cls


@pytest.mark.parametrize("value", [None, 5, ["disc"], True])
def test_what_is_no_name_is_an_error_of_the_option(builtins: Path, value: Any) -> None:
    with pytest.raises(OptionError, match="the test shape is chosen by its name"):
        SHAPES.settings(value)


def test_a_schema_holds_a_component_and_its_settings(builtins: Path) -> None:
    SHAPES.register("square")(Square)

    class Drawing(Schema):
        shape: Annotated[ComponentSettings, ComponentField(SHAPES)] = Field(default="square", validate_default=True)

    assert Drawing().shape.side == 1  # type: ignore[attr-defined]
    drawing = Drawing.model_validate({"shape": {"name": "disc", "radius": 7}})
    text = drawing.model_dump_json()
    assert text == '{"shape":{"name":"disc","radius":7.0}}'
    assert Drawing.model_validate_json(text) == drawing
    with pytest.raises(ValidationError, match="no test shape called 'disk'"):
        Drawing.model_validate({"shape": "disk"})


def test_settings_that_are_no_schema_are_a_mistake_of_the_author(builtins: Path) -> None:
    register: Callable[[type], type] = SHAPES.register("odd")

    class Odd:
        class Settings:
            pass

    with pytest.raises(ValueError, match="must derive from ComponentSettings"):
        register(Odd)


def test_a_component_knows_its_distribution() -> None:
    built_in: Component[Any] = Component(kind="k", name="n", cls=Registry, settings=ComponentSettings)
    assert built_in.origin.distribution == "decathlete"
    assert built_in.origin.version


class BaseSettings(ComponentSettings):
    kept: float = 1.0
    """Inherited as it is."""
    declared: float = Field(default=2.0, description="Of the base.")
    """Not shown: the field has a description."""
    bare: float = 3.0
    replaced: float = 4.0
    """Replaced."""


class OwnSettings(BaseSettings):
    declared: float = 5.0
    """Of the class."""
    replaced: float = 6.0
    length: Annotated[float, Field(description="Of its type.")] = 7.0


def test_descriptions_are_those_of_the_fields_or_the_texts_below_them() -> None:
    base = {"kept": "Inherited as it is.", "declared": "Of the base.", "bare": "", "replaced": "Replaced."}
    assert BaseSettings.descriptions() == base
    own = base | {"declared": "Of the class.", "replaced": "", "length": "Of its type."}
    assert OwnSettings.descriptions() == own
    settings = SHAPES.register("described")(type("Described", (), {"Settings": OwnSettings})).Settings
    assert (settings.component, settings.descriptions()) == ("described", own)


def test_sources_are_read_only_for_descriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[type] = []
    monkeypatch.setattr(module, "read_field_docstrings", lambda cls: read.append(cls) or {})

    class Lazy(BaseSettings):
        other: float = 1.0
        """Another."""

    assert read == []
    Lazy.descriptions()
    assert read == [ComponentSettings, BaseSettings, Lazy]


def test_an_isolated_registry_forgets_what_is_registered_inside_but_not_built_ins(builtins: Path) -> None:
    SHAPES.register("square")(Square)
    with SHAPES.isolated(without=["square"]):
        SHAPES.register("cube")(Cube)
        SHAPES.resolve("disc")
        assert SHAPES.names() == ("broken", "cube", "disc")
        with pytest.raises(OptionError, match="no test shape called 'square'"):
            SHAPES.resolve("square")
    assert SHAPES.names() == ("broken", "disc", "square")
    assert SHAPES.resolve("disc").summary == "A disc."  # its module is not executed a second time
