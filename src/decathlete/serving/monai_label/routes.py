"""All routes of MONAI Label's interface, at the root of the service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from decathlete.errors import OptionError, ServiceError
from decathlete.serving.http.security import Sessions
from decathlete.serving.http.uploads import drain, receive_form
from decathlete.serving.monai_label.app_info import describe_app
from decathlete.serving.monai_label.datastore import Datastore
from decathlete.serving.monai_label.datastore_routes import make_datastore_router
from decathlete.serving.monai_label.dicomweb_proxy import make_dicomweb_proxy
from decathlete.serving.monai_label.image_sessions import ImageSessions
from decathlete.serving.monai_label.image_sources import DicomWebImages, FolderImages, ImageSource
from decathlete.serving.monai_label.infer_routes import make_infer_router
from decathlete.serving.service import Service

_LOGS = "<!doctype html><title>Logs</title><p>The log is written by the service and is not shown here."


def add_monai_label(app: FastAPI, service: Service, tokens: Sessions) -> None:
    """Add the routes to the application of a service; expired sessions are deleted with expired jobs.

    Raises:
        OptionError: the folder of ``--studies`` does not exist.
    """
    settings = service.settings
    sessions = ImageSessions(settings.data / "sessions", longest_seconds=settings.limits.keep_seconds)
    service.on_expiry.append(sessions.remove_expired)
    studies = settings.studies
    is_url = studies is not None and "://" in studies
    datastore = Datastore(settings.data / "datastore", _open_studies(service))
    app.include_router(_make_app_router(service, datastore, tokens))
    app.include_router(_make_session_router(service, sessions))
    app.include_router(make_datastore_router(service, datastore))
    app.include_router(make_infer_router(service, datastore, sessions))
    app.include_router(make_dicomweb_proxy(studies.rstrip("/") if is_url and studies else None))


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


def _make_app_router(service: Service, datastore: Datastore, tokens: Sessions) -> APIRouter:
    router = APIRouter(tags=["MONAI Label"])

    @router.get("/info/")
    def get_info() -> dict[str, Any]:
        """Describe models, labels and the datastore."""
        return describe_app(service, datastore)

    @router.get("/auth/")
    def get_auth() -> dict[str, Any]:
        """Tell whether a token is needed."""
        return {"enabled": tokens.is_required, "client_id": None, "realm": None}

    @router.post("/auth/token")
    async def log_in(request: Request) -> dict[str, Any]:
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

    @router.get("/auth/token/valid")
    def get_valid() -> dict[str, Any]:
        """Answer if the token of the request is the right one."""
        return {"username": "decathlete", "enabled": True}

    @router.get("/logs/", response_class=HTMLResponse)
    def get_logs() -> HTMLResponse:
        """Tell where the log is."""
        return HTMLResponse(_LOGS)

    @router.get("/train/")
    def get_training() -> None:
        """Answer that no training is running."""
        raise ServiceError("no training is running", remedy="training is not offered", code="E-SERVICE-DATASTORE")

    @router.post("/train/")
    @router.post("/train/{model}")
    @router.delete("/train/")
    def train(model: str = "") -> None:
        """Answer that training is not offered."""
        raise _not_offered(f"training {model}".strip())

    @router.post("/activelearning/{strategy}")
    def choose_image(strategy: str) -> None:
        """Answer that active learning is not offered."""
        raise _not_offered(f"active learning ({strategy})")

    return router


def _make_session_router(service: Service, sessions: ImageSessions) -> APIRouter:
    router = APIRouter(prefix="/session", tags=["MONAI Label"])

    @router.put("/")
    async def put_session(
        request: Request, expiry: Annotated[int, Query(ge=0, description="Seconds; 0: one hour.")] = 0
    ) -> dict[str, Any]:
        """Upload the files of one image for several requests."""
        with service.storage.upload_folder() as folder:
            try:
                form = await receive_form(request, service, folder)
            except Exception:
                await drain(request)
                raise
            info = await run_in_threadpool(sessions.add, form.files, folder, seconds=expiry)
        return {"session_id": info["name"], "session_info": info}

    @router.get("/{session_id}")
    def get_session(session_id: str, update_ts: bool = False) -> dict[str, Any]:
        """Describe a session."""
        return sessions.get(session_id, is_use=update_ts)

    @router.delete("/{session_id}")
    def delete_session(session_id: str) -> dict[str, Any]:
        """Delete a session with its image."""
        return sessions.remove(session_id)

    return router


def _not_offered(what: str) -> ServiceError:
    return ServiceError(
        f"{what} is not offered", remedy="train with `decathlete run` and restart", code="E-SERVICE-NOT-OFFERED"
    )
