"""Summaries of components and descriptions of their settings, read from the sources of their modules."""

from __future__ import annotations

import ast
import inspect
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
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

    The module is not imported.

    >>> read_summary(find_source("decathlete.training.objective.optimizers.sgd"), "sgd")
    'Stochastic gradient descent with Nesterov momentum.'
    """
    for node in ast.parse(read_text(source)).body:
        if isinstance(node, ast.ClassDef) and any(_registers(decorator, name) for decorator in node.decorator_list):
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


@cache
def read_field_docstrings(cls: type) -> dict[str, str]:
    """Return the text below each annotated field in the body of a class, without fields that the class inherits.

    A field without a text below it has an empty one. Without a source, for example in an interactive session, the
    result has no fields.
    """
    try:
        source = inspect.getsource(cls)
        tree = ast.parse(f"if True:\n{source}" if source[:1].isspace() else source)
    except (OSError, TypeError, SyntaxError):  # TypeError: of a class without a module that has a file
        return {}
    body = next((node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef)), [])
    return {
        statement.target.id: _text_of(following)
        for statement, following in pairwise([*body, ast.Pass()])
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }


def _text_of(statement: ast.stmt) -> str:
    """Return the text that a statement consists of; empty: it is another statement."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    text = value.value if isinstance(value, ast.Constant) else None
    return inspect.cleandoc(text) if isinstance(text, str) else ""


def _registers(decorator: ast.expr, name: str) -> bool:
    """Return whether a decorator is ``REGISTRY.register("name")``."""
    return (
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Attribute)
        and decorator.func.attr == "register"
        and [a.value for a in decorator.args if isinstance(a, ast.Constant)] == [name]
    )
