"""User errors that cross process boundaries."""

from __future__ import annotations

from decathlete import errors
from decathlete.core.documents import read_json
from decathlete.core.files import write_json
from decathlete.core.memory import is_out_of_memory
from decathlete.errors import DecathleteError, InsufficientMemoryError
from decathlete.training.loop.task import TrainTask

FAILURE = "failure.json"


def as_user_error(problem: BaseException) -> DecathleteError | None:
    """Return the error to show for ``problem``, or ``None`` for a bug."""
    if isinstance(problem, DecathleteError):
        return problem
    if is_out_of_memory(problem):
        return InsufficientMemoryError(
            "out of memory for the network with this patch and batch",
            remedy="plan for less memory (preprocess --memory 6), or use --batch-size 1",
        )
    return None


def error_content(problem: BaseException) -> dict[str, str | None] | None:
    """Convert a user error to plain values for another process; ``None`` for a bug."""
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
    """Convert the values of :func:`error_content` back to the error."""
    kind = getattr(errors, str(content["kind"]), DecathleteError)
    error: DecathleteError = kind.__new__(kind)
    DecathleteError.__init__(
        error, str(content["problem"]), where=content["where"], remedy=content["remedy"], code=content["code"]
    )
    return error


def write_failure(task: TrainTask, problem: BaseException) -> None:
    """Write a user error into the run's folder for the process that spawned this one."""
    content = error_content(problem)
    if content is not None:
        write_json(task.folder / FAILURE, content)


def read_failure(task: TrainTask) -> DecathleteError | None:
    """Return the error that a spawned process wrote, if there is one, and remove its file."""
    path = task.folder / FAILURE
    if not path.is_file():
        return None
    content = read_json(path)
    path.unlink()
    return error_from(content)
