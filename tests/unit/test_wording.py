"""Old names and sentences stay away, and docstrings are sentences: what the style guide of the project asks for."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TEXTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *(path for path in sorted((ROOT / "tests").rglob("*.py")) if path != Path(__file__)),
    *SOURCES,
]
OLD_NAMES = re.compile(
    r"\b(first_does|SharedBatchNorm|hush_lightning|EpochFeed|MADE_ANEW|remake_network|SpatialDraw|folded_volumes|TileSums|_Shelf"
    r"|memory_named|disk_named|damage_named|computing_named|takes_fields_of|RoadOptions)\b"
    r"|class (Meeting|Asked|About|Answer|Ready|Road|Listener)\b"
    r"|def (greatest|summed|unused|judge|lowered|departures|trained_on|fill)\b"
    r"|cli[/.](whole|measure|show)\b"
)
"""Old names that mean nothing else."""
OLD_PHRASES = [
    "In the brackets stand",
    "files that lie otherwise",
    "one that `predict` takes",
    "alike in every command",
    "The way of a case",
    "strings the rooms together",
    "told, not relied on",
    "has no words for",
    "is told before the work",
    "as far in all",
    "goes on by it",
    "made from other things",
    "known what made",
    "lost one another",
    "ended by itself",
    "mend these options",
    "memory does not suffice",
    "hold nothing out",
    "is told at the end",
    "given up",
    "What changes the weights",
    "share of the last step",
    "Bring a task of",
    "Take over trained models",
    "taken over from",
]
FRAGMENTS = {"Of", "From", "By", "With", "Without", "For", "Those", "Whose"}
"""First words of docstrings that are no sentences."""
QUESTIONS = {"What", "Where", "Which", "How"}
"""Also fragments where a function is described; a class or module may be described by a clause."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_old_name_is_left() -> None:
    found = {(relative(p), m.group()) for p in TEXTS for m in OLD_NAMES.finditer(p.read_text("utf-8"))}
    assert found == set()
    assert [relative(p) for p in SOURCES if p.stem.endswith(("lazily", "undeclared"))] == []


@pytest.mark.parametrize("phrase", OLD_PHRASES)
def test_no_old_phrase_is_left(phrase: str) -> None:
    pattern = re.compile(re.escape(phrase).replace(r"\ ", r"\s+"), re.IGNORECASE)
    assert [relative(path) for path in TEXTS if pattern.search(path.read_text("utf-8"))] == []


def test_docstrings_begin_with_a_sentence() -> None:
    fragments = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                forbidden = FRAGMENTS | QUESTIONS if isinstance(node, ast.FunctionDef) else FRAGMENTS
                if text.split()[0].rstrip(".,:") in forbidden:
                    fragments.append(f"{relative(path)}:{getattr(node, 'lineno', 1)}: {text.splitlines()[0]}")
    assert fragments == []
