"""Images of jobs as NIfTI, for viewers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from decathlete.core.files import atomic_path
from decathlete.errors import ServiceError
from decathlete.io.images import read_channels, read_grid, write_volume
from decathlete.io.reading import Reading
from decathlete.serving.service import Service


def find_input(service: Service, job_id: str, channel: int) -> Path | None:
    """Return a file ``.nii.gz`` with one channel of the image of a job; ``None``: :func:`make_input` must make it.

    Raises:
        ServiceError: there is no such job or channel.
        ImageError: the image cannot be read.
    """
    service.job(job_id)
    made = _path_of(service, job_id, channel)
    with service.files_of(job_id):
        if made.is_file():
            return made
        paths, reading = service.storage.input_paths(job_id), service.storage.reading_of(job_id)
        is_nifti = _is_split(paths, channel, reading) and paths[channel].name.endswith(".nii.gz")
        return paths[channel] if is_nifti and reading == Reading() else None


def make_input(service: Service, job_id: str, channel: int) -> Path:
    """Return the file of :func:`find_input`, which is made once, when no other image is in memory.

    Raises:
        ServiceError: there is no such job or channel.
        ImageError: the image cannot be read.
    """
    with service.image_lock:
        found = find_input(service, job_id, channel)
        if found is not None:
            return found
        with service.files_of(job_id):
            return _make(service, job_id, channel)


def _path_of(service: Service, job_id: str, channel: int) -> Path:
    return service.storage.job_folder(job_id) / "view" / f"channel_{channel:04d}.nii.gz"


def _is_split(paths: Sequence[Path], channel: int, reading: Reading) -> bool:
    """Return whether an image has a file for each channel.

    Raises:
        ServiceError: it has no such channel.
    """
    n_channels = sum(read_grid(path, spacing=reading.spacing, formats=reading.formats)[0] for path in paths)
    if channel >= n_channels:
        raise ServiceError(
            f"the image has {n_channels} channel{'s' * (n_channels != 1)}",
            remedy=f"use 0 to {n_channels - 1}",
            code="E-SERVICE-REQUEST",
        )
    return len(paths) == n_channels


def _make(service: Service, job_id: str, channel: int) -> Path:
    paths, reading = service.storage.input_paths(job_id), service.storage.reading_of(job_id)
    is_split = _is_split(paths, channel, reading)
    shown = paths[channel : channel + 1] if is_split else paths
    image = read_channels(shown, spacing=reading.spacing, formats=reading.formats)
    number, made = 0 if is_split else channel, _path_of(service, job_id, channel)
    with atomic_path(made) as partial:
        write_volume(partial, image.array_CZYX[number : number + 1], image.geometry)
    return made
