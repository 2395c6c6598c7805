"""Limits the uploads that are under way at the same time."""

from __future__ import annotations

import asyncio

from decathlete.errors import ServiceError


class UploadsUnderWay:
    """Counts uploads; use it in a ``with`` block. Only the thread of the event loop uses it.

    Args:
        limit: greatest number.

    Attributes:
        reading: held while an image is read. Uploads wait for it without a thread, which other requests need.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._n = limit, 0
        self.reading = asyncio.Lock()

    def __enter__(self) -> None:
        if self._n >= self._limit:
            raise ServiceError(
                f"{self._limit} uploads are under way", remedy="send the request again later", code="E-SERVICE-BUSY"
            )
        self._n += 1

    def __exit__(self, *_: object) -> None:
        self._n -= 1
