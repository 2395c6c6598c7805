"""Import optional packages when they are needed, and explain how to install missing ones."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from decathlete.errors import MissingPackageError


def how_to_install(*extras: str) -> str:
    """Return the command that installs extras of ``pyproject.toml``, as the remedy of an error.

    >>> how_to_install("wandb", "mlflow")
    'in Decathlete\\'s folder: pip install ".[wandb,mlflow]"'
    """
    return f'in Decathlete\'s folder: pip install ".[{",".join(extras)}]"'


def how_to_install_package(package: str) -> str:
    """Return the command that installs a package which no extra contains, as the remedy of an error.

    >>> how_to_install_package("tensorrt")
    'pip install tensorrt'
    """
    return f"pip install {package}"


def import_optional(
    module: str, *, title: str, extra: str = "", package: str = "", alternative: str | None = None
) -> ModuleType:
    """Import a package that only some installations have.

    Args:
        module: name of the module, e.g. ``"onnxruntime"``.
        title: name of the package in messages, e.g. ``"ONNX Runtime"``.
        extra: the extra of ``pyproject.toml`` that installs the package.
        package: name of the package on PyPI, if no extra installs it.
        alternative: what to do without the package, in the imperative.

    Raises:
        MissingPackageError: the package is not installed or cannot be imported.
        ValueError: neither an extra nor a package is named.
    """
    if not extra and not package:
        raise ValueError("name an extra or a package")
    try:
        return import_module(module)
    except ImportError as problem:
        broken = not isinstance(problem, ModuleNotFoundError)
        remedy = how_to_install(extra) if extra else how_to_install_package(package)
        raise MissingPackageError(
            f"this needs {title}, which {f'does not load: {problem}' if broken else 'is not installed'}",
            remedy=remedy + (f", or {alternative}" if alternative else ""),
            package=module,
            extra=extra,
            broken=broken,
        ) from problem
