"""Errors for images that do not exist or were not downloaded: what lies there instead, and what to do about it."""

from __future__ import annotations

import re
from pathlib import Path

from decathlete.core.nearest_files import nearest_files, nearest_names
from decathlete.core.placeholder_files import placeholder_error
from decathlete.errors import ImageError
from decathlete.io.format_lookup import strip_suffix

_ADDRESS = re.compile(r"[a-z0-9]{2,}:/")
"""Beginning of an address, such as ``https:/``, which is the path that an address becomes."""
_CHANNEL = re.compile(r"_[0-9]{4}$")


def missing_image(path: Path) -> ImageError:
    """Return the error for ``path``, which is missing, or neither a file nor a folder."""
    if (not_downloaded := placeholder_image(path)) is not None:
        return not_downloaded
    if path.exists():
        return ImageError(
            "is neither a file nor a folder (a pipe or a device)",
            where=path,
            remedy="save the image to a file",
            code="E-IMAGE-FORMAT",
        )
    return ImageError(
        f"does not exist{nearest_files(path)}", where=path, remedy=_remedy(path), code="E-IMAGE-NOT-FOUND"
    )


def placeholder_image(path: Path) -> ImageError | None:
    """Return the error of an image, or of a part of one, that is a placeholder; ``None``: it is none."""
    return placeholder_error(path, ImageError, code="E-IMAGE-DAMAGED")


def _remedy(path: Path) -> str:
    if _ADDRESS.match(path.as_posix()):
        return "download the file first: addresses are not read"
    if any(character in path.name for character in "*?"):
        return "name the folder, or one file: patterns are not resolved"
    names = nearest_names(path) if path.parent.is_dir() else []
    stem, stems = strip_suffix(path.name), [strip_suffix(name) for name in names]
    same = [strip_suffix(name) for name in names if name.casefold() == path.name.casefold()]
    if stem in same:
        return (
            "rename the files so that both names are equal, or write the suffix as the files have it into dataset.json "
            "(file_ending)"
        )
    if same:
        return "rename the file, or correct the name where it is listed"
    if stem in stems:
        return "convert or compress this file, or correct the suffix of its name where it is listed"
    if any(_CHANNEL.sub("", other) == stem and other != stem for other in stems):
        if path.parent.name.lower().startswith("label"):
            return "remove the number of the channel from the names of the label maps: only images have one"
        return (
            "these names have the number of a channel, as in nnU-Net's layout: declare channel_names and file_ending "
            'in dataset.json, or list the files of all channels ("image": ["..._0000.nii.gz", ...])'
        )
    if _CHANNEL.sub("", stem) in stems:
        return "add the number of the channel to the names of the images: _0000 for the first (nnU-Net's layout)"
    if any(other.startswith(stem) for other in stems):
        return (
            "remove the additional ending from the names of the files, or list them by these names; "
            "`decathlete convert --images DIR --label-suffix TEXT` reads them as they are"
        )
    if names and _CHANNEL.search(stem) and _CHANNEL.sub("", stem) in {_CHANNEL.sub("", other) for other in stems}:
        return "number the channels of each case from _0000 without gaps, one file for each channel of dataset.json"
    return "if one of these is meant, rename it, or correct the name where it is listed" if names else "check the path"
