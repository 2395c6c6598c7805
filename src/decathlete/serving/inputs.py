"""Uploaded files become the image of a job: archives are unpacked, and the image is read once before it is accepted.

DICOM files of several series are sorted, and the series of the channels are chosen as by ``decathlete predict``.

The names of files may contain the name of a patient. Files are stored under numbers; only suffixes and the numbers of
channels (``_0000``) are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

from decathlete.core.files import remove
from decathlete.core.memory import translate_out_of_memory
from decathlete.core.sizes import format_bytes
from decathlete.errors import ImageError, ServiceError
from decathlete.inference.dicom_inputs import choose_series
from decathlete.inference.predict import IMAGE_TOO_LARGE
from decathlete.io.folder_tree import ReportUnused, count_unused, log_unused
from decathlete.io.format_lookup import (
    DEFAULT_FORMAT,
    detached_suffixes,
    find_format,
    formats_of_content,
    is_picture,
    suffix_of,
)
from decathlete.io.images import find_inputs, read_channels, read_grid, strip_suffix
from decathlete.io.reading import Reading
from decathlete.serving.private_log import collect_warnings, without_folders
from decathlete.serving.storage import require_room
from decathlete.transfer.zips import unpack_zip

MAX_FILES = 20_000
"""Maximum number of files of one upload; a large CT series has about 3000 slices."""

_KINDS = {"mha": "metaimage"}
"""Registered names of formats that the answers of the service call otherwise."""
_ZIP = b"PK\x03\x04"
_CHANNEL = re.compile(r"(?P<id>.*)_(?P<channel>\d{4})")
_FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class ReceivedFile:
    """A file of an upload.

    Attributes:
        name: as the sender calls it; only its ending and its order decide anything.
        path: where it lies.
        field: of the form in which it was sent.
    """

    name: str
    path: Path
    field: str = ""


@dataclass(frozen=True, kw_only=True)
class ReceivedImage:
    """The image of an upload.

    Attributes:
        folder: with a file or DICOM folder for each channel, or a single one with all.
        kind: ``nifti``, ``nrrd``, ``metaimage``, ``dicom``, or the name of another image format.
        warnings: what the upload contains and is not used, and what the readers noticed.
    """

    folder: Path
    kind: str
    warnings: tuple[str, ...]


def make_image(
    files: Sequence[ReceivedFile],
    folder: Path,
    *,
    channels: Sequence[str],
    image_bytes: int,
    reading: Reading = Reading(),
) -> ReceivedImage:
    """Move the files of one image into a folder in ``folder``, and read them.

    Args:
        files: one image, one file per channel, the slices of DICOM series, or a zip file of any of these.
        folder: new files are written here.
        channels: of the model.
        image_bytes: greatest size of the image in memory, and of an unpacked archive.
        reading: how the image is read.

    Raises:
        ImageError: the files are not one image that can be read, or not one for the model.
        ArchiveError: the zip file is damaged or not safe to unpack.
        ServiceError: there is no file, or the image is too large.
        OutputError: the disk is too full to unpack it.
    """
    unused: dict[Path, str] = {}
    image = folder / "image"
    with collect_warnings() as logged:
        paths = find_channels(
            files,
            folder,
            channels=channels,
            image_bytes=image_bytes,
            check_room=partial(require_room, folder),
            report_unused=lambda _, found: unused.update(_files_in(found)),
        )
        _move_channels(paths, image)
        check_image(sorted(image.iterdir()), channels=channels, image_bytes=image_bytes, reading=reading)
    found = find_format(next(image.iterdir()))
    name = found.Settings.component if found else DEFAULT_FORMAT
    warnings = [f"not used: {text}" for text in count_unused(unused)]
    warnings += [without_folders(text, image, folder) for text in logged]
    return ReceivedImage(folder=image, kind=_KINDS.get(name, name), warnings=tuple(dict.fromkeys(warnings)))


def find_channels(
    files: Sequence[ReceivedFile],
    folder: Path,
    *,
    channels: Sequence[str],
    image_bytes: int,
    check_room: Callable[[int], object] = lambda _: None,
    report_unused: ReportUnused = log_unused,
) -> Sequence[Path]:
    """Move the files of one image into new folders in ``folder``; return the files or folders of its channels.

    Args:
        files, channels, image_bytes: as of :func:`make_image`.
        check_room: called with the number of bytes before an archive is unpacked, and while it is.
        report_unused: called with what is not used.

    Raises:
        ImageError: the files are not one image of a known kind, or not the channels of the model.
        ArchiveError: the zip file is damaged or not safe to unpack.
        ServiceError: there is no file, or there are too many.
    """
    if not files:
        raise ServiceError("the upload has no file", remedy="send an image", code="E-SERVICE-REQUEST")
    numbered = folder / "numbered"
    numbered.mkdir()
    if len(files) == 1 and _is_zip(files[0].path):
        unpacked = folder / "unpacked"
        unpack_zip(files[0].path, unpacked, limit_bytes=image_bytes, check=check_room)
        remove(files[0].path)
        files = [ReceivedFile(name=str(p.relative_to(unpacked)), path=p) for p in sorted(unpacked.rglob("*"))]
        files = [file for file in files if file.path.is_file() and not _is_hidden(file.name)]
    _move_numbered(files, numbered)
    cases = _find_images(numbered, len(channels), report_unused)
    return _one_case(_choose_series(cases, channels, numbered, report_unused))


def check_image(paths: Sequence[Path], *, channels: Sequence[str], image_bytes: int, reading: Reading) -> None:
    """Check that an image is one for the model, is not too large, and can be read whole.

    Raises:
        ImageError: it cannot be read, or has another number of channels than the model.
        ServiceError: it is too large.
    """
    n_needed = len(channels)
    may_be_grey = len(paths) == 1 and is_picture(paths[0])  # saved with 1 or 3 channels, which only reading tells
    n_channels = require_size(
        paths, limit_bytes=image_bytes, reading=reading, min_channels=n_needed if may_be_grey else 0
    )
    if n_channels == n_needed or may_be_grey:
        with translate_out_of_memory("the image", remedy=IMAGE_TOO_LARGE):
            image = read_channels(paths, spacing=reading.spacing, formats=reading.formats, n_channels=n_needed)
        n_channels = len(image.array_CZYX)
    if n_channels != n_needed:
        raise ImageError(
            f"the image has {n_channels} channel{'s' * (n_channels != 1)}, and the model needs {n_needed}: "
            f"{', '.join(channels)}",
            remedy="send one file for each channel, in this order, or one file with all channels",
            code="E-IMAGE-CHANNELS",
        )


def require_size(paths: Sequence[Path], *, limit_bytes: int, reading: Reading, min_channels: int = 0) -> int:
    """Check the size that an image will have in memory, by its headers; return its number of channels.

    Args:
        min_channels: channels that it will have at least, e.g. 3 for a grey picture that a color model reads.

    Raises:
        ImageError: it cannot be read.
        ServiceError: it is too large.
    """
    grids = [read_grid(path, spacing=reading.spacing, formats=reading.formats) for path in paths]
    added = max(min_channels - sum(n for n, _ in grids), 0) * prod(grids[0][1].shape_ZYX)
    n_bytes = (sum(n * prod(geometry.shape_ZYX) for n, geometry in grids) + added) * _FLOAT_BYTES
    if n_bytes > limit_bytes:
        raise ServiceError(
            f"the image needs {format_bytes(n_bytes)} of memory, and {format_bytes(limit_bytes)} are allowed",
            remedy="crop the image, or start the service with a larger --max-image",
            code="E-SERVICE-SIZE",
        )
    return sum(n for n, _ in grids)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(_ZIP)) == _ZIP


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part in ("__MACOSX", "DICOMDIR") for part in Path(name).parts)


def _move_numbered(files: Sequence[ReceivedFile], folder: Path) -> None:
    """Give the files neutral names: channels of one image keep their numbers, slices of one folder stay together."""
    if len(files) > MAX_FILES:
        raise ServiceError(
            f"the upload has more than {MAX_FILES} files", remedy="send one image", code="E-SERVICE-SIZE"
        )
    groups: dict[str, int] = {}
    for number, file in enumerate(files):
        parent = str(Path(file.name).parent)
        suffix = suffix_of(file.name) or _suffix_of_content(file.path)
        if suffix in detached_suffixes():
            raise ImageError(
                f"a header of the kind {suffix} has its voxels in another file",
                remedy="convert the image to .mha, .nrrd or .nii.gz",
                code="E-IMAGE-FORMAT",
            )
        if suffix in (None, ".dcm"):
            place = folder / f"series_{groups.setdefault(parent, len(groups)):04d}" / f"{number:05d}{suffix or ''}"
        else:
            place = folder / f"{_image_name(file.name, number, len(files), groups)}{suffix}"
        place.parent.mkdir(exist_ok=True)
        if place.exists():  # renaming would replace it
            raise ImageError(
                "two files have the same channel of an image in their names",
                remedy="send each image by itself",
                code="E-IMAGE-CHANNELS",
            )
        file.path.rename(place)


def _image_name(name: str, number: int, n_files: int, groups: dict[str, int]) -> str:
    match = _CHANNEL.fullmatch(strip_suffix(Path(name).name))
    if match:
        return f"image_{groups.setdefault('/' + match['id'], len(groups))}_{match['channel']}"
    return f"image_{number:04d}" if n_files > 1 else "image"


def _suffix_of_content(path: Path) -> str | None:
    """Return the suffix for a file without one; ``None``: it may be a slice of a DICOM series."""
    suffix_of_format = formats_of_content(path)
    if any(kind.reads_folders for kind in suffix_of_format):
        return None
    return next(iter(suffix_of_format.values()), None)


def _find_images(folder: Path, n_channels: int, report_unused: ReportUnused) -> Mapping[str, tuple[Path, ...]]:
    try:
        return find_inputs(folder, n_channels=n_channels, report_unused=report_unused)
    except ImageError as problem:
        if problem.code != "E-IMAGE-NOT-FOUND":
            raise
        raise ImageError(
            "the upload contains no image of a known kind",
            remedy="send NIfTI, NRRD, MetaImage or a DICOM series, or a zip file of one image",
            code=problem.code,
        ) from problem


def _choose_series(
    cases: Mapping[str, tuple[Path, ...]], channels: Sequence[str], folder: Path, report_unused: ReportUnused
) -> Mapping[str, tuple[Path, ...]]:
    links = folder.with_name("links")
    links.mkdir()
    try:
        return choose_series(cases, channels, folder, make_folder=links.joinpath, report_unused=report_unused)
    except ImageError as problem:
        raise ImageError(
            problem.problem,
            remedy=f"send the series of the model's channels alone ({', '.join(channels)}), or NIfTI files",
            code=problem.code,
        ) from problem


def _files_in(unused: Mapping[Path, str]) -> dict[Path, str]:
    """Replace folders by the files in them."""
    return {
        file: reason
        for path, reason in unused.items()
        for file in ((p for p in path.rglob("*") if p.is_file()) if path.is_dir() else (path,))
    }


def _move_channels(paths: Sequence[Path], folder: Path) -> None:
    folder.mkdir()
    for number, path in enumerate(paths):
        suffix = "" if path.is_dir() else suffix_of(path.name) or ""
        _move(path, folder / f"channel_{number:04d}{suffix}")


def _move(path: Path, target: Path) -> None:
    """Move a file or folder; a folder of links becomes one of the files themselves."""
    if not path.is_dir() or not any(file.is_symlink() for file in path.iterdir()):
        path.rename(target)
        return
    target.mkdir()
    for link in path.iterdir():
        link.resolve().rename(target / link.name)


def _one_case(cases: Mapping[str, Sequence[Path]]) -> Sequence[Path]:
    if len(cases) > 1:
        raise ImageError(
            f"the upload contains {len(cases)} images",
            remedy="send each image by itself",
            code="E-IMAGE-NOT-FOUND",
        )
    return next(iter(cases.values()))
