"""Images of jobs as NIfTI, for viewers."""

from __future__ import annotations

from pathlib import Path

from decathlete.core.files import atomic_path
from decathlete.errors import ServiceError
from decathlete.io.images import read_channels, read_grid, write_volume
from decathlete.io.reading import Reading
from decathlete.serving.service import Service


def input_as_nifti(service: Service, job_id: str, channel: int) -> Path:
    """Return a file ``.nii.gz`` with one channel of the image of a job; it is made once.

    Raises:
        ServiceError: there is no such job or channel.
        ImageError: the image cannot be read.
    """
    service.job(job_id)
    with service.files_of(job_id):
        return _make(service, job_id, channel)


def _make(service: Service, job_id: str, channel: int) -> Path:
    paths = service.storage.input_paths(job_id)
    made = service.storage.job_folder(job_id) / "view" / f"channel_{channel:04d}.nii.gz"
    if made.is_file():
        return made
    reading = service.storage.reading_of(job_id)
    n_channels = sum(read_grid(path, spacing=reading.spacing, formats=reading.formats)[0] for path in paths)
    if channel >= n_channels:
        raise ServiceError(
            f"the image has {n_channels} channel{'s' * (n_channels != 1)}",
            remedy=f"use 0 to {n_channels - 1}",
            code="E-SERVICE-REQUEST",
        )
    is_split = len(paths) == n_channels  # a file for each channel
    if is_split and paths[channel].name.endswith(".nii.gz") and reading == Reading():
        return paths[channel]
    with service.image_lock:
        shown = paths[channel : channel + 1] if is_split else paths
        image = read_channels(shown, spacing=reading.spacing, formats=reading.formats)
        number = 0 if is_split else channel
        with atomic_path(made) as partial:
            write_volume(partial, image.array_CZYX[number : number + 1], image.geometry)
    return made
