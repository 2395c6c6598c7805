"""Routes of jobs: upload, status, events, input, result, report, deletion."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, StreamingResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from decathlete.errors import ServiceError
from decathlete.serving.http.dependencies import AppService
from decathlete.serving.http.service_routes import LabelBody
from decathlete.serving.http.threads import run_for_image
from decathlete.serving.http.uploads import receive_files, submit, upload_folder
from decathlete.serving.jobs import JobError, JobState
from decathlete.serving.report import make_report
from decathlete.serving.results import RESULT_FORMATS
from decathlete.serving.service import Service
from decathlete.serving.viewing import find_input, make_input

JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="Id of the job.")]

_POLL_S = 0.25
_HEARTBEAT_S = 15.0


class AcceptedJob(BaseModel):
    """A job that was accepted.

    Attributes:
        position: place in the queue, 1: the next one.
    """

    id: str
    state: JobState
    position: int


@dataclass(frozen=True, kw_only=True)
class JobErrorBody(JobError):
    """Why a job failed."""


class JobStatus(BaseModel):
    """State of a job.

    Attributes:
        position: place in the queue, 1: the next one; 0: it does not wait.
        progress: share of the work that is done, 0..1.
        seconds_left: estimate; null: not known yet.
        labels: structures of the result, by the model that computed it; empty: there is no result, or an earlier
            version of Decathlete computed it without storing them.
        input_kind: nifti, nrrd, metaimage, dicom, or another image format.
        formats: formats of the result that are offered for this input.
        volumes_ml: volume of each structure, mL; empty if the image has no spacing.
        voxels: number of voxels of each structure.
        created: seconds since 1970.
        expires: when the job and its files are deleted, seconds since 1970.
    """

    id: str
    state: JobState
    position: int
    progress: float
    seconds_left: float | None
    model: str
    labels: list[LabelBody]
    input_kind: str
    formats: list[str]
    error: JobErrorBody | None
    warnings: list[str]
    volumes_ml: dict[str, float]
    voxels: dict[str, int]
    created: float
    expires: float


_UPLOAD_BODY = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        },
    },
}
router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])
"""Routes of jobs."""


@router.post("", status_code=202, openapi_extra={"requestBody": _UPLOAD_BODY})
async def create_job(
    request: Request,
    service: AppService,
    model: Annotated[str, Query(description="Name of the model.")],
    x_file_name: Annotated[str, Header(description="Name of the file, percent-encoded; only its ending matters.")] = "",
    file_name: Annotated[str, Query(description="The same; prefer the header.")] = "",
) -> AcceptedJob:
    """Send an image: one file as the body, or a form with one or several files.

    The files of a form are the channels of one image, the slices of a DICOM series, or one zip file of these. The
    answer is sent when the image and its place in the queue are safe on the disk.
    """
    async with upload_folder(request, service) as folder:
        service.models.info(model)
        await run_in_threadpool(service.check_room)
        files = await receive_files(request, service, folder, name=unquote(x_file_name or file_name))
        job = await submit(service, files, folder, model=model)
        position = await run_in_threadpool(service.store.position, job)
    return AcceptedJob(id=job.id, state=job.state, position=max(1, position))


@router.get("/{job_id}")
def get_job(job_id: JobId, service: AppService) -> JobStatus:
    """Return the state of a job."""
    return JobStatus(**service.status(job_id))


@router.get("/{job_id}/events", response_class=StreamingResponse)
async def get_events(job_id: JobId, request: Request, service: AppService) -> StreamingResponse:
    """Stream the state of a job as server-sent events, one for each change, until it is final."""
    first = await run_in_threadpool(service.status, job_id)
    return StreamingResponse(
        _events(service, first, request),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.delete("/{job_id}")
def delete_job(job_id: JobId, service: AppService) -> JobStatus:
    """Cancel a job, and delete its image, its result and its entry."""
    return JobStatus(**service.delete(job_id))


@router.get("/{job_id}/input", response_class=FileResponse)
async def get_input(
    job_id: JobId, service: AppService, channel: Annotated[int, Query(ge=0, description="Number of the channel.")] = 0
) -> FileResponse:
    """Return one channel of the image as NIfTI, for viewers."""
    path = await run_in_threadpool(find_input, service, job_id, channel)
    if path is None:
        path = await run_for_image(service, make_input, service, job_id, channel)
    return await run_in_threadpool(_file, path, "application/gzip", "image.nii.gz")


@router.get("/{job_id}/result", response_class=FileResponse)
async def get_result(
    job_id: JobId,
    service: AppService,
    format: Annotated[str, Query(description=f"One of {', '.join(RESULT_FORMATS)}.")] = "nifti",
) -> FileResponse:
    """Return the segmentation of a finished job."""
    path = await run_in_threadpool(service.find_result, job_id, format)
    if path is None:
        path = await run_for_image(service, service.result, job_id, format)
    chosen = RESULT_FORMATS[format]
    return await run_in_threadpool(_file, path, chosen.media_type, chosen.file_name)


@router.get("/{job_id}/report", response_class=HTMLResponse)
def get_report(job_id: JobId, service: AppService) -> HTMLResponse:
    """Return a page with volumes, warnings and the model of a finished job."""
    return HTMLResponse(make_report(service, job_id))


def _file(path: FilePath, media_type: str, name: str) -> FileResponse:
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise ServiceError("the job was deleted", remedy="send the image again", code="E-SERVICE-JOB") from None
    return FileResponse(path, media_type=media_type, filename=name, stat_result=stat)


async def _events(service: Service, status: dict[str, Any], request: Request) -> AsyncIterator[str]:
    """Yield the status of a job whenever it has changed; a comment keeps the connection open."""
    sent, quiet_s, job_id = None, 0.0, status["id"]
    while True:
        if status != sent:
            yield f"data: {json.dumps(status)}\n\n"
            sent, quiet_s = status, 0.0
        if status["state"] in ("done", "failed", "cancelled") or service.stopping.is_set():
            return
        await asyncio.sleep(_POLL_S)
        quiet_s += _POLL_S
        if quiet_s >= _HEARTBEAT_S:
            yield ": waiting\n\n"
            quiet_s = 0.0
        if await request.is_disconnected():
            return
        try:
            status = await run_in_threadpool(service.status, job_id)
        except ServiceError:
            status = status | {"state": "cancelled", "seconds_left": 0.0, "position": 0}
