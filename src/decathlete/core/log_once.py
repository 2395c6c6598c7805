"""Log what several parts of one command find, once."""

from __future__ import annotations

import logging
from functools import cache


@cache
def warn_once(log: logging.Logger, text: str) -> None:
    """Log a warning, unless this process has logged the same text before."""
    log.warning("%s", text)
