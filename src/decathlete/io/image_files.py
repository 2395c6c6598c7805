"""Files that are images: ids of their cases, and the files that together are one case."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from decathlete.core.placeholder_files import read_placeholder
from decathlete.errors import ImageError
from decathlete.io.folder_tree import (
    NO_IMAGE,
    PICTURE,
    FolderTree,
    ReportUnused,
    describe_unused,
    image_parts,
    is_slice,
    log_unused,
    name_some,
    why_no_image,
)
from decathlete.io.format_lookup import find_format, image_suffixes, output_suffix, strip_suffix
from decathlete.io.missing_files import missing_image

__all__ = [
    "find_inputs",
    "group_channels",
    "image_suffixes",
    "is_image_name",
    "output_suffix",
    "split_pictures",
    "strip_suffix",
]

Failures = dict[str, ImageError]
"""Case id -> why its files cannot be used."""

PROBABILITIES = "_probabilities"
"""End of the names of files with the probabilities of a prediction, beside its label map."""

_log = logging.getLogger(__name__)
_CHANNEL = re.compile(r"(?P<id>.+)_(?P<channel>\d{4})")


def is_image_name(path: Path, *, slices: bool = True, pictures: bool = True) -> bool:
    """Whether ``path`` is named like an image and is not hidden.

    Args:
        slices: also for files that may be single slices of an image (DICOM).
        pictures: also for files that may be pictures for documents (PNG, JPEG).
    """
    suffixes = image_suffixes(slices=slices, pictures=pictures)
    return path.name.lower().endswith(suffixes) and not path.name.startswith(".")


def split_pictures(files: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Separate images from pictures (PNG, JPEG, TIFF) that lie beside them; pictures alone are the images.

    >>> split_pictures([Path("a.nii.gz"), Path("a.png")])[1] == [Path("a.png")]
    True
    >>> split_pictures([Path("a.png"), Path("b.png")])[1]
    []
    """
    files = list(files)
    others = [path for path in files if is_image_name(path, pictures=False)]
    return (others, [path for path in files if path not in others]) if others else (files, [])


def find_inputs(
    path: Path,
    *,
    n_channels: int | None = None,
    failures: Failures | None = None,
    report_unused: ReportUnused = log_unused,
) -> dict[str, tuple[Path, ...]]:
    """Find the cases at ``path``: case id -> its files, one per channel or one with all channels.

    What a folder contains beside them is reported, with the reason why it is not used.

    Args:
        path: an image file; a folder of DICOM slices (one case with the name of the folder); or a folder of image
            files, where ``ID_0000.*``, ``ID_0001.*`` are the channels of ``ID``, and of DICOM folders at any depth
            (``ID`` or ``PATIENT_STUDY_SERIES``).
        n_channels: of the model, where known. With 1, files named ``ID_0000`` and ``ID_0001`` are two cases.
        failures: cases of a folder whose files cannot be used are added to it; ``None``: the first one is raised.
        report_unused: called with what is not used.

    Raises:
        ImageError: nothing is there, or it is not an image; or one case has two files for a channel, or lacks one.
    """
    if path.is_file():
        return _one_file(path, n_channels)
    if not path.is_dir():
        raise missing_image(path)
    tree = FolderTree(root=path)
    unusable: Failures = {}
    cases = cases_of_folder(tree, n_channels, unusable)
    if unusable and failures is None:
        raise next(iter(unusable.values()))
    if failures is not None:
        failures.update(unusable)
    if not cases and not unusable:
        raise ImageError(
            f"contains no images{describe_unused(path, tree.unused)}",
            where=path,
            remedy=f"name an image file or a folder with files of these kinds: {', '.join(image_suffixes())}",
            code="E-IMAGE-NOT-FOUND",
        )
    report_unused(path, tree.unused)
    return cases


def cases_of_folder(tree: FolderTree, n_channels: int | None, failures: Failures) -> dict[str, tuple[Path, ...]]:
    """Find all cases of a folder; those that cannot be used are added to ``failures``, the rest to ``tree.unused``."""
    entries = tree.entries(tree.root)
    absent = [p for p in tree.unused if is_image_name(p, slices=False) and read_placeholder(p) is not None]
    images, pictures = split_pictures(
        p for p in (*entries, *absent) if not p.is_dir() and is_image_name(p, slices=False)
    )
    others = [p for p in entries if p.is_file() and not is_image_name(p, slices=False)]
    slices = [p for p in others if is_slice(p)]
    if slices and find_format(tree.root) is None:  # their series are in folders beside them
        tree.unused.update(dict.fromkeys(slices, "a DICOM object without voxels"))
        others, slices = [p for p in others if p not in slices], []
    parts = image_parts(images)
    tree.unused.update(dict.fromkeys(pictures, PICTURE))
    tree.unused.update({p: why_no_image(p) or NO_IMAGE for p in others if p not in slices and p not in parts})
    found = list(group_channels(images, n_channels=n_channels, failures=failures).items())
    if len(slices) == 1 and images:
        found.append((strip_suffix(slices[0].name), (slices[0],)))
    elif slices:
        found.append((tree.root.resolve().name, (tree.root,)))
    if slices and not images:  # the folder is one image, and what lies below it belongs to another
        inside = "a folder inside a DICOM folder, which is one image: use it as an input of its own"
        tree.unused.update({p: inside for p in entries if p.is_dir()})
    else:
        found += [("_".join(p.relative_to(tree.root).parts), (p,)) for p in tree.series()]
    for path in absent:  # their cases fail, as those of other images that cannot be read
        del tree.unused[path]
    return _by_id(found, tree.root, failures)


def _by_id(found: list[tuple[str, tuple[Path, ...]]], folder: Path, failures: Failures) -> dict[str, tuple[Path, ...]]:
    cases: dict[str, tuple[Path, ...]] = {}
    for case_id, files in found:
        if case_id in cases:
            failures[case_id] = _doubled_case(case_id, cases[case_id][0], files[0], folder)
        cases.setdefault(case_id, files)
    return {case_id: files for case_id, files in cases.items() if case_id not in failures}


def _doubled_case(case_id: str, first: Path, second: Path, folder: Path) -> ImageError:
    return ImageError(
        f"case {case_id} comes twice: {first.name} and {second.name}", where=folder, remedy="keep one of the two"
    )


def _missing_channels(case_id: str, files: Mapping[int, Path]) -> ImageError | None:
    """Return the error of channels that are not numbered from 0 without a gap: the next file would take a place."""
    missing = sorted(set(range(max(files))) - files.keys())
    if not missing:
        return None
    listed = ", ".join(f"{case_id}_{number:04d}" for number in missing[:5]) + (", ..." if len(missing) > 5 else "")
    return ImageError(
        f"case {case_id} has no file {listed}, but {files[max(files)].name}",
        where=files[max(files)].parent,
        remedy="add the missing channel, or number the channels from 0000 without a gap",
        code="E-IMAGE-CHANNELS",
    )


def group_channels(
    files: Iterable[Path], *, n_channels: int | None = None, failures: Failures | None = None
) -> dict[str, tuple[Path, ...]]:
    """Case id -> files in channel order. ``ID_0001`` belongs to ``ID`` only where ``ID_0000`` is there too.

    Args:
        n_channels: that a case has, where known. With 1, every file of an id with several files is a case.
        failures: cases with two files for one channel, or without one, are added to it. ``None``: the first are an
            error, and the second are left to the caller, who knows the channels that a manifest declares.

    Raises:
        ImageError: one channel of one case comes in two files.
    """
    files = sorted(files)
    firsts = {strip_suffix(p.name).removesuffix("_0000") for p in files if strip_suffix(p.name).endswith("_0000")}
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    unusable: Failures = {}
    for file in files:
        case_id, channel = _channel_of(strip_suffix(file.name), firsts)
        if channel in found[case_id]:
            unusable[case_id] = _doubled_case(case_id, found[case_id][channel], file, file.parent)
        found[case_id].setdefault(channel, file)
    if failures is None and unusable:
        raise next(iter(unusable.values()))
    if failures is not None:
        if n_channels != 1:
            unusable |= {i: problem for i, of_case in found.items() if (problem := _missing_channels(i, of_case))}
        failures.update(unusable)
    usable = {case_id: channels for case_id, channels in found.items() if case_id not in unusable}
    if n_channels == 1:
        usable = _single_channels(usable)
    return {case_id: tuple(channels[k] for k in sorted(channels)) for case_id, channels in usable.items()}


def _single_channels(found: Mapping[str, dict[int, Path]]) -> dict[str, dict[int, Path]]:
    """Make every file of an id with several files a case of its own; other ids stay."""
    several = {case_id for case_id, channels in found.items() if len(channels) > 1}
    if several:
        files = [path for case_id in sorted(several) for path in found[case_id].values()]
        _log.warning(
            "one channel is expected: files of one name are cases of their own: %s", name_some(files[0].parent, files)
        )
    return {
        (strip_suffix(path.name) if case_id in several else case_id): {0: path}
        for case_id, channels in found.items()
        for path in channels.values()
    }


def _channel_of(stem: str, firsts: set[str]) -> tuple[str, int]:
    match = _CHANNEL.fullmatch(stem)
    if match and match["id"] in firsts:
        return match["id"], int(match["channel"])
    return stem, 0


def _one_file(path: Path, n_channels: int | None) -> dict[str, tuple[Path, ...]]:
    if find_format(path) is None:
        raise ImageError(
            f"is {why_no_image(path) or NO_IMAGE}",
            where=path,
            remedy=f"name a file that ends with one of {', '.join(image_suffixes())}, or a folder of DICOM slices",
            code="E-IMAGE-FORMAT",
        )
    stem = strip_suffix(path.name)
    if not stem.endswith("_0000"):
        return {stem: (path,)}
    siblings = (p for p in path.parent.iterdir() if not p.is_dir() and is_image_name(p))
    case_id = stem.removesuffix("_0000")
    same = [p for p in siblings if _channel_of(strip_suffix(p.name), {case_id})[0] == case_id and p.name != case_id]
    if n_channels == 1:
        return {case_id: (path,)}
    failures: Failures = {}
    found = group_channels([p for p in same if _CHANNEL.fullmatch(strip_suffix(p.name))], failures=failures)
    if failures:
        raise next(iter(failures.values()))
    return found
