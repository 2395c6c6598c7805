"""Where images come from that viewers name by an id: a folder, or a DICOMweb server."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from decathlete.core.files import TEMPORARY_PREFIX
from decathlete.core.sizes import format_bytes
from decathlete.errors import ImageError, ServiceError
from decathlete.io.image_files import find_inputs, strip_suffix
from decathlete.serving.dicomweb import DicomWebServer
from decathlete.serving.inputs import ReceivedFile
from decathlete.serving.storage import copy_file, require_room

_LISTING_S = 10.0
"""Age at which a list of images is made again."""
_UID = re.compile(r"[0-9.]{1,64}")
_MODALITIES = ("CT", "MR", "PT")


class ImageSource(Protocol):
    """Images with ids."""

    def ids(self) -> list[str]:
        """Return the ids of all images."""
        ...

    def has(self, image_id: str) -> bool:
        """Return whether there is an image of this id."""
        ...

    def copy_files(self, image_id: str, folder: Path) -> list[ReceivedFile]:
        """Copy the files of an image into ``folder``.

        Raises:
            ServiceError: there is no such image, or it cannot be read now.
            OutputError: the disk is too full.
        """
        ...


def unknown_image(image_id: str) -> ServiceError:
    """Return the error for an id that no image has."""
    return ServiceError(
        f"there is no image {image_id!r}", remedy="see GET /datastore/?output=all", code="E-SERVICE-DATASTORE"
    )


class FolderImages:
    """Images in a folder, found as by ``decathlete predict``; the folder is only read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._found: dict[str, tuple[Path, ...]] = {}
        self._read_at = -_LISTING_S

    def ids(self) -> list[str]:
        """Return the ids of all images."""
        return list(self._images())

    def has(self, image_id: str) -> bool:
        """Return whether there is an image of this id."""
        return image_id in self._images()

    def forget(self) -> None:
        """Read the folder again at the next request."""
        self._read_at = -_LISTING_S

    def paths(self, image_id: str) -> tuple[Path, ...]:
        """Return the files, or DICOM folders, of an image: one for each channel.

        Raises:
            ServiceError: there is no such image.
        """
        images = self._images()
        if image_id not in images:
            raise unknown_image(image_id)
        return images[image_id]

    def copy_files(self, image_id: str, folder: Path) -> list[ReceivedFile]:
        """Copy the files of an image into ``folder``."""
        copied: list[ReceivedFile] = []
        for number, path in enumerate(self.paths(image_id)):
            sources = sorted(path.iterdir()) if path.is_dir() else [path]
            for source in (s for s in sources if s.is_file()):
                name = f"series_{number:04d}/{source.name}" if path.is_dir() else source.name
                copy = copy_file(source, folder / f"source-{len(copied):05d}")
                copied.append(ReceivedFile(name=name, path=copy))
        return copied

    def _images(self) -> dict[str, tuple[Path, ...]]:
        with self._lock:
            if time.monotonic() >= self._read_at + _LISTING_S:
                self._found, self._read_at = self._list(), time.monotonic()
            return self._found

    def _list(self) -> dict[str, tuple[Path, ...]]:
        if not self._folder.is_dir():
            return {}
        try:
            return find_inputs(self._folder, failures={})  # what cannot be used is left out
        except ImageError as problem:
            if problem.code == "E-IMAGE-NOT-FOUND":  # the folder is empty
                return {}
            raise


class SingleFiles(FolderImages):
    """Images that are one file each: its name without suffix is the id, also if it ends as that of a channel does."""

    def _list(self) -> dict[str, tuple[Path, ...]]:
        files = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        return {strip_suffix(path.name): (path,) for path in files if not path.name.startswith(TEMPORARY_PREFIX)}


class DicomWebImages:
    """Series of a DICOMweb server; their ids are Series Instance UIDs.

    Args:
        url: root of QIDO-RS and WADO-RS.
        limit_bytes: greatest size of a series.
        connect: returns the server of an address.
    """

    def __init__(self, url: str, *, limit_bytes: int, connect: Callable[[str], Any] = DicomWebServer) -> None:
        self.url = url.rstrip("/")
        self._limit, self._server = limit_bytes, connect(self.url)

    def ids(self) -> list[str]:
        """Return the UIDs of all series of the modalities CT, MR and PT."""
        return [uid for modality in _MODALITIES for uid in self._search({"Modality": modality}, "0020000E")]

    def has(self, image_id: str) -> bool:
        """Return whether the server has a series; servers may list only a part of theirs."""
        return bool(self._studies_of(image_id))

    def copy_files(self, image_id: str, folder: Path) -> list[ReceivedFile]:
        """Download the slices of a series into ``folder``."""
        studies = self._studies_of(image_id)
        if not studies:
            raise unknown_image(image_id)
        n_bytes = 0

        def check(n_more: int) -> None:
            nonlocal n_bytes
            n_bytes += n_more
            require_room(folder, n_more)
            if n_bytes > self._limit:
                raise ServiceError(
                    f"the series is larger than {format_bytes(self._limit)}",
                    remedy="start the service with a larger --max-upload",
                    code="E-SERVICE-SIZE",
                )

        with self._answers():
            paths = list(self._server.download(studies[0], image_id, folder, check=check))
        return [ReceivedFile(name=f"series/{number:05d}.dcm", path=path) for number, path in enumerate(paths)]

    def _studies_of(self, image_id: str) -> list[str]:
        return self._search({"SeriesInstanceUID": image_id}, "0020000D") if _UID.fullmatch(image_id) else []

    def _search(self, filters: dict[str, str], tag: str) -> list[str]:
        with self._answers():
            found = self._server.client.search_for_series(search_filters=filters)
        return [entry[tag]["Value"][0] for entry in found if entry.get(tag, {}).get("Value")]

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """Translate the errors of a request."""
        try:
            yield
        except OSError as problem:  # the errors of requests are OSErrors
            raise ServiceError(
                f"the DICOMweb server does not answer as it should: {type(problem).__name__}",
                remedy="check --studies and the server",
                code="E-SERVICE-DICOMWEB",
            ) from problem
