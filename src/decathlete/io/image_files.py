"""Files that are images: ids of their cases, and the files that together are one case."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from decathlete.errors import ImageError
from decathlete.io.format_lookup import find_format, image_suffixes, output_suffix, suffix_of
from decathlete.io.missing_files import missing_image

__all__ = ["find_inputs", "group_channels", "image_suffixes", "is_image_name", "output_suffix", "strip_suffix"]

_CHANNEL = re.compile(r"(?P<id>.+)_(?P<channel>\d{4})")


def strip_suffix(name: str) -> str:
    """A file name without its image suffix; other names are left alone.

    >>> strip_suffix("case.1_0000.nii.gz")
    'case.1_0000'
    """
    suffix = suffix_of(name)
    return name[: -len(suffix)] if suffix else name


def is_image_name(path: Path, *, slices: bool = True) -> bool:
    """Whether ``path`` is named like an image and is not hidden.

    Args:
        slices: also for files that may be single slices of an image (DICOM).
    """
    return path.name.lower().endswith(image_suffixes(slices=slices)) and not path.name.startswith(".")


def find_inputs(path: Path, *, n_channels: int | None = None) -> dict[str, tuple[Path, ...]]:
    """Find the cases at ``path``: case id -> its files, one per channel or one with all channels.

    Args:
        path: an image file; a folder of DICOM slices (one case with the name of the folder); a folder of images, where
            ``ID_0000.*``, ``ID_0001.*`` are the channels of ``ID``; or a folder of DICOM folders.
        n_channels: of the model, where known. With 1, files named ``ID_0000`` and ``ID_0001`` are two cases.

    Raises:
        ImageError: nothing is there, it is not an image, or one case has two files of different kinds.
    """
    if path.is_file():
        return _one_file(path, n_channels)
    if not path.is_dir():
        raise missing_image(path)
    inside = sorted(path.iterdir())
    if images := [p for p in inside if p.is_file() and is_image_name(p, slices=False)]:
        return group_channels(images, n_channels=n_channels)
    if find_format(path):
        return {path.resolve().name: (path,)}
    series: dict[str, tuple[Path, ...]] = {p.name: (p,) for p in inside if p.is_dir() and find_format(p)}
    if not series:
        raise ImageError(
            "contains no images",
            where=path,
            remedy=f"name an image file or a folder with files of these kinds: {', '.join(image_suffixes())}",
            code="E-IMAGE-NOT-FOUND",
        )
    return series


def group_channels(files: Iterable[Path], *, n_channels: int | None = None) -> dict[str, tuple[Path, ...]]:
    """Case id -> files in channel order. ``ID_0001`` belongs to ``ID`` only where ``ID_0000`` is there too.

    Raises:
        ImageError: one channel of one case comes in two files.
    """
    files = sorted(files)
    firsts = {strip_suffix(p.name).removesuffix("_0000") for p in files if strip_suffix(p.name).endswith("_0000")}
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    for file in files:
        case_id, channel = _channel_of(strip_suffix(file.name), firsts)
        if channel in found[case_id]:
            raise ImageError(
                f"case {case_id} comes twice: {found[case_id][channel].name} and {file.name}",
                where=file.parent,
                remedy="keep one of the two",
            )
        found[case_id][channel] = file
    if n_channels == 1 and any(len(channels) > 1 for channels in found.values()):
        return {strip_suffix(p.name): (p,) for p in files}
    return {case_id: tuple(channels[k] for k in sorted(channels)) for case_id, channels in found.items()}


def _channel_of(stem: str, firsts: set[str]) -> tuple[str, int]:
    match = _CHANNEL.fullmatch(stem)
    if match and match["id"] in firsts:
        return match["id"], int(match["channel"])
    return stem, 0


def _one_file(path: Path, n_channels: int | None) -> dict[str, tuple[Path, ...]]:
    if find_format(path) is None:
        raise ImageError(
            "is not an image of a known kind",
            where=path,
            remedy=f"name a file that ends with one of {', '.join(image_suffixes())}, or a folder of DICOM slices",
            code="E-IMAGE-FORMAT",
        )
    stem = strip_suffix(path.name)
    if not stem.endswith("_0000"):
        return {stem: (path,)}
    siblings = (p for p in path.parent.iterdir() if p.is_file() and is_image_name(p))
    case_id = stem.removesuffix("_0000")
    same = [p for p in siblings if _channel_of(strip_suffix(p.name), {case_id})[0] == case_id and p.name != case_id]
    if n_channels == 1:
        return {case_id: (path,)}
    return group_channels([p for p in same if _CHANNEL.fullmatch(strip_suffix(p.name))])
