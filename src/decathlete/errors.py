"""The exceptions of Decathlete.

Everything a user can cause is a :class:`DecathleteError`: it says what is wrong, where, and what to do about it.
The command line prints it without a traceback and exits with its ``exit_code``; a script catches one class.

    DecathleteError
    ├── OptionError          an option or an override that does not fit
    │   └── MissingPackageError  an optional package that is not installed or does not load
    ├── DatasetError         a dataset that cannot be used as it stands
    │   ├── ManifestError    dataset.json is missing, unreadable or contradicts itself
    │   └── ImageError       one image file: missing, truncated, not an image, not writable
    │       └── GridMismatchError  two images that should share one grid and do not
    ├── PlanError            a plan that cannot be made or does not fit the data
    ├── StoreError           prepared data: missing, damaged, or made from something else
    ├── ModelError           a model bundle or checkpoint: missing, damaged, or not for this input
    ├── DownloadError        a file that could not be fetched, or is not the one that was published
    ├── ArchiveError         an archive that is damaged or not safe to unpack
    ├── InsufficientMemoryError  the computer's or the device's memory does not hold the work
    ├── OutputError          a place that cannot be written, or that holds something else
    ├── CasesFailedError     some of many cases failed; the others are done
    ├── FoldsFailedError     some folds of a cross-validation failed; the others are done
    └── InterruptedRunError  stopped by a signal, after saving what is needed to go on
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


class DecathleteError(Exception):
    """A problem its user can solve.

    Args:
        problem: what is wrong, one sentence.
        where: the file or folder it is about.
        remedy: what to do, one sentence in the imperative.
        code: stable code of this kind of error, if it is more specific than the class's.

    Attributes:
        exit_code: of the command line.
        code: stable code, listed in the documentation.
    """

    exit_code = 2
    code = "E-GENERAL"

    def __init__(
        self, problem: str, *, where: Path | str | None = None, remedy: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.remedy = remedy
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        head = f"{self.where}: {self.problem}" if self.where is not None else self.problem
        return f"{head}\n  → {self.remedy}" if self.remedy else head

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel back from worker processes; the default would lose the keyword-only parts.
        return (_rebuild, (type(self), self.args, dict(self.__dict__)))


def _rebuild(cls: type[DecathleteError], args: tuple[object, ...], state: dict[str, object]) -> DecathleteError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class OptionError(DecathleteError):
    """An option, a combination of options, or an override of the plan that does not fit."""


class MissingPackageError(OptionError):
    """An optional package that is not installed, or does not load.

    Attributes:
        package: the module that was to be imported.
        extra: of ``pyproject.toml`` that installs it.
        broken: it is installed, but importing it fails.
    """

    code = "E-PACKAGE-MISSING"

    def __init__(
        self, problem: str, *, package: str, extra: str, broken: bool = False, remedy: str | None = None
    ) -> None:
        super().__init__(problem, remedy=remedy)
        self.package = package
        self.extra = extra
        self.broken = broken


class DatasetError(DecathleteError):
    """A dataset that cannot be used as it stands."""


class ManifestError(DatasetError):
    """``dataset.json`` is missing, unreadable, or contradicts itself."""


class ImageError(DatasetError):
    """One image file: missing, truncated, of an unknown kind, or not writable."""


class GridMismatchError(ImageError):
    """Two images that should share one grid do not."""


class PlanError(DecathleteError):
    """A plan that cannot be made from the fingerprint, or that does not fit the data."""


class StoreError(DecathleteError):
    """Prepared data that are missing, damaged, or made from something else."""


class ModelError(DecathleteError):
    """A model bundle or checkpoint that is missing, damaged, or not made for this input."""


class DownloadError(DecathleteError):
    """A file that could not be fetched, or that is not the one that was published."""


class ArchiveError(DecathleteError):
    """An archive that is damaged, or that would write elsewhere or too much; nothing of it was unpacked."""


class InsufficientMemoryError(DecathleteError):
    """The memory of the computer or of its accelerator does not hold the work."""


class OutputError(DecathleteError):
    """A place that cannot be written, or that holds something made from other inputs."""


class CasesFailedError(DecathleteError):
    """Some of many cases failed; all others are done and kept.

    Args:
        failures: case id -> message.
        n_done: how many cases succeeded.
        doing: what was being done, e.g. ``"prepare"``.
    """

    def __init__(self, failures: Mapping[str, str], *, n_done: int, doing: str) -> None:
        self.failures = dict(failures)
        self.n_done = n_done
        lines = "\n".join(f"  {case}: {message}" for case, message in self.failures.items())
        super().__init__(
            f"could not {doing} {len(self.failures)} of {len(self.failures) + n_done} cases:\n{lines}",
            remedy="mend or remove these cases and run the same command again; finished cases are kept",
        )


class FoldsFailedError(DecathleteError):
    """Some folds of a cross-validation failed; all others are done and kept.

    Args:
        failures: fold -> message.
        n_done: how many folds succeeded.
    """

    def __init__(self, failures: Mapping[int, str], *, n_done: int) -> None:
        self.failures = dict(failures)
        self.n_done = n_done
        lines = "\n".join(f"  fold {fold}: {message}" for fold, message in self.failures.items())
        super().__init__(
            f"{len(self.failures)} of {len(self.failures) + n_done} folds failed:\n{lines}",
            remedy="mend this and run the same command again, or leave these folds out; finished folds are kept, and "
            "test images are predicted when none fails",
        )


class InterruptedRunError(DecathleteError):
    """Work was stopped by a signal, after saving; ``exit_code`` is 128 + the signal, as shells have it.

    Args:
        signal_number: e.g. 15, SIGTERM.
    """

    def __init__(self, problem: str, *, signal_number: int, where: Path | str | None = None) -> None:
        super().__init__(problem, where=where, remedy="run the same command again to go on (`train` with --resume)")
        self.exit_code = 128 + signal_number


def problems_found(
    problems: Sequence[str], *, where: Path | str, remedy: str, kind: type[DecathleteError] = DatasetError
) -> DecathleteError:
    """One error for several problems found together."""
    if len(problems) == 1:
        return kind(problems[0], where=where, remedy=remedy)
    listed = "".join(f"\n  - {p}" for p in problems)
    return kind(f"{len(problems)} problems:{listed}", where=where, remedy=remedy)
