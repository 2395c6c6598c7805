"""The files below a folder; links are followed, and what is not read is listed with its reason."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from decathlete.core.placeholder_files import read_placeholder
from decathlete.errors import printable
from decathlete.io.format_lookup import detached_suffixes, files_of, find_format, image_suffixes

MAX_DEPTH = 8
"""Maximum number of folders below the input that are searched. A DICOM export has three: patient, study, series."""

HIDDEN = "hidden"
HIDDEN_SLICE = "a hidden DICOM file: rename it if it is a slice of an image"
NO_IMAGE = "not an image of a known kind"
PICTURE = "a picture beside medical images"
INDEX = "DICOMDIR"
"""Name of the index of a DICOM export, in upper case."""
_LISTED = 5
_DATA_SUFFIXES = (".raw", ".zraw", ".raw.gz", ".bin", ".img")

_OTHER_FILES = {
    (".zip", ".7z", ".rar", ".tar", ".tgz", ".tar.gz"): "an archive: unpack it",
    (".hdr", ".img"): "Analyze, or NIfTI in two files: save it as .nii.gz",
    (".npy", ".npz", ".mat", ".h5", ".hdf5"): "an array without a grid: save it as .nii.gz, with its spacing",
    (".dcm.gz", ".dcm.bz2", ".dcm.xz"): "a compressed DICOM file: decompress it",
    (".nii.bz2", ".nii.xz", ".nii.zst"): "NIfTI that is not compressed by gzip: decompress it",
    (".part", ".crdownload"): "an unfinished download",
    (".raw", ".zraw"): "voxels without their header: copy the .mhd or .nhdr file, too",
    (".gif", ".webp", ".heic"): "a picture of a format that is not read: save it as PNG",
    (".mnc", ".par", ".rec", ".vtk", ".vti", ".svs", ".czi", ".nd2", ".lif"): "an image of a format that is not read: "
    "save it as NIfTI, NRRD or TIFF",
}
"""Ends of names -> why such files are not used."""

_log = logging.getLogger(__name__)

ReportUnused = Callable[[Path, Mapping[Path, str]], None]
"""Reports what a folder contains and is not used: file or folder -> why."""


def log_unused(folder: Path, unused: Mapping[Path, str]) -> None:
    """Log what an input contains and is not used, one line for each reason; hidden files at a lower level."""
    for reason, paths in _by_reason(unused).items():
        level = logging.INFO if all(is_hidden(path) for path in paths) else logging.WARNING
        _log.log(level, "%s: not used: %s (%s)", folder, name_some(folder, paths), reason)


def describe_unused(folder: Path, unused: Mapping[Path, str]) -> str:
    """Return what is not used and why, as a clause that starts with ``; ``; an empty text if there is nothing."""
    listed = [f"{name_some(folder, paths)} ({reason})" for reason, paths in _by_reason(unused).items()]
    return f"; not used: {', '.join(listed)}" if listed else ""


def count_unused(unused: Mapping[Path, str]) -> list[str]:
    """Return what is not used without names, which may be those of patients: ``3 files (a localizer)``.

    >>> count_unused({Path("a.dcm"): "a localizer", Path("b.dcm"): "a localizer", Path("c.txt"): "not an image"})
    ['2 files (a localizer)', '1 file (not an image)']
    """
    return [f"{len(paths)} file{'s' * (len(paths) != 1)} ({reason})" for reason, paths in _by_reason(unused).items()]


def name_some(folder: Path, paths: list[Path]) -> str:
    """Return the first names of ``paths``, relative to ``folder``, and the number of the others."""
    names = [str(p.relative_to(folder) if p.is_relative_to(folder) else p) for p in paths[:_LISTED]]
    more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    return printable(", ".join(names) + more)


def _by_reason(unused: Mapping[Path, str]) -> dict[str, list[Path]]:
    paths_of: dict[str, list[Path]] = defaultdict(list)
    for path, reason in sorted(unused.items()):
        paths_of[reason].append(path)
    return paths_of


@dataclass(frozen=True, kw_only=True)
class FolderTree:
    """A walk through a folder.

    Attributes:
        unused: entry -> why it is not used; the caller adds its own reasons.
    """

    root: Path
    unused: dict[Path, str] = field(default_factory=dict)

    def files(self) -> Iterator[Path]:
        """Yield all visible regular files in the folder and below it, sorted within each folder."""
        yield from self._files(self.root, self._ancestors_of_root())

    def series(self) -> Iterator[Path]:
        """Yield the folders below the root that are images (DICOM slices), the topmost of each branch.

        Other files below the root are added to ``unused``; those directly in it are not looked at.
        """
        for entry in self.entries(self.root):
            if entry.is_dir():
                yield from self._series(entry, self._ancestors_of_root())

    def entries(self, folder: Path) -> list[Path]:
        """Return the visible files and folders directly in ``folder``; other entries are added to ``unused``."""
        try:
            inside = sorted(folder.iterdir())
        except OSError as problem:
            self.unused[folder] = f"cannot be read: {problem.strerror}"
            return []
        for entry in inside:
            if reason := _reason_to_skip(entry):
                self.unused[entry] = reason
        return [entry for entry in inside if entry not in self.unused]

    def has_images(self, folder: Path) -> bool:
        """Return whether there are files named like images in ``folder`` or below it; pictures do not count."""
        inner, suffixes = FolderTree(root=folder), image_suffixes(pictures=False)
        return any(path.name.lower().endswith(suffixes) for path in inner.files())

    def _ancestors_of_root(self) -> tuple[tuple[int, int], ...]:
        root = self.root.resolve()  # with the folders above it: a link to one of them leads back here
        return tuple(_identity(folder) for folder in (root, *root.parents))

    def _files(self, folder: Path, ancestors: tuple[tuple[int, int], ...]) -> Iterator[Path]:
        for entry in self.entries(folder):
            if not entry.is_dir():
                yield entry
            elif self._may_enter(entry, ancestors):
                yield from self._files(entry, (*ancestors, _identity(entry)))

    def _series(self, folder: Path, ancestors: tuple[tuple[int, int], ...]) -> Iterator[Path]:
        if not self._may_enter(folder, ancestors):
            return
        entries = self.entries(folder)
        if find_format(folder):
            self.list_beside_slices(entries)
            yield folder
            return
        folders = [e for e in entries if e.is_dir()]
        files = [e for e in entries if not e.is_dir()]
        found = [p for f in folders for p in self._series(f, (*ancestors, _identity(folder)))]
        if not found and any(e.name.lower().endswith(image_suffixes()) for e in files):
            self.unused[folder] = "a folder with images of its own: use it as the input to predict them"
        elif not found and not folders:
            self.unused[folder] = "a folder without images"
        else:
            self.unused.update({e: _reason_of_file(e) for e in files})
        yield from found

    def list_beside_slices(self, entries: Iterable[Path]) -> None:
        """Add what lies beside slices in their folder, of which ``entries`` are the content, to ``unused``."""
        for entry in entries:
            if entry.is_dir():
                self.unused[entry] = "a folder inside a DICOM folder, which is one image: use it as an input of its own"
            elif not is_slice(entry):
                self.unused[entry] = why_no_image(entry) or "beside DICOM slices, which are one image"

    def _may_enter(self, folder: Path, ancestors: tuple[tuple[int, int], ...]) -> bool:
        if _identity(folder) in ancestors:
            self.unused[folder] = "a link to a folder above it"
        elif len(ancestors) - len(self._ancestors_of_root()) >= MAX_DEPTH:
            self.unused[folder] = f"more than {MAX_DEPTH} folders below the input"
        else:
            return True
        return False


def is_slice(path: Path) -> bool:
    """Return whether a file may be a slice of an image, or all of its frames: by its name, then by its content."""
    found = find_format(path)
    return found is not None and found.reads_folders


def starts_like_dicom(path: Path) -> bool:
    """Return whether a file starts with the preamble of DICOM part 10: 128 bytes, then ``DICM``."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def image_parts(images: Iterable[Path]) -> set[Path]:
    """Return the files beside ``images`` that they are read from: voxels of a header, the spacing of a TIFF.

    Of a header that cannot be read, these are the files that are named like it: its own error is enough.
    """
    parts: set[Path] = set()
    for path in images:
        others = files_of(path)[1:]
        if not others and path.suffix.lower() in detached_suffixes():
            others = tuple(path.with_name(path.stem + suffix) for suffix in _DATA_SUFFIXES)
        parts.update(others)
    return parts


def is_hidden(path: Path) -> bool:
    """Return whether a file or folder is hidden by its name: ``.DS_Store``, ``._case.nii.gz``."""
    return path.name.startswith(".")


def why_no_image(path: Path) -> str | None:
    """Return what a file is instead of an image; ``None``: of no known format (:data:`NO_IMAGE`)."""
    if path.name.upper() == INDEX:
        return "an index of DICOM files"
    placeholder = read_placeholder(path)
    if placeholder is None or not placeholder.is_pointer:
        known = (reason for endings, reason in _OTHER_FILES.items() if path.name.lower().endswith(endings))
        return next(known, None)
    return f"{placeholder.content}: {placeholder.remedy}"


def _reason_of_file(path: Path) -> str:
    if find_format(path):
        return "an image in a subfolder: use the subfolder as the input to predict it"
    return why_no_image(path) or NO_IMAGE


def _reason_to_skip(entry: Path) -> str | None:
    if is_hidden(entry):
        return HIDDEN_SLICE if starts_like_dicom(entry) else HIDDEN
    if entry.is_file() or entry.is_dir():
        return None
    if not entry.is_symlink():
        return "neither a file nor a folder"
    return why_no_image(entry) or "a link that leads nowhere"


def _identity(folder: Path) -> tuple[int, int]:
    info = folder.stat()
    return info.st_dev, info.st_ino
