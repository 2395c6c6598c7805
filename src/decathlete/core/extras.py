"""How optional packages are installed: one advice in every message, as README gives it."""

from __future__ import annotations


def how_to_install(*extras: str) -> str:
    """The remedy where a package of these extras of ``pyproject.toml`` is missing.

    >>> how_to_install("wandb", "mlflow")
    'in Decathlete\\'s folder: pip install ".[wandb,mlflow]"'
    """
    return f'in Decathlete\'s folder: pip install ".[{",".join(extras)}]"'
