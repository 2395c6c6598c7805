"""Runs a command of the command line in this process, with all that it prints, also from native libraries."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """The end of a command.

    Attributes:
        code: exit code; ``None`` after an exception that no command may end with.
        output: all that was printed.
        error: traceback of that exception.
        signature: type and place of that exception, to group equal ones.
    """

    code: int | None
    output: str
    error: str = ""
    signature: str = ""


def run_command(arguments: Sequence[str]) -> CommandResult:
    """Run ``decathlete ARGUMENTS`` here."""
    from decathlete.cli.main import main

    code: int | None = 0
    error = signature = ""
    before = sys.argv
    sys.argv = ["decathlete", *arguments]
    with tempfile.TemporaryFile() as file, captured(file):
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException as problem:
            code, error, signature = None, traceback.format_exc(), describe_exception(problem)
        finally:
            sys.argv = before
            _flush()
        file.seek(0)
        output = file.read().decode(errors="backslashreplace")
    return CommandResult(code=code, output=output, error=error, signature=signature)


def describe_exception(problem: BaseException) -> str:
    """Return the type of an exception and the innermost place in Decathlete that it came through."""
    frames = traceback.extract_tb(problem.__traceback__)
    ours = [f for f in frames if "/decathlete/" in f.filename]
    place = f"{ours[-1].filename.rpartition('/decathlete/')[2]}:{ours[-1].name}" if ours else "outside"
    return f"{type(problem).__name__} in {place}"


@contextmanager
def captured(file: IO[bytes]) -> Iterator[None]:
    """Send the standard output and error of this process, native code included, to ``file``."""
    _flush()
    saved = os.dup(1), os.dup(2)
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        _flush()
        for number, kept in zip((1, 2), saved, strict=True):
            os.dup2(kept, number)
            os.close(kept)
        # Handlers of a command would write to its streams for ever.
        for handler in list(logging.root.handlers):
            logging.root.removeHandler(handler)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
