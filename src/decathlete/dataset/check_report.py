"""The report of a check: every problem of a dataset with its file and its remedy."""

from __future__ import annotations

from typing import Literal

from decathlete.core.schema import Schema
from decathlete.errors import DatasetError

Severity = Literal["error", "warning"]


class Problem(Schema):
    """One problem of a dataset.

    Attributes:
        severity: an ``error`` must be fixed before the dataset can be used; a ``warning`` needs a person's judgement.
            Problems of test images are warnings: training does not need them, only their own prediction will fail.
        code: stable error code, explained in :mod:`decathlete.core.error_codes`.
        file: path relative to the dataset's folder.
        cases: ids of all cases, if the problem concerns several.
    """

    severity: Severity
    code: str
    case_id: str | None = None
    file: str | None = None
    cases: tuple[str, ...] = ()
    message: str
    remedy: str

    def __str__(self) -> str:
        where = self.file or self.case_id
        return f"{where + ': ' if where else ''}{self.message}\n    → {self.remedy}"


class CheckReport(Schema):
    """The result of a check.

    Attributes:
        regions: descriptions of the regions that the manifest declares or the user chose.
        notes: how the cases are split, and what is not used, with the reason.
    """

    dataset: str
    root: str
    n_cases: int
    n_test_cases: int
    problems: tuple[Problem, ...]
    regions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that prevent the use of the dataset."""
        return tuple(p for p in self.problems if p.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that need a person's judgement."""
        return tuple(p for p in self.problems if p.severity == "warning")

    @property
    def ok(self) -> bool:
        """Whether there are no errors."""
        return not self.errors

    def lines(self) -> list[str]:
        """Return a readable report: errors, warnings, and a summary."""
        tests = f" and {self.n_test_cases} test images" if self.n_test_cases else ""
        out = [f"{self.dataset}: {self.n_cases} cases{tests} in {self.root}"]
        out += [f"region {region}" for region in self.regions]
        out += [f"note: {note}" for note in self.notes]
        kinds = (("error", self.errors), ("warning", self.warnings))
        for name, problems in kinds:
            out += [f"{name} {p.code}: {p}" for p in problems]
        if self.ok and not self.warnings:
            return [*out, "no problems found"]
        return [*out, ", ".join(f"{len(found)} {name}{'s' if len(found) != 1 else ''}" for name, found in kinds)]

    def raise_for_errors(self) -> None:
        """Raise an error if the check found errors.

        Raises:
            DatasetError: with all errors of the check.
        """
        if self.errors:
            listed = "".join(f"\n  - {p}" for p in self.errors)
            raise DatasetError(
                f"{len(self.errors)} problems:{listed}",
                where=self.root,
                remedy="fix them, then run the same command again (`decathlete check` also lists warnings)",
                code="E-DATASET-CHECK",
            )
