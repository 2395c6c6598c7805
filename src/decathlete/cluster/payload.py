"""Pickled functions, cases and results.

Python's own pickler is used, not Dask's: it sends functions and classes by their importable names and rejects lambdas.
Relative paths become absolute, since worker processes run in other folders.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """Pickle every path as an absolute one."""
        if isinstance(value, Path):
            return type(value), (str(value.absolute()),)
        return NotImplemented


def dumps(value: object) -> bytes:
    """Pickle a value for another process of the same user on the same storage."""
    stream = io.BytesIO()
    _Pickler(stream, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return stream.getvalue()


def loads(data: bytes) -> Any:
    """Unpickle what :func:`dumps` made. Only for data of processes that may run any code here anyway."""
    return pickle.loads(data)
