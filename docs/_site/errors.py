"""The page of error codes, generated from :mod:`decathlete.core.error_codes`.

Messages name the page, so it is in the repository: ``python docs/_site/errors.py`` writes it, and a test compares it.
"""

from __future__ import annotations

from pathlib import Path

from decathlete import errors
from decathlete.core.error_codes import CODES, ErrorCode
from decathlete.errors import DecathleteError
from text import code, summary, table

PAGE = Path(__file__).parents[1] / "reference" / "errors.md"


def make_page() -> str:
    """Return the content of the page."""
    rows = [
        (f"[`{entry.code}`](#{entry.code.lower()})", entry.title, code(entry.error))
        for entry in sorted(CODES.values(), key=lambda entry: entry.code)
    ]
    sections = "\n\n".join(_section(entry) for entry in CODES.values())
    classes = table(
        ("class", "also caught as", "meaning", "exit code"),
        [(code(cls.__name__), _parents(cls), summary(cls), _exit_code(cls)) for cls in _classes()],
    )
    return f"""# Error codes

Every error that a user can correct has a stable code. The command line prints the code, what is wrong, where, and what
to do, and exits with a status other than 0:

```text
error E-IMAGE-DAMAGED: case_01.nii.gz: cannot be read
  → export the image again
  (documentation: docs/reference/errors.md#e-image-damaged)
```

In Python, catch `decathlete.DecathleteError` or one of its [subclasses](#classes) and compare its attribute `code`.
Messages may change in any version; codes do not. `decathlete check --json` gives the code of each problem.

{table(("code", "meaning", "class"), rows)}

{sections}

## Classes

{classes}
"""


def _section(entry: ErrorCode) -> str:
    return (
        f"## {entry.code}\n\n**{entry.title}.** {entry.meaning}\n\n"
        f"{entry.remedy}\n\nClass: {code(f'decathlete.errors.{entry.error}')}"
    )


def _classes() -> list[type[DecathleteError]]:
    """Return the exception classes in the order in which the module defines them."""
    members = [value for value in vars(errors).values() if isinstance(value, type)]
    return [cls for cls in members if issubclass(cls, DecathleteError)]


def _parents(cls: type[DecathleteError]) -> str:
    return ", ".join(code(parent.__name__) for parent in cls.__mro__[1:] if issubclass(parent, DecathleteError))


def _exit_code(cls: type[DecathleteError]) -> str:
    return "128 + the signal's number" if cls is errors.InterruptedRunError else str(cls.exit_code)


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
