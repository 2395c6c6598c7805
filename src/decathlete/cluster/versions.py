"""Versions that the command and its workers compare."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata

import decathlete.version

PACKAGES = ("numpy", "scipy", "torch", "blosc2", "SimpleITK", "nibabel")
"""Packages whose versions may change results by rounding."""


def own_versions() -> dict[str, str]:
    """Return the versions of Decathlete, Python and :data:`PACKAGES` in this process."""
    major, minor, _ = platform.python_version_tuple()
    own = {"decathlete": decathlete.version.__version__, "python": f"{major}.{minor}"}
    return own | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def differences(own: Mapping[str, str], other: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return differences that prevent work, and those that may change results by rounding."""
    texts = {
        name: f"{name} {other.get(name, 'none')} there, {version} here"
        for name, version in own.items()
        if other.get(name, "none") != version
    }
    fatal = [text for name, text in texts.items() if name not in PACKAGES]
    return fatal, [text for name, text in texts.items() if name in PACKAGES]
