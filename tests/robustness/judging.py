"""Classifies the end of a command or call: which messages are acceptable."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from decathlete.core.error_codes import CODES
from decathlete.errors import DecathleteError
from robustness.commands import CommandResult, describe_exception
from robustness.outcomes import CLEAN, DIFFERENT, MEMORY, TRACEBACK, VAGUE

_CODE = re.compile(r"\b(E-[A-Z]+(?:-[A-Z]+)*)\b")
_NUMBERS = re.compile(r"\d+(\.\d+)?")
_ESCAPE = "\x1b"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What an action found: a class of outcome, a short cause, and the whole message."""

    result: str
    cause: str = ""
    detail: str = ""


ACCEPTED = Finding(result=DIFFERENT)


def judge_message(text: str, names: set[str]) -> Finding:
    """Judge the message of an error.

    Args:
        names: of the damaged files and their folders; a message has to contain one of them.
    """
    codes = [code for code in _CODE.findall(text) if code in CODES]
    cause = f"{codes[0] if codes else 'no code'}: {_shortened(text)}"
    if "more memory" in text or "E-MEMORY" in codes:
        return Finding(result=MEMORY, cause=f"blames the computer: {cause}", detail=text)
    if _ESCAPE in text:
        return Finding(result=VAGUE, cause=f"prints terminal escapes: {cause}", detail=text)
    if not codes:
        return Finding(result=VAGUE, cause=f"no code: {cause}", detail=text)
    if not any(name in text for name in names):
        return Finding(result=VAGUE, cause=f"names no file: {cause}", detail=text)
    return Finding(result=CLEAN, cause=cause, detail=text)


def _shortened(text: str) -> str:
    """Return the first line that says something, without paths and numbers, to compare causes."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    line = re.sub(r"\S*/\S*", "PATH", line)
    return _NUMBERS.sub("N", line)[:110]


def judge_command(result: CommandResult, names: set[str]) -> Finding:
    """Judge the end of a command; one that succeeded is :data:`ACCEPTED`."""
    if result.code is None:
        return Finding(result=TRACEBACK, cause=result.signature, detail=result.error)
    if "Traceback (most recent call last)" in result.output:
        return Finding(result=TRACEBACK, cause="printed: " + _last_line(result.output), detail=result.output)
    if result.code == 0 and _ESCAPE in result.output:
        return Finding(result=VAGUE, cause="prints terminal escapes", detail=result.output)
    return ACCEPTED if result.code == 0 else judge_message(result.output, names)


def _last_line(text: str) -> str:
    return _NUMBERS.sub("N", text.strip().splitlines()[-1])[:110]


def judge_call(function: Callable[[], Any], names: set[str]) -> Finding | Any:
    """Call a function and return its value, or the finding about its error."""
    try:
        return function()
    except DecathleteError as problem:
        return judge_message(f"error {problem.code}: {problem}", names)
    except MemoryError as problem:
        return Finding(result=MEMORY, cause=describe_exception(problem), detail=str(problem))
    except OSError as problem:  # the command line names its file with the code E-FILE
        text = f"error E-FILE: {problem.filename}: {problem.strerror or problem}"
        return judge_message(text, names) if problem.filename else _traceback(problem)
    except BaseException as problem:
        return _traceback(problem)


def _traceback(problem: BaseException) -> Finding:
    return Finding(result=TRACEBACK, cause=describe_exception(problem), detail=f"{type(problem).__name__}: {problem}")
