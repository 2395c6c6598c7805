"""The sizes of the largest images of many, from a few headers: those of the largest files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from decathlete.core.estimates import CaseSize
from decathlete.core.geometry import Geometry, Triple
from decathlete.errors import DecathleteError
from decathlete.io.format_settings import FormatSettings
from decathlete.io.images import read_grid


def sizes_of_largest(
    images: Mapping[str, Sequence[Path]],
    n: int,
    *,
    spacing: Triple | None = None,
    formats: FormatSettings = (),
    prepared: Callable[[Geometry], int] | None = None,
) -> dict[str, CaseSize]:
    """Return the sizes of about the ``n`` largest images: ``2 * n`` with the largest files are opened.

    How far a file is compressed differs between cases, but little within a dataset. Images that cannot be read are
    left out: whoever reads them next reports them.

    Args:
        images: case -> one file for each channel, or one file or folder with all of them.
        spacing, formats: see :mod:`decathlete.io.images`.
        prepared: returns the voxels on the prepared grid.
    """
    stored = {case: sum(map(stored_file_bytes, paths)) for case, paths in images.items()}
    sizes = {}
    for case in sorted(stored, key=lambda case: stored[case], reverse=True)[: 2 * n]:
        with suppress(DecathleteError, OSError):
            sizes[case] = size_of_image(images[case], spacing=spacing, formats=formats, prepared=prepared)
    return sizes


def size_of_image(
    paths: Sequence[Path],
    *,
    spacing: Triple | None = None,
    formats: FormatSettings = (),
    prepared: Callable[[Geometry], int] | None = None,
) -> CaseSize:
    """Return the size of an image by the header of its first file; arguments as of :func:`sizes_of_largest`.

    Raises:
        ImageError: it cannot be read.
    """
    n_channels, geometry = read_grid(paths[0], spacing=spacing, formats=formats)
    z, y, x = geometry.shape_ZYX
    return CaseSize(
        n_voxels=z * y * x,
        n_channels=max(n_channels, len(paths)),
        n_prepared=0 if prepared is None else prepared(geometry),
    )


def stored_file_bytes(path: Path) -> int:
    """Return the size of a file, or of the files in a folder (a DICOM series); 0 if it is missing."""
    with suppress(OSError):
        if path.is_dir():
            return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
        return path.stat().st_size
    return 0
