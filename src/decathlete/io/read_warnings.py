"""Warnings about images: each once for a reading, though the image is read several times (its grid, its voxels)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial

_MAX_TEXTS = 1000
"""Number of warnings that are remembered; an older one is logged again if it occurs again."""

_log = logging.getLogger(__name__)


def warn_once(text: str) -> None:
    """Log a warning about an image, once for each :func:`separate_warnings`, and once for everything outside of it."""
    _warn.get()(text)


@contextmanager
def separate_warnings() -> Iterator[None]:
    """Log the warnings of this reading, also those that the same image caused in another one."""
    token = _warn.set(_warn_each_once())
    try:
        yield
    finally:
        _warn.reset(token)


def _warn_each_once() -> Callable[[str], None]:
    return lru_cache(maxsize=_MAX_TEXTS)(partial(_log.warning, "%s"))


_SHARED = _warn_each_once()
_warn: ContextVar[Callable[[str], None]] = ContextVar("warn", default=_SHARED)
