"""The application: routes, page and protection around one service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.cors import CORSMiddleware

from decathlete.serving.http.api_page import make_api_page
from decathlete.serving.http.errors import add_error_handlers
from decathlete.serving.http.job_routes import router as job_router
from decathlete.serving.http.security import Guard, Sessions
from decathlete.serving.http.service_routes import router as service_router
from decathlete.serving.monai_label.routes import add_monai_label
from decathlete.serving.service import Service
from decathlete.serving.settings import ServiceSettings
from decathlete.version import __version__

PAGE = Path(__file__).with_name("page")
"""Files of the page: ``index.html`` at ``/``, all of them below ``/page/``."""


def create_app(settings: ServiceSettings, service: Service | None = None) -> FastAPI:
    """Return the application of a service; the service works while the application runs.

    Args:
        settings: see :class:`ServiceSettings`.
        service: the service, if it exists already.

    Raises:
        ModelError: a model is missing or damaged.
        OptionError: two models have one name, or one is larger than the memory for models.
        OutputError: the folder cannot be written.
    """
    of_app = Service(settings) if service is None else service

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        of_app.start()
        yield
        of_app.stop()

    app = FastAPI(
        title="Decathlete",
        description="Segments medical images. Research use only.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    sessions = Sessions(settings.token)
    app.state.service, app.state.tokens = of_app, sessions
    app.include_router(job_router)
    app.include_router(service_router)
    add_monai_label(app, of_app)
    add_error_handlers(app, of_app)
    _add_pages(app)
    if settings.allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.allow_origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-File-Name"],
        )
    app.add_middleware(Guard, settings=settings, sessions=sessions)  # the last one added sees requests first
    return app


def _add_pages(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    def get_api_page() -> HTMLResponse:
        return HTMLResponse(make_api_page(app.openapi()))

    if (PAGE / "index.html").is_file():

        @app.get("/", include_in_schema=False)
        def get_page() -> FileResponse:
            return FileResponse(PAGE / "index.html")

        app.mount("/page", StaticFiles(directory=PAGE), name="page")
