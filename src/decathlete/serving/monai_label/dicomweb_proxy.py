"""DICOMweb passed on for viewers that reach only this service: ``/proxy/dicom/{wado,qido,stow}/...``."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from decathlete.core.extras import import_optional
from decathlete.errors import ServiceError
from decathlete.serving.http.threads import run_to_end

_PIECE_BYTES = 1 << 20
_THREADS = 8
"""Threads that wait for the server. If it does not answer, all other requests still have theirs."""

_TIMEOUT_S = (10.0, 120.0)
_PATH = re.compile(r"(studies|series|instances|bulkdata)(/[\w.,%@+-]+)*")
_ANSWER_HEADERS = ("content-type", "content-disposition")


def make_dicomweb_proxy(url: str | None, *, get: Callable[..., Any] | None = None) -> APIRouter:
    """Return the routes that pass requests on. Objects are only read: nothing is stored by STOW-RS.

    Args:
        url: root of the DICOMweb server; ``None``: there is none, and every request is answered so.
        get: sends a request.
    """
    router = APIRouter(prefix="/proxy/dicom", tags=["MONAI Label"])

    limiter = CapacityLimiter(
        _THREADS
    )  # a server that does not answer holds these, and not the threads of all requests

    @router.get("/qido/{path:path}", response_class=Response)
    @router.get("/wado/{path:path}", response_class=Response)
    async def pass_on(path: str, request: Request) -> Response:
        """Read from the DICOMweb server of `--studies`."""
        if url is None:
            raise ServiceError(
                "there is no DICOMweb server",
                remedy="start the service with --studies URL",
                code="E-SERVICE-NOT-OFFERED",
            )
        if not _PATH.fullmatch(path) or ".." in path:
            raise ServiceError(
                "this is not an address of DICOMweb",
                remedy="use addresses of QIDO-RS or WADO-RS, such as studies/UID/series",
                code="E-SERVICE-REQUEST",
            )
        send = get or import_optional("requests", title="DICOMweb", extra="serve").get
        answer = await run_sync(_send, send, f"{url}/{quote(path, safe='/,')}", request, limiter=limiter)
        headers = {name: answer.headers[name] for name in _ANSWER_HEADERS if name in answer.headers}
        return StreamingResponse(_pieces(answer, limiter), answer.status_code, headers=headers)

    return router


def _send(get: Callable[..., Any], address: str, request: Request) -> Any:
    headers = {"Accept": request.headers.get("accept", "*/*")}
    try:
        return get(
            address,
            params=request.query_params.multi_items(),
            headers=headers,
            stream=True,
            timeout=_TIMEOUT_S,
            allow_redirects=False,
        )
    except OSError as problem:  # the errors of requests are OSErrors
        raise ServiceError(
            f"the DICOMweb server does not answer: {type(problem).__name__}",
            remedy="check --studies and the server",
            code="E-SERVICE-DICOMWEB",
        ) from problem


async def _pieces(answer: Any, limiter: CapacityLimiter) -> AsyncIterator[bytes]:
    pieces = iter(answer.iter_content(_PIECE_BYTES))
    try:
        while piece := await run_sync(next, pieces, b"", limiter=limiter):
            yield piece
    finally:
        await run_to_end(answer.close)
