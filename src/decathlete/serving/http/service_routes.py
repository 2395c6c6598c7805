"""Routes of the service: models, health, metrics, login."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel

from decathlete.errors import ServiceError
from decathlete.serving.dicom_node.failures import FailedCopy
from decathlete.serving.dicom_node.node_job import NODE_JOB_STATES
from decathlete.serving.http.dependencies import AppService, AppTokens
from decathlete.serving.http.security import COOKIE, SESSION_SECONDS
from decathlete.serving.model_cache import LabelInfo
from decathlete.version import __version__


@dataclass(frozen=True, kw_only=True)
class LabelBody(LabelInfo):
    """A structure, its value in label maps, and a colour (``#rrggbb``)."""


class ModelBody(BaseModel):
    """A model.

    Attributes:
        channels: of an image, in the order in which they are sent.
        digest: identity of the model.
        dimension: 2 (slices) or 3.
    """

    name: str
    description: str
    labels: list[LabelBody]
    channels: list[str]
    digest: str
    dimension: int


@dataclass(frozen=True, kw_only=True)
class FailedCopyBody(FailedCopy):
    """A series that could not be copied from the archive.

    Attributes:
        attempts: how many failed.
        next_attempt: seconds since 1970.
        reason: of the last failure.
    """


class NodeBody(BaseModel):
    """The DICOM node; nothing of a patient.

    Attributes:
        jobs: number of jobs by state: queued, computed (not sent yet), sent, skipped, failed.
        undelivered: results that their receiver did not accept yet; they are sent again.
        failed_copies: series of the archive that could not be copied; they are tried again.
        archive_problem: why the last query of the archive failed; null: it did not, or there is no archive.
    """

    jobs: dict[str, int]
    undelivered: int
    failed_copies: list[FailedCopyBody]
    archive_problem: str | None


class Login(BaseModel):
    """The token of the service."""

    token: str


router = APIRouter(tags=["service"])
"""Routes of the service."""


@router.get("/api/v1/models")
def get_models(service: AppService) -> list[ModelBody]:
    """List the models."""
    return [
        ModelBody(
            name=info.name,
            description=info.description,
            labels=[LabelBody(**vars(label)) for label in info.labels],
            channels=list(info.channels),
            digest=info.digest,
            dimension=info.dimension,
        )
        for info in service.models.infos.values()
    ]


@router.get("/api/v1/dicom-node")
def get_dicom_node(service: AppService) -> NodeBody | None:
    """Describe the DICOM node; null: none runs."""
    if service.node is None:
        return None
    status = service.node.status()
    return NodeBody(
        jobs={state: status.jobs.get(state, 0) for state in NODE_JOB_STATES},
        undelivered=status.n_undelivered,
        failed_copies=[FailedCopyBody(**vars(failed)) for failed in status.failed_copies],
        archive_problem=status.archive_problem,
    )


@router.post("/api/v1/login")
def log_in(login: Login, request: Request, sessions: AppTokens) -> Response:
    """Exchange the token for a cookie, for pages."""
    if not sessions.accepts_token(login.token):
        raise ServiceError("the token is wrong", remedy="check it, and try again", code="E-SERVICE-TOKEN")
    answer = JSONResponse({"token_required": sessions.is_required})
    answer.set_cookie(
        COOKIE,
        sessions.make_cookie(),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/api/v1/logout")
def log_out(sessions: AppTokens) -> Response:
    """Delete the cookie."""
    answer = JSONResponse({"token_required": sessions.is_required})
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


@router.get("/health/live")
async def get_live() -> dict[str, str]:
    """Answer whenever the process works."""
    return {"status": "live", "version": __version__}


@router.get("/health/ready")
async def get_ready(service: AppService) -> JSONResponse:
    """Answer 200 if jobs are computed, 503 if not."""
    return JSONResponse({"status": "ready" if service.is_ready else "stopped"}, 200 if service.is_ready else 503)


@router.get("/metrics", response_class=PlainTextResponse)
def get_metrics(service: AppService) -> Response:
    """Return metrics for Prometheus."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
