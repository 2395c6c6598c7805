"""Memory that does not suffice: known by its many faces, told as one error with a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from decathlete.errors import MemoryShort

# Of torch's allocators on CPUs (Unix, Windows), of oneDNN, C++, cuBLAS, cuDNN and NCCL: all plain RuntimeErrors.
_PHRASES = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "could not create a memory",
    "_status_alloc_failed",
    "allocation_failed",
    "failed to cuda calloc",
)


def is_memory_short(problem: BaseException) -> bool:
    """Whether ``problem`` says that memory ran out: NumPy's, torch's on any device, or ours.

    Known without torch: its ``OutOfMemoryError`` is a RuntimeError of that name.
    """
    if isinstance(problem, (MemoryError, MemoryShort)):
        return True
    if not isinstance(problem, RuntimeError):
        return False
    said = str(problem).lower()
    return type(problem).__name__ == "OutOfMemoryError" or any(phrase in said for phrase in _PHRASES)


@contextmanager
def translate_out_of_memory(what: str, *, remedy: str) -> Iterator[None]:
    """Whatever says that memory ran out becomes a :class:`MemoryShort` about ``what``; all else passes."""
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        if not is_memory_short(problem):
            raise
        raise MemoryShort(f"memory does not hold {what}", remedy=remedy) from None
