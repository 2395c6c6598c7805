"""Notebooks as they are committed: valid, without outputs, of code that compiles. ``make test-full`` runs them."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

import decathlete
from notebooks import NOTEBOOKS, ROOT, cells, is_parameters, source

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_is_valid_and_holds_no_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in cells(path, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


def test_its_code_compiles_and_calls_what_there_is(path: Path) -> None:
    used = set()
    for cell in cells(path, "code"):
        tree = ast.parse(source(cell), filename=f"{path.name}, {cell['id']}")
        compile(tree, path.name, "exec")
        used |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "decathlete"
        }
    assert used <= set(dir(decathlete))
    assert {"check", "preprocess", "train", "validate", "predict", "report"} <= used


def test_its_parameters_come_first(path: Path) -> None:
    code = cells(path, "code")
    assert [is_parameters(cell) for cell in code] == [True] + [False] * (len(code) - 1)
    assert "FOLDER = " in source(code[0])


def test_is_linked_and_links_to_what_there_is(path: Path) -> None:
    for page in ("README.md", "docs/tutorials/first-run.md"):
        assert f"notebooks/{path.name})" in (ROOT / page).read_text("utf-8")
    for cell in cells(path, "markdown"):
        for target in re.findall(r"\]\(([^)#]+)\)", source(cell)):
            assert (path.parent / target).is_file(), target
