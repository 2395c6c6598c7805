"""Log what several parts of one command find, once."""

from __future__ import annotations

import logging
from functools import cache


@cache
def log_once(log: logging.Logger, text: str, level: int = logging.WARNING) -> None:
    """Log a text, unless this process has logged it before."""
    log.log(level, "%s", text)
