"""Images by id, and the corrected label maps that people send back for them.

The folder or server of ``--studies`` is only read. What viewers send lies in the folder of the service::

    datastore/images/ID.nii.gz         images that a viewer added
    datastore/labels/TAG/ID.nii.gz     label maps, and beside each a JSON with the names of its segments
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from anyio import CapacityLimiter
from numpy.typing import NDArray

from decathlete.core.documents import read_json
from decathlete.core.files import atomic_path, file_digest, remove, remove_partials, translate_os_error, write_json
from decathlete.core.geometry import Geometry
from decathlete.core.memory import translate_out_of_memory
from decathlete.errors import ImageError, ServiceError
from decathlete.inference.predict import IMAGE_TOO_LARGE
from decathlete.io.format_lookup import suffix_of
from decathlete.io.images import read_channels, read_grid, read_label, write_image, write_label
from decathlete.io.reading import Reading
from decathlete.serving.inputs import ReceivedFile, require_size
from decathlete.serving.monai_label.image_sources import ImageSource, SingleFiles, unknown_image
from decathlete.serving.storage import make_private_folder

FINAL = "final"
"""Tag of corrected label maps, unless the viewer names another one."""

_IMAGE_ID = re.compile(r"[^\W_][\w .,()+=@-]*")
_MAX_ID_BYTES = 128
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_LABEL_SUFFIX = ".nii.gz"
_RAW = ".bin"
_TOLERANCE = 0.5  # of a voxel
_THREADS = 8


class Datastore:
    """Images and label maps by id.

    Methods that look for an image, or copy it, may wait for the server of ``source``. They neither hold a lock
    meanwhile, nor run in threads that other requests need, see :attr:`threads`.

    Args:
        root: folder for what viewers send.
        source: images of ``--studies``; ``None``: only those that viewers send.
        image_bytes: greatest size of an image in memory.
        image_lock: held while an image is in memory.
        reading: how images are read.

    Attributes:
        threads: limits the threads of requests that may wait for ``source``.
    """

    def __init__(
        self,
        root: Path,
        source: ImageSource | None,
        *,
        image_bytes: int,
        image_lock: threading.Lock,
        reading: Reading,
    ) -> None:
        self._images, self._labels = root / "images", root / "labels"
        self._added = SingleFiles(self._images)
        self._source = source
        self._image_bytes, self._image_lock, self._reading = image_bytes, image_lock, reading
        self._lock = threading.Lock()  # of changes
        self.threads = CapacityLimiter(_THREADS)
        with translate_os_error("cannot be written", where=root, remedy="use a --data folder of the same user"):
            make_private_folder(root)
        for folder in (self._images, *self._labels.glob("*/")):
            remove_partials(folder)

    def ids(self) -> list[str]:
        """Return the ids of all images."""
        return sorted({*self._added.ids(), *(self._source.ids() if self._source else ())})

    def has(self, image_id: str) -> bool:
        """Return whether there is an image of this id."""
        return self._added.has(image_id) or (self._source is not None and self._source.has(image_id))

    def copy_files(self, image_id: str, folder: Path) -> list[ReceivedFile]:
        """Copy the files of an image into ``folder``.

        Raises:
            ServiceError: there is no such image.
        """
        if self._source is None or self._added.has(image_id):
            return self._added.copy_files(image_id, folder)
        return self._source.copy_files(image_id, folder)

    def fetch(self, image_id: str, folder: Path) -> list[Path]:
        """Copy an image into ``folder``; return a file, or a DICOM folder, for each channel.

        Raises:
            ServiceError: there is no such image.
        """
        copied = folder / "image"
        copied.mkdir()
        paths: dict[Path, None] = {}
        for file in self.copy_files(image_id, copied):
            name = copied / file.name
            name.parent.mkdir(exist_ok=True)
            file.path.rename(name)
            paths[name if name.parent == copied else name.parent] = None
        return sorted(paths)

    def write_image(self, paths: Sequence[Path], folder: Path) -> Path:
        """Write an image into ``folder`` as NIfTI, for viewers.

        Args:
            paths: of :meth:`fetch`.

        Raises:
            ServiceError: it is too large.
            ImageError: it cannot be read.
        """
        path = folder / "image.nii.gz"
        require_size(paths, limit_bytes=self._image_bytes, reading=self._reading)
        with self._image_lock, translate_out_of_memory("the image", remedy=IMAGE_TOO_LARGE):
            image = read_channels(paths, spacing=self._reading.spacing, formats=self._reading.formats)
            write_image(path, image.array_CZYX, image.geometry)
        return path

    def add_image(self, image_id: str, file: ReceivedFile) -> None:
        """Keep an image that a viewer sends.

        Raises:
            ServiceError: the id cannot be a file name, another image has it, or the image is too large.
            ImageError: the file is not an image.
        """
        if not _IMAGE_ID.fullmatch(image_id) or len(image_id.encode()) > _MAX_ID_BYTES:
            raise ServiceError(
                "the id of the image is too long, or has characters that a file name cannot have",
                remedy="rename the volume in the viewer: at most 128 letters, digits, spaces and . , ( ) + = @ _ -",
                code="E-SERVICE-REQUEST",
            )
        suffix = suffix_of(file.name) or _LABEL_SUFFIX
        named = file.path.with_name(f"added{suffix}")
        file.path.rename(named)
        require_size([named], limit_bytes=self._image_bytes, reading=self._reading)
        target = self._images / f"{image_id}{suffix}"
        is_study = self._source is not None and self._source.has(image_id)
        with self._lock:
            is_known = is_study or self._added.has(image_id)
            if is_known and not (target.is_file() and file_digest(target) == file_digest(named)):
                raise ServiceError(
                    f"another image has the id {image_id!r}",
                    remedy="rename the volume in the viewer",
                    code="E-SERVICE-STATE",
                )
            with atomic_path(target) as partial:
                named.rename(partial)
            self._added.forget()

    def remove_image(self, image_id: str) -> None:
        """Delete an image that a viewer sent, and its label maps; images of ``--studies`` are not changed.

        Raises:
            ServiceError: no viewer sent such an image.
        """
        with self._lock:
            self._added.forget()
            for path in self._added.paths(image_id):
                remove(path)
            for tag in self.tags(image_id):
                self._remove_label(image_id, tag)
            self._added.forget()

    def new_label_path(self, image_id: str, tag: str) -> Path:
        """Return the file for a label map of an image, which need not exist.

        Args:
            tag: kind of label map, such as ``final``.

        Raises:
            ServiceError: there is no such image, or the tag is not valid.
        """
        if not _TAG.fullmatch(tag):
            raise ServiceError(
                "the tag has characters that it cannot have",
                remedy="use letters, digits, _ and -",
                code="E-SERVICE-REQUEST",
            )
        if "/" in image_id or image_id.startswith(".") or not self.has(image_id):
            raise unknown_image(image_id)
        return self._label_file(image_id, tag)

    def save_label(self, target: Path, file: ReceivedFile, images: Sequence[Path], record: dict[str, Any]) -> None:
        """Store a label map for an image, whole or not at all; an earlier one of the same tag is replaced.

        Args:
            target: of :meth:`new_label_path`.
            file: a label map, or the bytes of one (``.bin``) in the order of the image's voxels.
            images: the image, of :meth:`fetch`.
            record: stored beside the label map.

        Raises:
            ImageError: the file is not a label map, or it is not on the grid of the image.
        """
        _, geometry = read_grid(images[0], spacing=self._reading.spacing, formats=self._reading.formats)
        with self._image_lock, translate_out_of_memory("the label map", remedy=IMAGE_TOO_LARGE):
            label, geometry = _read_sent(file, geometry, self._reading)
            with self._lock:
                write_json(_record_path(target), record)  # before the label map: a kill between leaves no label map
                write_label(target, label, geometry)

    def label_path(self, image_id: str, tag: str) -> Path:
        """Return the file of a label map.

        Raises:
            ServiceError: there is none.
        """
        path = self.new_label_path(image_id, tag)
        if not path.is_file():
            raise ServiceError(
                f"the image {image_id!r} has no label map with the tag {tag!r}",
                remedy="see GET /datastore/?output=all",
                code="E-SERVICE-DATASTORE",
            )
        return path

    def label_record(self, image_id: str, tag: str) -> dict[str, Any]:
        """Return what was stored beside a label map; nothing, if earlier versions were killed before they did.

        Raises:
            ServiceError: there is no such label map.
        """
        path = _record_path(self.label_path(image_id, tag))
        record: dict[str, Any] = read_json(path) if path.is_file() else {}
        return record

    def remove_label(self, image_id: str, tag: str) -> None:
        """Delete a label map.

        Raises:
            ServiceError: there is none.
        """
        self.label_path(image_id, tag)
        with self._lock:
            self._remove_label(image_id, tag)

    def tags(self, image_id: str) -> list[str]:
        """Return the tags of the label maps of an image."""
        folders = sorted(self._labels.iterdir()) if self._labels.is_dir() else []
        return [folder.name for folder in folders if (folder / f"{image_id}{_LABEL_SUFFIX}").is_file()]

    def describe(self) -> dict[str, Any]:
        """Return all images and label maps, as MONAI Label's clients expect them."""
        objects = {
            image_id: {
                "image": {"ext": "", "info": {}},
                "labels": {
                    tag: {"ext": _LABEL_SUFFIX, "info": self.label_record(image_id, tag)} for tag in self.tags(image_id)
                },
            }
            for image_id in self.ids()
        }
        return {"name": "decathlete", "description": "", "images_dir": ".", "labels_dir": "labels", "objects": objects}

    def count(self) -> dict[str, int]:
        """Return the number of images, and of those with a final label map."""
        ids = self.ids()
        return {"total": len(ids), "completed": sum(FINAL in self.tags(image_id) for image_id in ids)}

    def _label_file(self, image_id: str, tag: str) -> Path:
        return self._labels / tag / f"{image_id}{_LABEL_SUFFIX}"

    def _remove_label(self, image_id: str, tag: str) -> None:
        path = self._label_file(image_id, tag)
        remove(path)
        remove(_record_path(path))


def _record_path(label: Path) -> Path:
    return label.with_name(f"{label.name.removesuffix(_LABEL_SUFFIX)}.json")


def _read_sent(file: ReceivedFile, image: Geometry, reading: Reading) -> tuple[NDArray[Any], Geometry]:
    """Read a label map for an image, after its size was compared with that of the image."""
    if file.name.lower().endswith(_RAW):
        return _from_bytes(file.path, image.shape_ZYX), image
    named = file.path.with_name(f"label{suffix_of(file.name) or _LABEL_SUFFIX}")
    file.path.rename(named)
    how: Any = {"spacing": reading.spacing, "formats": reading.formats}
    geometry = _checked_grid(read_grid(named, **how)[1], image)
    return read_label(named, **how).array_ZYX, geometry


def _from_bytes(path: Path, shape_ZYX: tuple[int, int, int]) -> NDArray[np.uint8]:
    n_voxels = path.stat().st_size
    if n_voxels != prod(shape_ZYX):
        raise ImageError(
            f"the label map has {n_voxels} voxels, and its image has {prod(shape_ZYX)}",
            remedy="correct the segmentation of this image",
            code="E-IMAGE-GEOMETRY",
        )
    return np.fromfile(path, np.uint8).reshape(shape_ZYX)


def _checked_grid(sent: Geometry, image: Geometry) -> Geometry:
    """Return the grid of a label map, if it covers its image; viewers may store the axes in another order."""
    nearest_mm = np.linalg.norm(_corners(sent)[:, None] - _corners(image)[None], axis=-1).min(axis=1)
    if sorted(sent.shape_ZYX) != sorted(image.shape_ZYX) or nearest_mm.max() > _TOLERANCE * min(image.spacing_ZYX):
        raise ImageError(
            "the label map is not on the grid of its image",
            remedy="segment this image at its own resolution",
            code="E-IMAGE-GEOMETRY",
        )
    return sent


def _corners(geometry: Geometry) -> NDArray[np.float64]:
    """Return the centres of the eight corner voxels, x, y, z in mm."""
    ends = np.array(list(product(*((0, n - 1) for n in geometry.shape_ZYX))))
    return ends @ geometry.matrix[:3, :3].T + geometry.origin_mm
