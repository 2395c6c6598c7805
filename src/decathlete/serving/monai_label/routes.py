"""All routes of MONAI Label's interface, at the root of the service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from decathlete.errors import OptionError, ServiceError
from decathlete.serving.http.dependencies import AppService, AppTokens
from decathlete.serving.http.threads import run_limited
from decathlete.serving.http.uploads import receive_form, upload_folder
from decathlete.serving.monai_label.app_info import describe_app
from decathlete.serving.monai_label.datastore import Datastore
from decathlete.serving.monai_label.datastore_routes import router as datastore_router
from decathlete.serving.monai_label.dependencies import AppDatastore, AppImageSessions
from decathlete.serving.monai_label.dicomweb_proxy import make_dicomweb_proxy
from decathlete.serving.monai_label.image_sessions import ImageSessions
from decathlete.serving.monai_label.image_sources import DicomWebImages, FolderImages, ImageSource
from decathlete.serving.monai_label.infer_routes import router as infer_router
from decathlete.serving.service import Service

_LOGS = "<!doctype html><title>Logs</title><p>The log is written by the service and is not shown here."
_app_router = APIRouter(tags=["MONAI Label"])
_session_router = APIRouter(prefix="/session", tags=["MONAI Label"])


def add_monai_label(app: FastAPI, service: Service) -> None:
    """Add the routes to the application of a service; expired sessions are deleted with expired jobs.

    Raises:
        OptionError: the folder of ``--studies`` does not exist.
    """
    settings, studies = service.settings, service.settings.studies
    sessions = ImageSessions(settings.data / "sessions", longest_seconds=settings.limits.keep_seconds)
    service.on_expiry.append(sessions.remove_expired)
    app.state.image_sessions = sessions
    app.state.datastore = Datastore(
        settings.data / "datastore",
        _open_studies(service),
        image_bytes=settings.limits.image_bytes,
        image_lock=service.image_lock,
        reading=settings.reading,
    )
    for router in (_app_router, _session_router, datastore_router, infer_router):
        app.include_router(router)
    app.include_router(make_dicomweb_proxy(studies.rstrip("/") if studies and "://" in studies else None))


def _open_studies(service: Service) -> ImageSource | None:
    studies = service.settings.studies
    if studies is None:
        return None
    if "://" in studies:
        return DicomWebImages(studies, limit_bytes=service.settings.limits.upload_bytes)
    if not Path(studies).is_dir():
        raise OptionError(
            "is not a folder", where=studies, remedy="name a folder or the address of a server: --studies"
        )
    return FolderImages(Path(studies))


def _not_offered(what: str) -> ServiceError:
    return ServiceError(
        f"{what} is not offered", remedy="train with `decathlete run` and restart", code="E-SERVICE-NOT-OFFERED"
    )


@_app_router.get("/info/")
async def get_info(service: AppService, datastore: AppDatastore) -> dict[str, Any]:
    """Describe models, labels and the datastore."""
    return await run_limited(datastore.threads, describe_app, service, datastore)


@_app_router.get("/auth/")
def get_auth(tokens: AppTokens) -> dict[str, Any]:
    """Tell whether a token is needed."""
    return {"enabled": tokens.is_required, "client_id": None, "realm": None}


@_app_router.post("/auth/token")
async def log_in(request: Request, tokens: AppTokens) -> dict[str, Any]:
    """Exchange the token, sent as the password of any user, for itself."""
    fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    password = fields.get("password", [""])[0]
    if not tokens.accepts_token(password):
        raise ServiceError(
            "the password is not the token of the service",
            remedy="use the token as password",
            code="E-SERVICE-TOKEN",
        )
    return {"access_token": password, "token_type": "bearer"}


@_app_router.get("/auth/token/valid")
def get_valid() -> dict[str, Any]:
    """Answer if the token of the request is the right one."""
    return {"username": "decathlete", "enabled": True}


@_app_router.get("/logs/", response_class=HTMLResponse)
def get_logs() -> HTMLResponse:
    """Tell where the log is."""
    return HTMLResponse(_LOGS)


@_app_router.get("/train/")
def get_training() -> None:
    """Answer that no training is running."""
    raise ServiceError("no training is running", remedy="training is not offered", code="E-SERVICE-DATASTORE")


@_app_router.post("/train/")
@_app_router.post("/train/{model}")
@_app_router.delete("/train/")
def train(model: str = "") -> None:
    """Answer that training is not offered."""
    raise _not_offered(f"training {model}".strip())


@_app_router.post("/activelearning/{strategy}")
def choose_image(strategy: str) -> None:
    """Answer that active learning is not offered."""
    raise _not_offered(f"active learning ({strategy})")


@_session_router.put("/")
async def put_session(
    request: Request,
    service: AppService,
    sessions: AppImageSessions,
    expiry: Annotated[int, Query(ge=0, description="Seconds; 0: one hour.")] = 0,
) -> dict[str, Any]:
    """Upload the files of one image for several requests."""
    async with upload_folder(request, service) as folder:
        form = await receive_form(request, service, folder)
        info = await run_in_threadpool(sessions.add, form.files, folder, seconds=expiry)
    return {"session_id": info["name"], "session_info": info}


@_session_router.get("/{session_id}")
def get_session(session_id: str, sessions: AppImageSessions, update_ts: bool = False) -> dict[str, Any]:
    """Describe a session."""
    return sessions.get(session_id, is_use=update_ts)


@_session_router.delete("/{session_id}")
def delete_session(session_id: str, sessions: AppImageSessions) -> dict[str, Any]:
    """Delete a session with its image."""
    return sessions.remove(session_id)
