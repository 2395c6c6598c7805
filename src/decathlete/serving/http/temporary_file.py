"""Answers with a file that does not outlive them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from decathlete.serving.http.threads import run_to_end


class TemporaryFileResponse(FileResponse):
    """A file that is deleted when it was sent, and also when its receiver has gone before.

    Args:
        name: of the download; ``None``: the file is shown, or is part of another protocol.
        delete: called once, at the end.
    """

    def __init__(self, path: Path, *, media_type: str | None, name: str | None, delete: Callable[[], None]) -> None:
        super().__init__(path, media_type=media_type, filename=name)
        self._delete = delete

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await run_to_end(self._delete)
