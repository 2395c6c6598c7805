"""Packages that are imported with their first use: a prediction of NIfTI files needs to wait for no other format's."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def lazily(package: str) -> Any:
    """Something like the module ``package``, which is imported when a name of it is first asked for.

    >>> json = lazily("json")
    >>> json.loads("[1]")
    [1]
    """
    return _Lazy(package)


class _Lazy:
    def __init__(self, package: str) -> None:
        self._package = package

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._package), name)
