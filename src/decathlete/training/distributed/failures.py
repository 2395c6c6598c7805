"""Errors that a user can act on, also when they happen in a spawned process."""

from __future__ import annotations

import json

from decathlete import errors
from decathlete.core.files import write_json
from decathlete.core.memory import is_out_of_memory
from decathlete.errors import DecathleteError, InsufficientMemoryError
from decathlete.training.loop.task import TrainTask

FAILURE = "failure.json"


def as_user_error(problem: BaseException) -> DecathleteError | None:
    """The error to show for ``problem``, if a user can do something about it."""
    if isinstance(problem, DecathleteError):
        return problem
    if is_out_of_memory(problem):
        return InsufficientMemoryError(
            "out of memory for the network with this patch and batch",
            remedy="plan for less memory (preprocess --memory 6), or give --batch-size 1",
        )
    return None


def error_content(problem: BaseException) -> dict[str, str | None] | None:
    """A user's error as plain values, to be told to another process; ``None`` for a bug."""
    error = as_user_error(problem)
    if error is None:
        return None
    where = None if error.where is None else str(error.where)
    return {
        "kind": type(error).__name__,
        "problem": error.problem,
        "where": where,
        "remedy": error.remedy,
        "code": error.code,
    }


def error_from(content: dict[str, str | None]) -> DecathleteError:
    """The inverse of :func:`error_content`."""
    kind = getattr(errors, str(content["kind"]), DecathleteError)
    error: DecathleteError = kind.__new__(kind)
    DecathleteError.__init__(
        error, str(content["problem"]), where=content["where"], remedy=content["remedy"], code=content["code"]
    )
    return error


def leave_failure(task: TrainTask, problem: BaseException) -> None:
    """Write a user's error beside the run, where the process that spawned this one finds it."""
    content = error_content(problem)
    if content is not None:
        write_json(task.folder / FAILURE, content)


def read_failure(task: TrainTask) -> DecathleteError | None:
    """The error that a spawned process left, if it did; it is taken away."""
    path = task.folder / FAILURE
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return error_from(content)
