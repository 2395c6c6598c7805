"""The handler of log messages for programs: to standard error, without control characters."""

from __future__ import annotations

import logging
import sys

from decathlete.errors import printable


class PrintableFormatter(logging.Formatter):
    """Formats a message in one place, so that names in files cannot control the terminal or forge lines of a log."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; control characters become ``\\uXXXX``."""
        return printable(super().format(record))


def stderr_handler() -> logging.Handler:
    """Return a handler that writes ``LEVEL: message`` to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("%(levelname)s: %(message)s"))
    return handler
