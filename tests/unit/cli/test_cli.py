"""The command line's surface: what it is called, how fast it answers, how it spells options."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from decathlete.cli.main import app

COMMANDS = ["run", "demo", "download", "check", "preprocess", "train", "validate", "predict", "evaluate", "report"]


def test_the_commands_are_these() -> None:
    assert list(get_command(app).commands) == COMMANDS  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is(command: str) -> None:
    for parameter in get_command(app).commands[command].params:  # type: ignore[attr-defined]
        if parameter.param_type_name == "option":
            assert parameter.help, f"{command} {parameter.opts[0]} has no help"
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_help_answers_at_once() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "decathlete", "--help"], check=True, capture_output=True)
        return time.perf_counter() - start

    # The rule is 0.5 s on an idle machine; tests share theirs, so the best of several counts.
    assert min(seconds() for _ in range(5)) < 1.0


def test_help_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, decathlete.cli.main; print(sorted({'torch', 'numpy', 'pydantic', 'lightning'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_underscores_are_hyphens() -> None:
    said = CliRunner().invoke(app, ["train", "--task", "none-such", "--max_time", "soon", "--batch_size", "2"])
    assert "No such option" not in said.output


def test_an_unknown_option_is_refused() -> None:
    assert CliRunner().invoke(app, ["train", "--task", "04", "--bogus"]).exit_code == 2


def test_the_version_is_printed() -> None:
    assert "decathlete 0." in CliRunner().invoke(app, ["--version"]).output
