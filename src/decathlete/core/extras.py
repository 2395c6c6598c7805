"""Optional packages: imported when they are needed, and how to install those that are missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from decathlete.errors import MissingPackageError


def how_to_install(*extras: str) -> str:
    """The remedy where a package of these extras of ``pyproject.toml`` is missing.

    >>> how_to_install("wandb", "mlflow")
    'in Decathlete\\'s folder: pip install ".[wandb,mlflow]"'
    """
    return f'in Decathlete\'s folder: pip install ".[{",".join(extras)}]"'


def import_optional(module: str, *, title: str, extra: str, alternative: str | None = None) -> ModuleType:
    """Import a package that only some installations have.

    Args:
        module: to import, e.g. ``"onnxruntime"``.
        title: of the package, for people, e.g. ``"ONNX Runtime"``.
        extra: of ``pyproject.toml`` that installs it.
        alternative: what to do without it, in the imperative.

    Raises:
        MissingPackageError: it is not installed, or is damaged.
    """
    try:
        return import_module(module)
    except ImportError as problem:
        broken = not isinstance(problem, ModuleNotFoundError)
        raise MissingPackageError(
            f"this needs {title}, which {f'does not load: {problem}' if broken else 'is not installed'}",
            remedy=how_to_install(extra) + (f", or {alternative}" if alternative else ""),
            package=module,
            extra=extra,
            broken=broken,
        ) from problem
