"""Every example in a docstring (``>>>``) runs and prints what it says."""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
EXAMPLE = re.compile(r"^\s*>>> ", re.MULTILINE)
COUNTS = {path: len(EXAMPLE.findall(path.read_text("utf-8"))) for path in sorted(SRC.rglob("*.py"))}
WITH_EXAMPLES = {".".join(p.relative_to(SRC).with_suffix("").parts): n for p, n in COUNTS.items() if n}


def test_there_are_examples() -> None:
    assert len(WITH_EXAMPLES) >= 5


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_print_what_they_say(name: str) -> None:
    module = import_module(name.removesuffix(".__init__"))
    found = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0
    assert found.attempted == WITH_EXAMPLES[name], "an example lies where doctest does not look for it"
