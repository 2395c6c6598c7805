"""Work in threads, so that the event loop answers other requests meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
from anyio.to_thread import run_sync
from starlette.concurrency import run_in_threadpool

from decathlete.serving.service import Service

P = ParamSpec("P")
T = TypeVar("T")


async def run_for_image(service: Service, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function that waits until no other image is in memory.

    Only a few of them have a thread; the others wait without one, since all other requests need the rest.
    """
    return await run_limited(service.image_threads, function, *args, **kwargs)


async def run_limited(limiter: anyio.CapacityLimiter, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function in one of the threads that it shares with other slow ones; the others wait without a thread."""
    return await run_sync(partial(function, *args, **kwargs), limiter=limiter)


async def run_to_end(function: Callable[[], object]) -> None:
    """Run a function, such as one that deletes files, also if its request was cancelled."""
    with anyio.CancelScope(shield=True):
        await run_in_threadpool(function)


@asynccontextmanager
async def closed_in_thread() -> AsyncIterator[ExitStack]:
    """Provide a stack that is closed in a thread."""
    stack = ExitStack()
    try:
        yield stack
    finally:
        await run_to_end(stack.close)
