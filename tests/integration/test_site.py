"""The documentation site: it builds without a warning, documents the whole program and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import decathlete
from decathlete.cli.command_table import COMMANDS, GROUPS
from decathlete.cli.main import app
from decathlete.core.error_codes import CODES
from decathlete.errors import DecathleteError

ROOT = Path(__file__).parents[2]
NAMES = sorted(name for name in decathlete.__all__ if not name.startswith("__"))
COMMAND_PAGES = [
    *((name,) for name in COMMANDS),
    *((group, second) for group, (_, commands) in GROUPS.items() for second in commands),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


# Few tests that loop, so that parallel workers do not each build the site.
def test_every_option_of_every_command_is_on_its_page(site: Path) -> None:
    missing = []
    for names in COMMAND_PAGES:
        page = unescape((site / "reference" / "commands" / "-".join(names) / "index.html").read_text("utf-8"))
        command: Any = get_command(app)
        for name in names:
            command = command.commands[name]
        options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        assert len(options) > 1
        missing += [(names, option) for option in options if f"<code>{option}" not in page]
    assert missing == []


def test_every_public_name_is_in_the_api_reference(site: Path) -> None:
    api = "".join(path.read_text("utf-8") for path in site.glob("reference/api/*/index.html"))
    assert [name for name in NAMES if not re.search(rf'<h2 id="[\w.]*\b{name}"', api)] == []


def test_every_exception_and_every_code_is_on_the_page_of_error_codes(site: Path) -> None:
    page = (site / "reference" / "errors" / "index.html").read_text("utf-8")
    assert [cls.__name__ for cls in _tree(DecathleteError) if f"decathlete.errors.{cls.__name__}" not in page] == []
    assert [code for code in CODES if f'id="{code.lower()}"' not in page] == []


def test_readme_notebooks_and_benchmarks_are_shown(site: Path) -> None:
    assert "nnU-Net for PyTorch" in (site / "index.html").read_text("utf-8")
    shown = {path.parent.name for path in site.glob("*/*/index.html")} | {
        path.parent.name for path in site.glob("tutorials/notebooks/*/index.html")
    }
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} <= shown
    assert {path.stem for path in (ROOT / "benchmarks" / "results").glob("*.md")} <= shown


def test_the_architecture_page_shows_the_layers_of_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text("utf-8")
    drawing = page.partition("Imports point only downwards")[2].split("```")[1].strip()
    expected = [[name.strip().removeprefix("decathlete.") for name in layer.split("|")] for layer in layers]
    assert [line.split() for line in drawing.splitlines()] == expected


def test_no_page_loads_anything_from_another_server(site: Path) -> None:
    loaded = [(path.name, link) for path in site.rglob("*.html") for link in _loaded(path.read_text("utf-8"))]
    assert len(loaded) > 100
    assert [(name, link) for name, link in loaded if re.match(r"(https?:)?//", link)] == []


def _loaded(html: str) -> Iterator[str]:
    """The addresses of scripts, style sheets, images and icons that a page loads."""
    yield from re.findall(r'<(?:script|img|iframe)\b[^>]*\bsrc="([^"]+)"', html)
    yield from re.findall(r'<link\b[^>]*\bhref="([^"]+)"', html)


def _tree(cls: type[DecathleteError]) -> Iterator[type[DecathleteError]]:
    yield cls
    for below in cls.__subclasses__():
        yield from _tree(below)
