"""Import a package at its first use, so that reading a NIfTI file does not wait for the packages of other formats."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def lazy_import(package: str) -> Any:
    """Return a stand-in for the module ``package``, which is imported at the first access to one of its names.

    >>> json = lazy_import("json")
    >>> json.loads("[1]")
    [1]
    """
    return _LazyModule(package)


class _LazyModule:
    def __init__(self, package: str) -> None:
        self._package = package

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._package), name)
