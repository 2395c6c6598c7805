"""The catalogue of error codes and the source agree."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

import decathlete
from decathlete import errors
from decathlete.core.error_codes import CODES, documentation_of
from decathlete.errors import CasesFailedError, DecathleteError, ImageError, problems_found

SOURCE = Path(decathlete.__file__).parent
MODULES = [p for p in SOURCE.rglob("*.py") if p != SOURCE / "core" / "error_codes.py"]
CLASSES = {
    cls.__name__: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, DecathleteError)
}


def literal_codes() -> set[str]:
    """Codes that are written in the source, without those that the classes define."""
    modules = [path for path in MODULES if path != SOURCE / "errors.py"]
    constants = [node.value for path in modules for node in ast.walk(parse(path)) if isinstance(node, ast.Constant)]
    return {value for value in constants if isinstance(value, str) and re.fullmatch(r"E(-[A-Z]+)+", value)}


def raised_classes() -> set[str]:
    """Names of the error classes that the source calls, or passes on to be called (``kind=``, ``error=``)."""
    names = set()
    for path in MODULES:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Call):
                used = [node.func, *(k.value for k in node.keywords if k.arg in ("kind", "error"))]
                names |= {name.id for name in used if isinstance(name, ast.Name)}
    return names & set(CLASSES)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_every_code_in_the_source_is_in_the_catalogue() -> None:
    assert literal_codes() | {cls.code for cls in CLASSES.values()} <= set(CODES)


def test_every_code_of_the_catalogue_is_raised() -> None:
    raised = literal_codes() | {CLASSES[name].code for name in raised_classes()}
    assert set(CODES) - raised == set()


def test_every_class_has_its_own_code() -> None:
    assert len({cls.code for cls in CLASSES.values()}) == len(CLASSES)
    assert {CODES[cls.code].error for cls in CLASSES.values()} == set(CLASSES)


def test_every_entry_is_complete_and_names_a_class() -> None:
    for code, entry in CODES.items():
        assert entry.code == code
        assert entry.error in CLASSES
        assert entry.title[0].isupper()
        assert not entry.title.endswith(".")
        for paragraph in (entry.meaning, entry.remedy):
            assert paragraph.endswith(".")
            assert "\n" not in paragraph


def test_an_error_has_the_code_of_its_class_unless_it_has_its_own() -> None:
    assert ImageError("is bad").code == "E-IMAGE"
    assert ImageError("is bad", code="E-IMAGE-DAMAGED").code == "E-IMAGE-DAMAGED"
    assert CasesFailedError({"a": "bad"}, n_done=1, doing="read").code == "E-CASES-FAILED"
    assert problems_found(["a", "b"], where="x", remedy="y", kind=ImageError, code="E-IMAGE-VALUES").code == (
        "E-IMAGE-VALUES"
    )


def test_very_many_problems_are_listed_in_part() -> None:
    text = str(problems_found([f"case {k} is bad" for k in range(250)], where="x", remedy="y"))
    assert "250 problems" in text
    assert text.count("is bad") == 100
    assert "and 150 more" in text


@pytest.mark.parametrize("code", ["E-IMAGE-GEOMETRY", "E-MEMORY"])
def test_the_documentation_of_a_code_is_a_place_on_one_page(code: str) -> None:
    assert documentation_of(code) == f"docs/reference/errors.md#{code.lower()}"


def test_the_page_of_the_documentation_is_made_from_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SOURCE.parents[1] / "docs" / "_site"
    monkeypatch.syspath_prepend(str(folder))
    page = runpy.run_path(str(folder / "errors.py"))
    assert page["PAGE"].read_text(encoding="utf-8") == page["make_page"](), "run `python docs/_site/errors.py`"
    assert page["PAGE"].relative_to(SOURCE.parents[1]).as_posix() == documentation_of("E-MEMORY").partition("#")[0]
