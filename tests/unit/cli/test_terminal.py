"""No name in a file reaches the terminal, a log or a page with its control characters."""

from __future__ import annotations

import ast
import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import decathlete.cli
from decathlete.cli.main import app
from decathlete.cli.terminal import echo
from decathlete.core.log_format import stderr_handler
from decathlete.errors import CasesFailedError, DecathleteError, printable
from decathlete.evaluation.cross_validation import CrossValidation
from decathlete.evaluation.metrics import make_metrics
from decathlete.evaluation.scores import CaseScores, ClassScores, Scores
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.workflows.report import render_cross_validation

ESCAPES = "\x1b[2J\x1b]0;title\x07\x9b31m\r\u202e\u2028"


def is_safe(text: str) -> bool:
    return all(c in "\n\t" or (c.isprintable() or c.isspace()) for c in text) and "\r" not in text


@given(st.text(alphabet=st.characters(codec=None)))
def test_any_text_becomes_printable_and_stays_itself_otherwise(text: str) -> None:
    shown = printable(text)
    assert not any(ord(c) < 32 and c not in "\n\t" for c in shown)
    assert not any(0x7F <= ord(c) < 0xA0 for c in shown)
    shown.encode()
    assert printable(shown) == shown
    assert printable("Größe 頭部 → ±") == "Größe 頭部 → ±"


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_keeps_its_content(value: object) -> None:
    assert json.loads(printable(json.dumps(value, ensure_ascii=False))) == value


def test_errors_logs_and_lines_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"class {ESCAPES}")
    echo(f"class {ESCAPES}", err=True)
    handler = stderr_handler()
    handler.emit(logging.LogRecord("a", logging.WARNING, "", 0, "%s: lost", (f"case {ESCAPES}",), None))
    echo(DecathleteError(f"problem {ESCAPES}", where=Path(f"a{ESCAPES}"), remedy=f"fix {ESCAPES}"))
    written = capsys.readouterr()
    assert is_safe(written.out)
    assert is_safe(written.err)
    assert r"\u001b[2J" in written.out
    assert r"\u001b[2J" in written.err
    assert is_safe(str(CasesFailedError({f"a{ESCAPES}": ESCAPES}, n_done=1, doing="predict")))


def test_names_of_channels_classes_and_files_are_escaped_by_check(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "d", n_cases=3, n_test=0, shape_ZYX=(8, 9, 10))
    manifest = root / "dataset.json"
    content = json.loads(manifest.read_text())
    content["labels"] = {value: f"{name}{ESCAPES}" for value, name in content["labels"].items()} | {"9": f"x{ESCAPES}"}
    content["modality"] = {"0": f"MRI{ESCAPES}", "1": f"more{ESCAPES}"}
    manifest.write_text(json.dumps(content))
    (root / "imagesTr" / f"unused{ESCAPES}.nii").touch()
    for arguments in ([], ["--json"]):
        result = CliRunner().invoke(app, ["check", str(root), *arguments])
        assert result.exit_code == 2
        assert is_safe(result.stdout)
        assert "unused" in result.stdout
        assert "MRI" in result.stdout


def test_pages_and_tables_are_printable(tmp_path: Path) -> None:
    name = f"organ{ESCAPES}"
    structure = ClassScores(name=name, presence="both", values={"dice": 0.5}, truth_ml=1, prediction_ml=1)
    scores = Scores.of([CaseScores.of(f"a{ESCAPES}", [structure])], make_metrics(["dice"]))
    page = render_cross_validation(CrossValidation.of({0: scores}, dataset=f"D{ESCAPES}", dims=3, n_folds=2))
    scores.save_csv(tmp_path / "scores.csv")
    for text in (page, (tmp_path / "scores.csv").read_text()):
        assert is_safe(text)
        assert "organ" in text


def test_every_command_prints_by_one_function() -> None:
    """Only ``terminal`` writes text: no command calls ``print`` or ``typer.echo``, which would not escape."""
    folder = Path(decathlete.cli.__file__).parent
    writing = set()
    for path in folder.glob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        if {ast.unparse(call) for call in calls} & {"print", "typer.echo", "sys.stdout.write"}:
            writing.add(path.name)
    assert writing == {"terminal.py"}
