"""Log without patient data: files and headers from outside may name a patient, so what is said about them stays out.

Messages of the libraries that read images become warnings of the job that is computed, for the person who sent it.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

_OWN = ("decathlete.serving", "uvicorn.error", "uvicorn.asgi")
_job = threading.local()

log = logging.getLogger(__name__)


class PrivacyFilter(logging.Filter):
    """Passes records of the service itself; those of readers of images are collected for their job."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written to the log."""
        if record.name.startswith(_OWN):
            if record.exc_info:  # its message may quote a file
                record.exc_info, record.exc_text = None, None
            return True
        collected: list[str] | None = getattr(_job, "warnings", None)
        if collected is not None and record.name.startswith("decathlete") and record.levelno >= logging.WARNING:
            collected.append(record.getMessage())
        return False


@contextmanager
def private_logging() -> Iterator[None]:
    """Let only the service's own messages into the log of this process."""
    privacy, root = PrivacyFilter(), logging.getLogger()
    handlers = list(root.handlers)
    for handler in handlers:
        handler.addFilter(privacy)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(privacy)


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Collect the warnings about the image that the current thread reads."""
    _job.warnings = []
    try:
        yield _job.warnings
    finally:
        _job.warnings = None


def log_unexpected(problem: BaseException, doing: str) -> None:
    """Log an error that should not happen: its type and where it was raised, not its text, which may name a patient."""
    frames = "".join(traceback.format_tb(problem.__traceback__)).rstrip()
    log.error("%s failed unexpectedly: %s\n%s", doing, type(problem).__name__, frames)
