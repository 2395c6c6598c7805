"""What messages and pages say of installing exists, and is said in one form."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from decathlete.core.extras import how_to_install, import_optional

ROOT = Path(__file__).parents[3]
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
SOURCES = list((ROOT / "src").rglob("*.py"))
FOR_USERS = EXTRAS - {"docs", "test", "test-full"}


def test_the_advice_is_what_pip_takes() -> None:
    assert how_to_install("wandb", "mlflow") == 'in Decathlete\'s folder: pip install ".[wandb,mlflow]"'


def test_a_package_that_nothing_installs_is_refused() -> None:
    with pytest.raises(ValueError, match="name an extra or a package"):
        import_optional("math", title="Mathematics")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages_give_the_same_advice(path: Path) -> None:
    text = path.read_text("utf-8").replace('\\"', '"')
    assert not re.search(r"decathlete\[", text), "this is not the form of README"
    for advice in re.findall(r"pip install (?!-c constraints\.txt torch)([^`#\n]*)", text):
        found = re.match(r'(?:-c constraints\.txt )?"?\.(?:\[([\w,-]+)\]")?', advice.strip())
        assert found, advice
        named = found[1].split(",") if found[1] else []
        assert set(named) <= EXTRAS


def test_messages_name_extras_that_exist() -> None:
    texts = [path.read_text("utf-8") for path in SOURCES if path.name != "extras.py"]
    named = [
        extra
        for text in texts
        for extra in re.findall(r"(?:how_to_install\(|import_optional\([^)]*extra=)['\"]([\w-]+)['\"]", text)
    ]
    assert len(named) >= 4
    assert set(named) <= EXTRAS
    assert not any("pip install" in text for text in texts)


def test_readme_lists_all_extras() -> None:
    table = (ROOT / "README.md").read_text("utf-8").partition("| extra |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == FOR_USERS
