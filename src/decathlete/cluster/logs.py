"""Log messages of worker processes, which are shown where the command runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LogLine = tuple[int, str, str]
"""Level, name of the logger, message."""

_ROOT = "decathlete"


class _Forward(logging.Handler):
    def __init__(self, receive: Callable[[LogLine], None], thread: int | None) -> None:
        super().__init__()
        self._receive = receive
        self._thread = thread

    def emit(self, record: logging.LogRecord) -> None:
        """Forward the record, if it comes from the thread."""
        if self._thread in (None, record.thread):
            self._receive((record.levelno, record.name, record.getMessage()))


@contextmanager
def forward_logs(receive: Callable[[LogLine], None], *, of_all_threads: bool = False) -> Iterator[None]:
    """Pass the messages of Decathlete's loggers to ``receive``.

    Args:
        of_all_threads: forward those of every thread of this process, else of the calling one only.
    """
    logger = logging.getLogger(_ROOT)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    handler = _Forward(receive, None if of_all_threads else threading.get_ident())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def show(line: LogLine, *, prefix: str = "") -> None:
    """Log a message of another process here."""
    level, name, message = line
    logging.getLogger(name).log(level, "%s%s", prefix, message)
