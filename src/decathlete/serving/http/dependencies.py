"""Parts of the service that routes receive as arguments; the application holds them in its ``state``."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from decathlete.serving.http.security import Sessions
from decathlete.serving.service import Service


async def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


async def _tokens(request: Request) -> Sessions:
    found: Sessions = request.app.state.tokens
    return found


AppService = Annotated[Service, Depends(_service)]
"""The service of the application."""
AppTokens = Annotated[Sessions, Depends(_tokens)]
"""What checks the tokens and cookies of the application."""
