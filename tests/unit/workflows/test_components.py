"""The list of components has the names and summaries of the components themselves, and imports none of them."""

from __future__ import annotations

import subprocess
import sys

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
    described = {(c.kind, c.name, c.summary, c.distribution) for c in components()}
    assert listed == described


def test_names_are_listed_without_torch() -> None:
    subprocess.run([sys.executable, "-c", LISTED_WITHOUT_TORCH], check=True)
