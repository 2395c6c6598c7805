"""Segmentation for viewers: ``POST /infer/{model}`` waits in the queue of the service and answers with the result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from decathlete.errors import ServiceError
from decathlete.serving.http.uploads import Form, drain, receive_form
from decathlete.serving.inputs import ReceivedFile
from decathlete.serving.monai_label.answers import (
    InferAnswer,
    InferParams,
    read_answer_label,
    write_answer_image,
    write_multipart,
)
from decathlete.serving.monai_label.datastore import Datastore
from decathlete.serving.monai_label.image_sessions import ImageSessions
from decathlete.serving.results import RESULT_FORMATS
from decathlete.serving.service import Service

Output = Literal["image", "json", "all", "dicom_seg"]

_POLL_S = 0.1
_PIECE_BYTES = 1 << 20


def make_infer_router(service: Service, datastore: Datastore, sessions: ImageSessions) -> APIRouter:
    """Return the route of segmentation."""
    router = APIRouter(tags=["MONAI Label"])

    @router.post("/infer/{model}", response_class=Response)
    async def infer(
        model: str,
        request: Request,
        image: Annotated[str, Query(description="Id of an image of the datastore.")] = "",
        session_id: Annotated[str, Query(description="Session with the image.")] = "",
        output: Annotated[Output, Query(description="Form of the answer.")] = "all",
    ) -> Response:
        """Segment an image of the datastore, of a session, or of the field `file`, and wait for the result."""
        began = time.monotonic()
        with ExitStack() as stack:
            try:
                labels = {label.name: label.value for label in service.models.info(model).labels}
                service.check_room()
                folder = stack.enter_context(service.storage.upload_folder())
                form = await receive_form(request, service, folder)
                params = InferParams.parse(form.fields.get("params", ""))
            except Exception:
                await drain(request)
                raise
            files = await run_in_threadpool(_find_files, form, image, session_id, folder, datastore, sessions)
            job = await run_in_threadpool(service.submit, files, folder, model=model)
            stack.callback(_delete, service, job.id)  # the result is sent, and nothing of it is kept
            status = await _wait(service, job.id, request)
            if status is None:
                return Response(status_code=499)  # the viewer has gone
            answer = InferAnswer(
                label=service.result(job.id), labels=labels, status=status, seconds=time.monotonic() - began
            )
            return await run_in_threadpool(_respond, service, job.id, answer, params, output, folder, stack)

    return router


def _find_files(
    form: Form, image: str, session_id: str, folder: Path, datastore: Datastore, sessions: ImageSessions
) -> list[ReceivedFile]:
    sent = [file for file in form.files if file.field == "file"]
    if session_id:
        return sessions.copy_files(session_id, folder)
    if sent:
        return sent
    if image:
        return datastore.copy_files(image, folder)
    raise ServiceError(
        "the request names no image", remedy="send image=ID, session_id=ID or the field file", code="E-SERVICE-REQUEST"
    )


async def _wait(service: Service, job_id: str, request: Request) -> dict[str, Any] | None:
    """Return the status of a finished job; ``None``: the viewer does not wait any more.

    Raises:
        ServiceError: the job failed, was deleted, or the service ends.
    """
    while not service.stopping.is_set():
        status = await run_in_threadpool(service.status, job_id)
        if status["state"] in ("done", "failed"):
            await run_in_threadpool(service.require_done, job_id)
            return status
        if await request.is_disconnected():
            return None
        await asyncio.sleep(_POLL_S)
    raise ServiceError("the service ends", remedy="send the request again later", code="E-SERVICE-BUSY")


def _respond(
    service: Service,
    job_id: str,
    answer: InferAnswer,
    params: InferParams,
    output: Output,
    folder: Path,
    stack: ExitStack,
) -> Response:
    """Return the answer; for a file, ``stack`` is closed when it has been sent."""
    if output == "dicom_seg":
        path = service.result(job_id, "dicom-seg")
        return _stream(path, RESULT_FORMATS["dicom-seg"].media_type, "segmentation.dcm", stack.pop_all())
    label = read_answer_label(answer)
    about = answer.params(label)
    if output == "json":
        return JSONResponse(about)
    image = write_answer_image(label, params, folder)
    if output == "image":
        return _stream(image, "application/octet-stream", image.name, stack.pop_all())
    path, media_type = write_multipart(about, image, folder)
    return _stream(path, media_type, None, stack.pop_all())


def _stream(path: Path, media_type: str, name: str | None, cleanup: ExitStack) -> StreamingResponse:
    headers = {"Content-Length": str(path.stat().st_size)}
    if name is not None:
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return StreamingResponse(_pieces(path, cleanup), media_type=media_type, headers=headers)


async def _pieces(path: Path, cleanup: ExitStack) -> AsyncIterator[bytes]:
    with cleanup, path.open("rb") as stream:
        while piece := await run_in_threadpool(stream.read, _PIECE_BYTES):
            yield piece


def _delete(service: Service, job_id: str) -> None:
    try:
        service.delete(job_id)
    except ServiceError as problem:
        if problem.code != "E-SERVICE-JOB":  # somebody else has deleted it
            raise
