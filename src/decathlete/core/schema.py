"""Typed, frozen models of JSON files that reject unknown keys and report all problems together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from decathlete.core.checksums import add_checksum, remove_checksum
from decathlete.core.documents import explain_json_error
from decathlete.core.files import read_text, write_text
from decathlete.errors import DecathleteError, OutputError, problems_found

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class Schema(BaseModel):
    """Base class of every model that is written to or read from JSON.

    Attributes:
        has_checksum: whether files end with a checksum of their text, so that a changed digit is found, too.
    """

    has_checksum: ClassVar[bool] = False
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True, ser_json_inf_nan="constants")

    def save(self, path: Path) -> None:
        """Write indented JSON atomically.

        Raises:
            OutputError: the file cannot be written, or a text is not Unicode.
        """
        try:
            text = self.model_dump_json(indent=1)
        except ValueError as problem:  # pydantic's, about a file name that is not UTF-8
            raise OutputError(
                f"cannot be written as JSON ({problem})", where=path, remedy="rename the file that has this name"
            ) from None
        write_text(path, add_checksum(text + "\n") if self.has_checksum else text + "\n")

    @classmethod
    def load(cls, path: Path, *, error: type[DecathleteError] = DecathleteError, remedy: str = "") -> Self:
        """Read and validate a file.

        Raises:
            error: the file cannot be read, does not match its checksum or is not valid; lists every problem.
        """
        text = read_text(path, error=error, remedy=remedy)
        try:
            content = remove_checksum(text)
        except ValueError as problem:
            raise error(str(problem), where=path, remedy=remedy or "create the file again") from None
        try:
            return cls.model_validate_json(content)
        except ValidationError as problem:
            problems = describe(problem)
            if problem.errors()[0]["type"] == "json_invalid":
                problems = [f"is not valid JSON: {explain_json_error(problem, text)}"]
            raise problems_found(
                problems,
                where=path,
                remedy=remedy or "create the file again, or fix these fields",
                kind=error,
            ) from None
        except _DAMAGE as problem:  # of a validator that converts an earlier version
            raise error(
                f"does not have the expected fields ({type(problem).__name__}: {problem})",
                where=path,
                remedy=remedy or "create the file again",
            ) from problem

    def revised(self, **changes: object) -> Self:
        """Return a validated copy with some fields replaced (``model_copy`` does not validate)."""
        return type(self).model_validate(dict(self) | changes)  # a dump would lack fields that are excluded from files


def describe(problem: ValidationError) -> list[str]:
    """Format each problem of a pydantic error as ``field.path: message``."""
    return [describe_error(error) for error in problem.errors()]


def describe_error(error: ErrorDetails) -> str:
    """Format one problem of a pydantic error as ``field.path: message``."""
    is_ours = error["type"] == "value_error"  # raised by a validator; pydantic adds "Value error, " to its message
    message = str(error["ctx"]["error"]) if is_ours else error["msg"]
    return ": ".join(filter(None, [".".join(map(str, error["loc"])), message]))
