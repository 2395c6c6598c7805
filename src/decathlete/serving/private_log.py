"""Log without patient data: files and headers from outside may name a patient, so what is said about them stays out.

Messages of the libraries that read images become warnings of the job that is computed, for the person who sent it.
"""

from __future__ import annotations

import logging
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from decathlete.io.read_warnings import separate_warnings

_OWN = ("decathlete.serving", "uvicorn.error", "uvicorn.asgi")
_job = threading.local()

log = logging.getLogger(__name__)


class PrivacyFilter(logging.Filter):
    """Passes only records of the service itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written to the log."""
        if record.name.startswith(_OWN):
            if record.exc_info:  # its message may quote a file
                record.exc_info, record.exc_text = None, None
            return True
        return False


class JobWarningHandler(logging.Handler):
    """Collects the warnings of the readers of images for the job of the current thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Add the message of a record to the warnings of the job, if a job is computed."""
        collected: list[str] | None = getattr(_job, "warnings", None)
        if collected is not None and record.name.startswith("decathlete") and not record.name.startswith(_OWN):
            collected.append(record.getMessage())


@contextmanager
def private_logging() -> Iterator[None]:
    """Write only the service's own messages to the log of this process, and collect warnings for jobs.

    Python's warnings are messages of others, too: pydicom's quote the values of a file.
    """
    privacy, of_jobs, root = PrivacyFilter(), JobWarningHandler(), logging.getLogger()
    handlers, show = list(root.handlers), warnings.showwarning
    for handler in handlers:
        handler.addFilter(privacy)
    root.addHandler(of_jobs)  # one handler: with several log handlers, a filter would see each record several times
    warnings.showwarning = _log_warning
    try:
        yield
    finally:
        warnings.showwarning = show
        root.removeHandler(of_jobs)
        for handler in handlers:
            handler.removeFilter(privacy)


def _log_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    logging.getLogger("py.warnings").warning("%s: %s", category.__name__, message)


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Collect the warnings about the image that the current thread reads, also if others have read it before."""
    _job.warnings = []
    try:
        with separate_warnings():
            yield _job.warnings
    finally:
        _job.warnings = None


def without_folders(text: str, *folders: Path) -> str:
    """Return a message without the paths of folders, before the names of files in them.

    >>> without_folders("/data/jobs/1/a.nii: is odd", Path("/data/jobs/1"), Path("/data"))
    'a.nii: is odd'
    """
    for folder in folders:
        text = text.replace(f"{folder.resolve()}/", "").replace(f"{folder}/", "")
    return text


def log_unexpected(problem: BaseException, doing: str) -> None:
    """Log an error that should not happen: its type and where it was raised, not its text, which may name a patient."""
    frames = "".join(traceback.format_tb(problem.__traceback__)).rstrip()
    log.error("%s failed unexpectedly: %s\n%s", doing, type(problem).__name__, frames)
