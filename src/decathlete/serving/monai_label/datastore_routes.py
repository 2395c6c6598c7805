"""Routes of the datastore: images by id, and corrected label maps."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response
from starlette.concurrency import run_in_threadpool

from decathlete.core.documents import parse_json
from decathlete.errors import ServiceError
from decathlete.serving.http.dependencies import AppService
from decathlete.serving.http.temporary_file import TemporaryFileResponse
from decathlete.serving.http.threads import closed_in_thread, run_for_image, run_limited
from decathlete.serving.http.uploads import Form, receive_form, upload_folder
from decathlete.serving.inputs import ReceivedFile
from decathlete.serving.monai_label.datastore import FINAL, Datastore
from decathlete.serving.monai_label.dependencies import AppDatastore
from decathlete.serving.monai_label.image_sources import unknown_image

ImageId = Annotated[str, Query(description="Id of the image.")]
Tag = Annotated[str, Query(description="Kind of label map.")]


router = APIRouter(prefix="/datastore", tags=["MONAI Label"])
"""Routes of the datastore."""


@router.get("/")
async def get_datastore(datastore: AppDatastore, output: Literal["stats", "all", "train"] = "stats") -> dict[str, Any]:
    """Return the number of images and label maps, or all of them."""
    if output == "train":
        raise ServiceError("lists for training are not offered", remedy="use output=all", code="E-SERVICE-NOT-OFFERED")
    return await run_limited(datastore.threads, datastore.describe if output == "all" else datastore.count)


@router.put("/")
@router.put("/image")
async def put_image(
    request: Request, service: AppService, datastore: AppDatastore, image: ImageId = ""
) -> dict[str, str]:
    """Add the image of the field `file`."""
    async with upload_folder(request, service) as folder:
        form = await receive_form(request, service, folder)
        image_id = image or "image"
        await run_limited(datastore.threads, datastore.add_image, image_id, _file_of(form, "file"))
    return {"image": image_id}


@router.delete("/")
@router.delete("/image")
def delete_image(id: ImageId, datastore: AppDatastore) -> dict[str, str]:
    """Delete an image that a viewer added, with its label maps."""
    datastore.remove_image(id)
    return {}


@router.get("/image", response_class=FileResponse)
@router.head("/image", response_class=FileResponse, include_in_schema=False)
async def get_image(image: ImageId, service: AppService, datastore: AppDatastore) -> Response:
    """Return an image as NIfTI."""
    async with closed_in_thread() as stack:
        folder = await run_in_threadpool(stack.enter_context, service.storage.upload_folder())
        paths = await run_limited(datastore.threads, datastore.fetch, image, folder)
        path = await run_for_image(service, datastore.write_image, paths, folder)
        delete = stack.pop_all().close
    return TemporaryFileResponse(path, media_type=None, name=f"{image}.nii.gz", delete=delete)


@router.get("/image/info")
async def get_image_info(image: ImageId, datastore: AppDatastore) -> dict[str, Any]:
    """Return the tags of the label maps of an image."""
    return await run_limited(datastore.threads, _image_info, datastore, image)


@router.put("/label")
async def put_label(
    request: Request, image: ImageId, service: AppService, datastore: AppDatastore, tag: Tag = FINAL
) -> dict[str, str]:
    """Store the corrected label map of the field `label`."""
    async with upload_folder(request, service) as folder:
        form = await receive_form(request, service, folder)
        record = {"image": image, "tag": tag or FINAL, "saved": int(time.time()), **_label_info(form)}
        file = _file_of(form, "label")
        target = await run_limited(datastore.threads, datastore.new_label_path, image, tag or FINAL)
        images = await run_limited(datastore.threads, datastore.fetch, image, folder)
        await run_for_image(service, datastore.save_label, target, file, images, record)
    return {"image": image, "label": image}


@router.get("/label", response_class=FileResponse)
@router.head("/label", response_class=FileResponse, include_in_schema=False)
async def get_label(label: ImageId, datastore: AppDatastore, tag: Tag = FINAL) -> FileResponse:
    """Return a label map."""
    path = await run_limited(datastore.threads, datastore.label_path, label, tag)
    return FileResponse(path, media_type="application/gzip", filename=path.name)


@router.get("/label/info")
async def get_label_info(label: ImageId, datastore: AppDatastore, tag: Tag = FINAL) -> dict[str, Any]:
    """Return the names of the segments of a label map, as the viewer sent them."""
    return await run_limited(datastore.threads, datastore.label_record, label, tag)


@router.delete("/label")
async def delete_label(id: ImageId, datastore: AppDatastore, tag: Tag = FINAL) -> dict[str, str]:
    """Delete a label map."""
    await run_limited(datastore.threads, datastore.remove_label, id, tag)
    return {}


def _image_info(datastore: Datastore, image_id: str) -> dict[str, Any]:
    if not datastore.has(image_id):
        raise unknown_image(image_id)
    return {"name": image_id, "labels": datastore.tags(image_id)}


def _file_of(form: Form, field: str) -> ReceivedFile:
    for file in form.files:
        if file.field == field:
            return file
    raise ServiceError(f"the form has no file in the field {field!r}", remedy="send one", code="E-SERVICE-REQUEST")


def _label_info(form: Form) -> dict[str, Any]:
    """Return the names of the segments from the field ``params``; other keys are ignored."""
    try:
        params = parse_json(form.fields.get("params", "") or "{}")
    except ValueError as problem:
        raise ServiceError(
            f"the field params is not JSON: {problem}", remedy="send JSON", code="E-SERVICE-REQUEST"
        ) from None
    info = params.get("label_info") if isinstance(params, dict) else None
    return {"label_info": info if isinstance(info, list) else []}
