"""Images of jobs as NIfTI, for viewers."""

from __future__ import annotations

from pathlib import Path

from decathlete.core.files import atomic_path
from decathlete.errors import ServiceError
from decathlete.io.images import read_channels, write_volume
from decathlete.serving.service import Service


def input_as_nifti(service: Service, job_id: str, channel: int) -> Path:
    """Return a file ``.nii.gz`` with one channel of the image of a job; it is made once.

    Raises:
        ServiceError: there is no such job or channel.
        ImageError: the image cannot be read.
    """
    job = service.job(job_id)
    n_channels = len(service.models.info(job.model).channels)
    if channel >= n_channels:
        raise ServiceError(
            f"the image has {n_channels} channel{'s' * (n_channels != 1)}",
            remedy=f"use 0 to {n_channels - 1}",
            code="E-SERVICE-REQUEST",
        )
    paths = service.storage.input_paths(job_id)
    if len(paths) == n_channels and paths[channel].name.endswith(".nii.gz"):
        return paths[channel]
    made = service.storage.job_folder(job_id) / "view" / f"channel_{channel:04d}.nii.gz"
    with service.reading:
        if not made.is_file():
            part = paths[channel : channel + 1] if len(paths) == n_channels else paths
            image = read_channels(part)
            number = 0 if len(paths) == n_channels else channel
            with atomic_path(made) as partial:
                write_volume(partial, image.array_CZYX[number : number + 1], image.geometry)
    return made
