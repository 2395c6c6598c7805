"""What lives in a file: frozen, typed JSON models that reject unknown keys and report all problems together."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from decathlete.core.files import read_text, write_text
from decathlete.errors import DecathleteError, problems_found


class Schema(BaseModel):
    """Base of every model that is written to or read from JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True, ser_json_inf_nan="constants")

    def save(self, path: Path) -> None:
        """Write as indented JSON, whole or not at all."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: Path, *, error: type[DecathleteError] = DecathleteError, remedy: str = "") -> Self:
        """Read and validate.

        Raises:
            error: with every problem of the file together.
        """
        text = read_text(path, error=error, remedy=remedy)
        try:
            return cls.model_validate_json(text)
        except ValidationError as problem:
            raise problems_found(
                describe(problem),
                where=path,
                remedy=remedy or "make the file again, or mend these fields",
                kind=error,
            ) from None

    def revised(self, **changes: object) -> Self:
        """A validated copy with some fields replaced (``model_copy`` alone would not validate)."""
        return type(self).model_validate(dict(self) | changes)  # a dump would lack what is never written


def describe(problem: ValidationError) -> list[str]:
    """Each problem of a pydantic error as ``field.path: message``."""
    return [
        ": ".join(filter(None, [".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")]))
        for e in problem.errors()
    ]
