"""Segmentation for viewers: ``POST /infer/{model}`` waits in the queue of the service and answers with the result."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from decathlete.errors import ServiceError
from decathlete.serving.http.dependencies import AppService
from decathlete.serving.http.temporary_file import TemporaryFileResponse
from decathlete.serving.http.threads import closed_in_thread, run_for_image, run_limited
from decathlete.serving.http.uploads import Form, drain, receive_form, submit
from decathlete.serving.inputs import ReceivedFile
from decathlete.serving.monai_label.answers import (
    InferAnswer,
    InferParams,
    read_answer_label,
    write_answer_image,
    write_multipart,
)
from decathlete.serving.monai_label.datastore import Datastore
from decathlete.serving.monai_label.dependencies import AppDatastore, AppImageSessions
from decathlete.serving.monai_label.image_sessions import ImageSessions
from decathlete.serving.results import RESULT_FORMATS
from decathlete.serving.service import Service

Output = Literal["image", "json", "all", "dicom_seg"]

_POLL_S = 0.1


router = APIRouter(tags=["MONAI Label"])
"""The route of segmentation."""


@router.post("/infer/{model}", response_class=Response)
async def infer(
    model: str,
    request: Request,
    service: AppService,
    datastore: AppDatastore,
    sessions: AppImageSessions,
    image: Annotated[str, Query(description="Id of an image of the datastore.")] = "",
    session_id: Annotated[str, Query(description="Session with the image.")] = "",
    output: Annotated[Output, Query(description="Form of the answer.")] = "all",
) -> Response:
    """Segment an image of the datastore, of a session, or of the field `file`, and wait for the result."""
    began = time.monotonic()
    async with closed_in_thread() as stack:
        folder = await run_in_threadpool(stack.enter_context, service.storage.upload_folder())
        form, params = await _receive(request, service, model, folder)
        files = await _find_files(form, image, session_id, folder, datastore, sessions)
        job = await submit(service, files, folder, model=model, is_awaited=True)
        stack.callback(_delete, service, job.id)  # the result is sent, and nothing of it is kept
        status = await _wait(service, job.id, request)
        if status is None:
            return Response(status_code=499)  # the viewer has gone
        answer = InferAnswer(
            label=await run_in_threadpool(service.result, job.id),
            labels={label.name: label.value for label in service.models.info(model).labels},
            status=status,
            seconds=time.monotonic() - began,
        )
        return await run_for_image(service, _respond, service, job.id, answer, params, output, folder, stack)


async def _receive(request: Request, service: Service, model: str, folder: Path) -> tuple[Form, InferParams]:
    """Receive the form of a request for a model of the service.

    Raises:
        ServiceError: there is no such model, the service is busy, or the form is not valid.
    """
    try:
        with service.uploads:
            service.models.info(model)
            await run_in_threadpool(service.check_room)
            form = await receive_form(request, service, folder)
            return form, InferParams.parse(form.fields.get("params", ""))
    except Exception as problem:
        await drain(request, problem)
        raise


async def _find_files(
    form: Form, image: str, session_id: str, folder: Path, datastore: Datastore, sessions: ImageSessions
) -> list[ReceivedFile]:
    sent = [file for file in form.files if file.field == "file"]
    if session_id:
        return await run_in_threadpool(sessions.copy_files, session_id, folder)
    if sent:
        return sent
    if image:
        return await run_limited(datastore.threads, datastore.copy_files, image, folder)
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
        path, media_type = service.result(job_id, "dicom-seg"), RESULT_FORMATS["dicom-seg"].media_type
        return _file(path, media_type, "segmentation.dcm", stack)
    label = read_answer_label(answer)
    about = answer.params(label)
    if output == "json":
        return JSONResponse(about)
    image = write_answer_image(label, params, folder)
    if output == "image":
        return _file(image, "application/octet-stream", image.name, stack)
    path, media_type = write_multipart(about, image, folder)
    return _file(path, media_type, None, stack)


def _file(path: Path, media_type: str, name: str | None, stack: ExitStack) -> TemporaryFileResponse:
    return TemporaryFileResponse(path, media_type=media_type, name=name, delete=stack.pop_all().close)


def _delete(service: Service, job_id: str) -> None:
    try:
        service.delete(job_id)
    except ServiceError as problem:
        if problem.code != "E-SERVICE-JOB":  # somebody else has deleted it
            raise
