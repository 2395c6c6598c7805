"""The handler of log messages for programs: to standard error, without control characters."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from decathlete.errors import printable


class PrintableFormatter(logging.Formatter):
    """Formats a message in one place, so that names in files cannot control the terminal or forge lines of a log."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; control characters become ``\\uXXXX``."""
        return printable(super().format(record))


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at that time: a live table replaces it, to print messages above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def stderr_handler() -> logging.Handler:
    """Return a handler that writes ``LEVEL: message`` to standard error."""
    handler = _StderrHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("%(levelname)s: %(message)s"))
    return handler
