"""Errors as answers: a status, and JSON with the stable code, the message and what to do."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from decathlete.errors import ArchiveError, DecathleteError, ImageError, printable
from decathlete.serving.http.uploads import has_unread_body
from decathlete.serving.service import Service
from decathlete.serving.worker import describe_error

_STATUS_OF_CODE = {
    "E-SERVICE": 500,
    "E-SERVICE-REQUEST": 422,
    "E-SERVICE-BUSY": 429,
    "E-SERVICE-JOB": 404,
    "E-SERVICE-MODEL": 404,
    "E-SERVICE-STATE": 409,
    "E-SERVICE-SIZE": 413,
    "E-SERVICE-TIME": 408,
    "E-SERVICE-TOKEN": 401,
    "E-SERVICE-ORIGIN": 403,
    "E-SERVICE-DATASTORE": 404,
    "E-SERVICE-DICOMWEB": 502,
    "E-SERVICE-NOT-OFFERED": 501,
    "E-IMAGE-FORMAT": 415,
    "E-DISK-FULL": 507,
    "E-MEMORY": 413,
    "E-OUTPUT-DICOM": 422,  # the series lacks what a DICOM object must refer to
}
_STATUS_OF_CLASS: Mapping[type[DecathleteError], int] = {
    ImageError: 422,
    ArchiveError: 422,
}
_PLAIN = {404: "the service has no such address", 405: "this address does not support this method"}
_SEE_DOCS = "the page /docs of the service lists all addresses and fields"
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "10"}}


def status_of(problem: DecathleteError) -> int:
    """Return the HTTP status of an error."""
    if problem.code in _STATUS_OF_CODE:
        return _STATUS_OF_CODE[problem.code]
    return next((status for cls, status in _STATUS_OF_CLASS.items() if isinstance(problem, cls)), 500)


def error_response(
    status: int, code: str, message: str, remedy: str | None = None, *, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return an error as JSON: ``{"error": {"code", "message", "remedy"}}``."""
    content = {"error": {"code": code, "message": printable(message), "remedy": remedy and printable(remedy)}}
    return JSONResponse(content, status, headers=dict(_HEADERS.get(status, {}) | dict(headers or {})))


def answer_error(problem: Exception, service: Service, *, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer to a request that failed. Unexpected errors are logged, and their text stays here."""
    error = describe_error(problem, service.storage.root, of="request")
    status = status_of(problem) if isinstance(problem, DecathleteError) else _STATUS_OF_CODE.get(error.code, 500)
    service.metrics.rejected.labels(error.code).inc()
    return error_response(status, error.code, error.message, error.remedy, headers=headers)


def add_error_handlers(app: FastAPI, service: Service) -> None:
    """Answer every error of a route as JSON."""

    async def known(request: Request, problem: Exception) -> JSONResponse:
        headers = {"Connection": "close"} if has_unread_body(request) else None
        return answer_error(problem, service, headers=headers)

    async def invalid(_request: Request, problem: Exception) -> JSONResponse:
        assert isinstance(problem, RequestValidationError)  # for the type checker
        places = ", ".join(sorted({str(error["loc"][-1]) for error in problem.errors()}))
        service.metrics.rejected.labels("E-SERVICE-REQUEST").inc()
        return error_response(422, "E-SERVICE-REQUEST", f"these fields are missing or not valid: {places}", _SEE_DOCS)

    async def plain(request: Request, problem: Exception) -> JSONResponse:
        assert isinstance(problem, HTTPException)  # for the type checker
        if isinstance(problem.__cause__, DecathleteError):  # the body was too large while FastAPI read it
            return await known(request, problem.__cause__)
        service.metrics.rejected.labels("E-SERVICE-REQUEST").inc()
        text = _PLAIN.get(problem.status_code, str(problem.detail))
        return error_response(problem.status_code, "E-SERVICE-REQUEST", text, _SEE_DOCS, headers=problem.headers)

    async def gone(_request: Request, _problem: Exception) -> JSONResponse:
        return error_response(400, "E-SERVICE-REQUEST", "the connection ended before the upload was complete")

    async def unexpected(_request: Request, problem: Exception) -> JSONResponse:
        return answer_error(problem, service)

    app.add_exception_handler(DecathleteError, known)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)
    app.add_exception_handler(Exception, unexpected)
