"""Summaries of components are read from sources, without importing them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from decathlete.core.component_sources import find_source, read_field_docstrings, read_summary


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "made_up_sources"
    (folder / "inner").mkdir(parents=True)
    for name in ("__init__", "inner/__init__"):
        (folder / f"{name}.py").write_text("raise RuntimeError('must not be imported')\n")
    (folder / "inner" / "disc.py").write_text(
        "raise RuntimeError('must not be imported')\n@other\nclass No:\n    '''No component.'''\n"
        "@SHAPES.register('disc')\nclass Disc:\n    '''A disc.\n\n    Round.\n    '''\n"
        "@SHAPES.register('bare')\nclass Bare:\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_a_source_is_found_without_an_import(package: Path) -> None:
    assert find_source("made_up_sources.inner.disc") == package / "inner" / "disc.py"
    assert find_source("made_up_sources.inner") == package / "inner" / "__init__.py"
    assert find_source("made_up_sources") == package / "__init__.py"
    assert not [name for name in sys.modules if name.startswith("made_up_sources")]


@pytest.mark.parametrize("module", ["made_up_missing.disc", "made_up_sources.inner.missing", "math"])
@pytest.mark.usefixtures("package")
def test_a_module_without_a_source_is_none(module: str) -> None:
    assert find_source(module) is None


def test_the_summary_is_the_first_line_of_the_registered_class(package: Path) -> None:
    source = package / "inner" / "disc.py"
    assert [read_summary(source, name) for name in ("disc", "bare", "missing")] == ["A disc.", "", ""]


class Measured:
    """Fields of all sorts."""

    first: int = 1
    """The first,
    in two lines."""
    bare: int = 2
    length = 3
    """Not a field: it has no type."""
    commented: int = 4
    assert commented
    """Not below the field."""
    text: str = """
no description: a value, which begins in the first column"""

    class Inner:
        deep: int = 1
        """Of another class."""

    def method(self) -> int:
        local: int = 1
        """Of a function."""
        return local

    last: int = 5
    """The last."""


def test_the_text_below_a_field_is_found() -> None:
    class Local(Measured):
        last: int = 6
        other: int = 7
        """The other."""

    assert read_field_docstrings(Measured) == {
        "first": "The first,\nin two lines.",
        "bare": "",
        "commented": "",
        "text": "",
        "last": "The last.",
    }
    assert read_field_docstrings(Measured.Inner) == {"deep": "Of another class."}
    assert read_field_docstrings(Local) == {"last": "", "other": "The other."}  # indented in its source


def test_without_a_source_there_are_no_texts() -> None:
    assert read_field_docstrings(int) == {}
    assert read_field_docstrings(type("Made", (Measured,), {"__annotations__": {"first": int}})) == {}
