"""Run a command of the command line in this process, and keep what it prints."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from decathlete.cli.main import main


@dataclass(frozen=True)
class CommandResult:
    """Exit code and output of a command."""

    code: object
    out: str
    err: str


def run_command(*arguments: str) -> CommandResult:
    """Run ``decathlete ARGUMENTS``."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["decathlete", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
    return CommandResult(stop.value.code, out.getvalue(), err.getvalue())
