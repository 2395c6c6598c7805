"""Summaries of components, read from the sources of their modules: nothing is imported."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

from decathlete.core.files import read_text


def find_source(module: str) -> Path | None:
    """Return the file of a module that is installed, by its dotted name; ``None``: it has no source file.

    >>> find_source("decathlete.core.registry").name
    'registry.py'
    """
    top, *rest = module.split(".")
    spec = find_spec(top)  # of a top-level name: imports nothing
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and Path(spec.origin).suffix == ".py" else None
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def read_summary(source: Path, name: str) -> str:
    """Return the first line of the docstring of the class that a module registers as ``name``; empty: there is none.

    >>> read_summary(find_source("decathlete.training.objective.optimizers.sgd"), "sgd")
    'Stochastic gradient descent with Nesterov momentum.'
    """
    for node in ast.parse(read_text(source)).body:
        if isinstance(node, ast.ClassDef) and any(_registers(decorator, name) for decorator in node.decorator_list):
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def _registers(decorator: ast.expr, name: str) -> bool:
    """Return whether a decorator is ``REGISTRY.register("name")``."""
    return (
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Attribute)
        and decorator.func.attr == "register"
        and [a.value for a in decorator.args if isinstance(a, ast.Constant)] == [name]
    )
