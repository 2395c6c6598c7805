"""Recognise that memory ran out, and report it as one error with a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from decathlete.errors import InsufficientMemoryError

# Of torch's allocators on CPUs (Unix, Windows), oneDNN, C++, ITK, cuBLAS, cuDNN and NCCL: all plain RuntimeErrors.
_PHRASES = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "could not create a memory",
    "could not create a primitive",
    "failed to allocate memory",
    "_status_alloc_failed",
    "allocation_failed",
    "failed to cuda calloc",
)


def is_out_of_memory(problem: BaseException) -> bool:
    """Return whether ``problem`` means that memory ran out: in NumPy, in torch on any device, or in Decathlete.

    torch is not imported: its ``OutOfMemoryError`` is a ``RuntimeError`` with this name.
    """
    if isinstance(problem, (MemoryError, InsufficientMemoryError)):
        return True
    if not isinstance(problem, RuntimeError):
        return False
    message = str(problem).lower()
    return type(problem).__name__ == "OutOfMemoryError" or any(phrase in message for phrase in _PHRASES)


@contextmanager
def translate_out_of_memory(what: str, *, remedy: str) -> Iterator[None]:
    """Raise an :class:`InsufficientMemoryError` in place of any error that means that memory ran out.

    Args:
        what: what needed the memory, e.g. ``"the image"``; it follows the words "out of memory for".
        remedy: what to do, in the imperative.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        if not is_out_of_memory(problem):
            raise
        raise InsufficientMemoryError(f"out of memory for {what}", remedy=remedy) from None
