"""The modules of ``benchmarks/``, which stand in folders and are no packages, for the length of a test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@contextmanager
def importable(name: str) -> Iterator[Path]:
    """What lies in ``benchmarks/<name>`` can be imported; afterwards it is forgotten, for folders share names."""
    folder, before = BENCHMARKS / name, set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        patch.syspath_prepend(str(folder))
        yield folder
    for module in set(sys.modules) - before:
        if any(str(BENCHMARKS) in place for place in _places(sys.modules[module])):
            del sys.modules[module]


def _places(module: ModuleType) -> list[str]:
    """A folder without ``__init__.py`` has no file; kept, it would still hold the modules that are forgotten.

    Only what a module holds itself counts: some make an attribute of any name.
    """
    own = vars(module)
    return [str(own.get("__file__", "")), *map(str, own.get("__path__", ()))]
