"""The exceptions of Decathlete.

Every error that a user can correct is a :class:`DecathleteError`. It says what is wrong, where, and what to do, and has
a stable ``code`` that :mod:`decathlete.core.error_codes` explains. The command line prints it without a traceback and
exits with its ``exit_code``; a script catches one class.

    DecathleteError
    ├── OptionError              an option or an override that does not fit
    │   └── MissingPackageError  an optional package that is not installed or cannot be imported
    ├── DatasetError             a dataset that cannot be used as it is
    │   ├── ManifestError        dataset.json is missing, unreadable or contradicts itself
    │   └── ImageError           one image file: missing, truncated, not an image, not writable
    │       └── GridMismatchError  two images that should share one grid and do not
    ├── PlanError                a plan that cannot be made or does not fit the data
    ├── StoreError               prepared data: missing, damaged, or made with different settings
    ├── ModelError               a model bundle or checkpoint: missing, damaged, or not for this input
    ├── DownloadError            a file that cannot be downloaded, or is not the published one
    ├── ArchiveError             an archive that is damaged or not safe to unpack
    ├── InsufficientMemoryError  the memory of the computer or the device is too small
    ├── ClusterError             a cluster that cannot be reached or used, or workers that were lost
    ├── ServiceError             a request that the service cannot fulfil
    ├── TritonError              a Triton Inference Server that is missing, fails or gives other results
    ├── OutputError              a place that cannot be written, or that holds other results
    ├── CasesFailedError         some of many cases failed; the others are finished
    ├── FoldsFailedError         some folds of a cross-validation failed; the others are finished
    └── InterruptedRunError      stopped by a signal, after saving what is needed to resume
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, except tab and line feed
    "\u2028\u2029\u202a-\u202e\u2066-\u2069"  # line separators, and marks that reverse the order of a text
    "\ud800-\udfff]"  # halves of characters; Python uses them for bytes that are not UTF-8
)

_MAX_LISTED = 100
"""Problems that one error lists."""


def printable(text: str) -> str:
    r"""Return a text with control characters as ``\uXXXX``: names in files must not control a terminal.

    Line feeds and tabs stay. Applied to JSON, the content stays the same.

    >>> printable("liver\x1b[2J")
    'liver\\u001b[2J'
    """
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class DecathleteError(Exception):
    """An error that the user can correct.

    Args:
        problem: what is wrong, one sentence.
        where: the file or folder that has the problem.
        remedy: what to do, one sentence in the imperative.
        code: stable code of this kind of error, if it is more specific than the code of the class.

    Attributes:
        exit_code: exit status of the command line.
        code: stable code, explained in :mod:`decathlete.core.error_codes`.
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
        return printable(f"{head}\n  → {self.remedy}" if self.remedy else head)

    def __reduce__(self) -> tuple[object, ...]:
        # Errors are sent back from worker processes; the default would lose the keyword-only arguments.
        return (_rebuild, (type(self), self.args, dict(self.__dict__)))


def _rebuild(cls: type[DecathleteError], args: tuple[object, ...], state: dict[str, object]) -> DecathleteError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class OptionError(DecathleteError):
    """An option, a combination of options, or an override of the plan that does not fit."""

    code = "E-OPTION"


class MissingPackageError(OptionError):
    """An optional package that is not installed or cannot be imported.

    Attributes:
        package: the module that could not be imported.
        extra: the extra of ``pyproject.toml`` that installs the package; empty: there is none.
        broken: whether the package is installed but cannot be imported.
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
    """A dataset that cannot be used as it is."""

    code = "E-DATASET"


class ManifestError(DatasetError):
    """``dataset.json`` is missing, unreadable, or contradicts itself."""

    code = "E-DATASET-MANIFEST"


class ImageError(DatasetError):
    """One image file: missing, truncated, of an unknown kind, or not writable."""

    code = "E-IMAGE"


class NotAnImageError(ImageError):
    """A DICOM object of another kind, such as an RT structure set.

    Attributes:
        kind: what it is, for a message.
    """

    code = "E-IMAGE-KIND"

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(
            f"is {kind}, which has no voxels",
            where=path,
            remedy="name the folder with the slices of the image",
        )
        self.kind = kind


class GridMismatchError(ImageError):
    """Two images that should share one grid do not."""

    code = "E-IMAGE-GEOMETRY"


class PlanError(DecathleteError):
    """A plan that cannot be made from the fingerprint, or that does not fit the data."""

    code = "E-PLAN"


class StoreError(DecathleteError):
    """Prepared data that are missing, damaged, or were made with different settings."""

    code = "E-STORE"


class ModelError(DecathleteError):
    """A model bundle or checkpoint that is missing, damaged, or not made for this input."""

    code = "E-MODEL"


class DownloadError(DecathleteError):
    """A file that cannot be downloaded, or that is not the published one."""

    code = "E-DOWNLOAD"


class ArchiveError(DecathleteError):
    """An archive that is damaged, or that would write elsewhere or too much; nothing of it was unpacked."""

    code = "E-ARCHIVE"


class InsufficientMemoryError(DecathleteError):
    """The memory of the computer or of its accelerator is too small for the work."""

    code = "E-MEMORY"


class ClusterError(DecathleteError):
    """A cluster that cannot be reached or used, or whose workers were lost."""

    code = "E-CLUSTER"


class ServiceError(DecathleteError):
    """A request that the service (``decathlete serve``) rejects or cannot fulfil."""

    code = "E-SERVICE"


class TritonError(DecathleteError):
    """A Triton Inference Server that is missing, does not answer, or does not compute what the model computes."""

    code = "E-TRITON"


class OutputError(DecathleteError):
    """A place that cannot be written, or that holds the results of other inputs or settings."""

    code = "E-OUTPUT"


class CasesFailedError(DecathleteError):
    """Some of many cases failed; all others are finished and kept.

    Args:
        failures: case id -> message.
        n_done: number of cases that succeeded.
        doing: what was done to the cases, a verb such as ``"prepare"``.
    """

    code = "E-CASES-FAILED"

    def __init__(self, failures: Mapping[str, str], *, n_done: int, doing: str) -> None:
        self.failures = dict(failures)
        self.n_done = n_done
        lines = "\n".join(f"  {case}: {message}" for case, message in self.failures.items())
        super().__init__(
            f"could not {doing} {len(self.failures)} of {len(self.failures) + n_done} cases:\n{lines}",
            remedy="fix or remove these cases and run the same command again; finished cases are kept",
        )


class FoldsFailedError(DecathleteError):
    """Some folds of a cross-validation failed; all others are finished and kept.

    Args:
        failures: fold -> message; of several configurations, the fold with the name of its configuration.
        n_done: number of folds that succeeded.
    """

    code = "E-FOLDS-FAILED"

    def __init__(self, failures: Mapping[int, str] | Mapping[str, str], *, n_done: int) -> None:
        self.failures: dict[int | str, str] = dict(failures.items())
        self.n_done = n_done
        names = {fold: fold if isinstance(fold, str) else f"fold {fold}" for fold in self.failures}
        lines = "\n".join(f"  {names[fold]}: {message}" for fold, message in self.failures.items())
        super().__init__(
            f"{len(self.failures)} of {len(self.failures) + n_done} folds failed:\n{lines}",
            remedy="fix the cause and run the same command again, or leave these folds out; finished folds are kept, "
            "and test images are predicted when no fold fails",
        )


class InterruptedRunError(DecathleteError):
    """A signal stopped the work, after saving; ``exit_code`` is 128 + the signal, as in shells.

    A training that made enough steps has also left a model, which a resumption replaces.

    Args:
        signal_number: e.g. 15, SIGTERM.
    """

    code = "E-INTERRUPTED"

    def __init__(self, problem: str, *, signal_number: int, where: Path | str | None = None) -> None:
        super().__init__(problem, where=where, remedy="run the same command again to resume (`train` with --resume)")
        self.exit_code = 128 + signal_number


def problems_found(
    problems: Sequence[str],
    *,
    where: Path | str,
    remedy: str,
    kind: type[DecathleteError] = DatasetError,
    code: str | None = None,
) -> DecathleteError:
    """Return one error for several problems that were found together; of very many, the first are listed."""
    if len(problems) == 1:
        return kind(problems[0], where=where, remedy=remedy, code=code)
    more = len(problems) - _MAX_LISTED
    listed = "".join(f"\n  - {p}" for p in [*problems[:_MAX_LISTED], *([f"and {more} more"] if more > 0 else [])])
    return kind(f"{len(problems)} problems:{listed}", where=where, remedy=remedy, code=code)
