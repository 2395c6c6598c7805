"""The list of components has the names and summaries of the components themselves, and imports none of them."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from decathlete.core import registry
from decathlete.core.assignments import parse_value
from decathlete.workflows.components import PACKAGES, all_registries, components, list_components

LISTED_WITHOUT_TORCH = """
import sys
from decathlete.workflows.components import list_components
assert len(list_components()) > 50
assert "torch" not in sys.modules
"""


def test_every_kind_has_its_package() -> None:
    assert {kind: registry.package for kind, registry in all_registries().items()} == PACKAGES


def test_the_list_agrees_with_the_components() -> None:
    listed = {(entry.kind, entry.name, entry.summary, entry.distribution) for entry in list_components()}
    described = components()
    assert listed == {(c.kind, c.name, c.summary, c.distribution) for c in described}
    assert [(c.kind, c.name, s.name) for c in described for s in c.settings if not s.description] == []


@pytest.mark.parametrize("content", [b"def", b"a = '\0'", b"\xff\xfe\xff", b"x = " + b"-" * 20_000 + b"1"])
def test_a_plugin_with_a_broken_source_is_listed(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_source_of_loss.py").write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    offer(monkeypatch, "loss.broken")
    assert [(entry.kind, entry.summary) for entry in list_components() if entry.name == "broken"] == [("loss", "")]


def test_a_plugin_with_the_name_of_a_builtin_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = list_components()
    offer(monkeypatch, "loss.cross_entropy")
    assert list_components() == before


def offer(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let an installed distribution have a component."""
    entry_point = metadata.EntryPoint(name, "broken_source_of_loss", registry.ENTRY_POINTS)
    monkeypatch.setattr(metadata, "entry_points", lambda **_: (entry_point,))


def test_names_are_listed_without_torch() -> None:
    subprocess.run([sys.executable, "-c", LISTED_WITHOUT_TORCH], check=True)


def test_every_word_of_a_setting_can_be_written_with_set() -> None:
    """``none`` and ``true`` are no words there: a setting that has them could not be set."""
    unwritable = [
        (component.kind, component.name, setting.name, word)
        for component in components()
        if component.kind != "exporter"  # those have options of their own
        for setting in component.settings
        if setting.type == "string"
        for word in filter(str.isidentifier, setting.allowed.split(", "))
        if parse_value(word) != word
    ]
    assert unwritable == []
