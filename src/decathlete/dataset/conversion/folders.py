"""Find cases in plain folders: images and label maps are matched by name, channels are distinguished by suffix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from decathlete.dataset.spec import Case, id_problems
from decathlete.errors import DatasetError, OptionError, problems_found
from decathlete.io.folder_tree import (
    NO_IMAGE,
    PICTURE,
    FolderTree,
    image_parts,
    is_slice,
    log_unused,
    why_no_image,
)
from decathlete.io.image_files import Failures, group_channels, is_image_name, split_pictures, strip_suffix

_HELP = "describe the folders and file names with --images, --labels, --test-images, --channels and --label-suffix"
Unused = dict[Path, str]
"""File -> why it is not used."""
_SLICE = "a DICOM slice; images are files here: write one NIfTI file for each series first"
_CHANNELS_HELP = "write e.g. --channels MRI, --channels CT,PET (files ID_0000, ID_0001) or --channels T1=_t1,T2=_t2"


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Folders and file names of a dataset without a manifest.

    Attributes:
        root: folder to which the others are relative.
        channels: channel name -> end of the file's name before ``.nii.gz``. ``None``: a file has the name of its case
            (and may contain all channels), or files are named ``ID_0000``, ``ID_0001``, ...
        label_suffix: end of the name of a label map. A file whose name is only the suffix (``P1/t1.nii.gz``) belongs
            to the case with the name of its folder.
    """

    root: Path
    images: Path
    labels: Path
    channels: dict[str, str | None]
    test_images: Path | None = None
    label_suffix: str = ""

    @property
    def suffixes(self) -> dict[str, str]:
        """Channel name -> suffix; empty if names follow the default."""
        return {name: suffix for name, suffix in self.channels.items() if suffix is not None}

    @property
    def endings(self) -> list[str]:
        """The ends of image names; an empty text if names follow the default."""
        return list(self.suffixes.values()) or [""]


def parse_channels(text: str) -> dict[str, str | None]:
    """Parse ``T1=_t1,T2=_t2`` or ``CT,PET`` to channel name -> suffix, or ``None`` for all channels.

    Raises:
        OptionError: the text has another form.
    """
    pairs = [tuple(part.strip() for part in entry.partition("=")) for entry in text.split(",")]
    names, suffixes = [name for name, _, _ in pairs], [suffix for _, equals, suffix in pairs if equals]
    mixed = 0 < len(suffixes) < len(names)
    if "" in names or mixed or len(set(names)) < len(names) or len(set(suffixes)) < len(suffixes):
        raise OptionError(
            f"--channels {text!r} is not a list of different channels", remedy=_CHANNELS_HELP, code="E-OPTION-SYNTAX"
        )
    return {name: suffix if equals else None for name, equals, suffix in pairs}


def find_cases(folders: Folders) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Find training and test cases; subfolders are searched, hidden files (``._*``) are ignored.

    Raises:
        DatasetError: images without a label map, label maps without an image, missing channels, or two files with
            one name; lists every problem.
    """
    problems: list[str] = []
    places = {"images": folders.images, "labels": folders.labels, "test images": folders.test_images}
    paths = {name: folders.root / place for name, place in places.items() if place is not None}
    problems += [f"there is no folder {path} ({name})" for name, path in paths.items() if not path.is_dir()]
    cases, test_cases = ((), ()) if problems else _match_files(folders, paths, problems)
    problems += [*id_problems(cases, "training"), *id_problems(test_cases, "test")]
    if problems or not cases:
        remedy = _hint_at_suffix(folders, paths) or _HELP
        raise problems_found(problems or ["there are no images"], where=folders.root, remedy=remedy, kind=DatasetError)
    return cases, test_cases


def _match_files(
    folders: Folders, paths: dict[str, Path], problems: list[str]
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    unused: Unused = {}
    images, labels = training_files(folders, paths, problems, unused)
    training = _cases(images, folders, problems, unused)
    label_of = _labels(labels, folders, problems, unused)
    test_files = _image_files(paths["test images"], unused) if "test images" in paths else []
    unused.update({path: "a label map among test images" for path in test_files if _is_label(path, folders)})
    tests = _cases([path for path in test_files if not _is_label(path, folders)], folders, problems, unused)
    problems += _unpaired(training, label_of)
    log_unused(folders.root, unused)
    return (
        tuple(Case(id=i, images=files, label=label_of.get(i)) for i, files in sorted(training.items())),
        tuple(Case(id=i, images=files) for i, files in sorted(tests.items())),
    )


def _image_files(folder: Path, unused: Unused) -> list[Path]:
    """Return the image files in a folder and below it; all other entries are added to ``unused``."""
    tree = FolderTree(root=folder)
    files = list(tree.files())
    images, pictures = split_pictures(path for path in files if is_image_name(path, slices=False))
    parts = image_parts(images)
    others = (path for path in files if not is_image_name(path, slices=False) and path not in parts)
    unused.update(tree.unused | dict.fromkeys(pictures, PICTURE))
    unused.update({path: _SLICE if is_slice(path) else why_no_image(path) or NO_IMAGE for path in others})
    return sorted(images)


def training_files(
    folders: Folders, paths: dict[str, Path], problems: list[str], unused: Unused
) -> tuple[list[Path], list[Path]]:
    """Find the files of images and of label maps; one folder may contain both, or contain the other folder.

    Args:
        paths: the folders ``images`` and ``labels``.
        problems, unused: what does not fit is added to them.
    """

    def files_of(folder: Path) -> list[Path]:
        inner = [other for other in paths.values() if other != folder and other.is_relative_to(folder)]
        files = _image_files(folder, unused)
        return [path for path in files if not any(path.is_relative_to(other) for other in inner)]

    if paths["images"] != paths["labels"]:
        return files_of(paths["images"]), files_of(paths["labels"])
    if folders.label_suffix in folders.endings:
        problems.append("images and label maps are in one folder with the same names: use --label-suffix")
        return [], []
    files = files_of(paths["images"])
    return [p for p in files if not _is_label(p, folders)], [p for p in files if _is_label(p, folders)]


def _is_label(path: Path, folders: Folders) -> bool:
    """Return whether a file among images is a label map, by its name."""
    longest = _longest_suffix(strip_suffix(path.name), [*folders.endings, folders.label_suffix])
    return longest == folders.label_suffix and longest not in folders.endings


def _longest_suffix(stem: str, suffixes: Collection[str]) -> str | None:
    """Return the longest of ``suffixes`` with which ``stem`` ends."""
    return max((s for s in suffixes if stem.endswith(s)), key=len, default=None)


def _case_id(path: Path, suffix: str) -> str:
    return strip_suffix(path.name).removesuffix(suffix) or path.parent.name


def _cases(files: list[Path], folders: Folders, problems: list[str], unused: Unused) -> dict[str, tuple[Path, ...]]:
    """Return case id -> files in the order of the channels."""
    if not folders.suffixes:
        failures: Failures = {}
        found = group_channels(files, n_channels=len(folders.channels), failures=failures)
        problems += [f"{problem.where}: {problem.problem}" for problem in failures.values()]
        return {**found, **dict.fromkeys(failures, ())}  # their labels are not without an image
    by_suffix: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in files:
        suffix = _longest_suffix(strip_suffix(path.name), folders.suffixes.values())
        if suffix is None:
            unused[path] = "its name ends with none of the suffixes of --channels"
        else:
            by_suffix[_case_id(path, suffix)][suffix].append(path)
    for case_id, files_by_suffix in sorted(by_suffix.items()):
        for name, suffix in folders.suffixes.items():
            paths = files_by_suffix[suffix]
            if len(paths) != 1:
                names = ", ".join(map(str, paths)) or f"no file {case_id}{suffix}.*"
                problems.append(f"case {case_id} has {len(paths)} files of channel {name}: {names}")
    return {
        case_id: tuple(path for suffix in folders.suffixes.values() for path in files_by_suffix[suffix])
        for case_id, files_by_suffix in by_suffix.items()
    }


def _labels(files: list[Path], folders: Folders, problems: list[str], unused: Unused) -> dict[str, Path]:
    label_of: dict[str, Path] = {}
    for path in files:
        if not strip_suffix(path.name).endswith(folders.label_suffix):
            unused[path] = "its name does not end with --label-suffix"
        else:
            case_id = _case_id(path, folders.label_suffix)
            if case_id in label_of:
                problems.append(f"case {case_id} has two label maps: {label_of[case_id]}, {path}")
            label_of[case_id] = path
    return label_of


def _hint_at_suffix(folders: Folders, paths: dict[str, Path]) -> str | None:
    """Return the option that matches images and label maps of two folders, if their names differ by one ending."""
    if folders.label_suffix or folders.suffixes or len({paths["images"], paths["labels"]}) < 2:
        return None
    if not (paths["images"].is_dir() and paths["labels"].is_dir()):
        return None
    images, labels = ([strip_suffix(p.name) for p in _image_files(paths[name], {})] for name in ("images", "labels"))
    if ending := _common_ending(images, labels):
        return f"the names of the label maps end with {ending}: add --label-suffix {ending}"
    if ending := _common_ending(labels, images):
        return f"the names of the images end with {ending}: write --channels NAME={ending}"
    return "give an image and its label map the same name, or list the files in a table (CSV) of image and label"


def _common_ending(short: Collection[str], long: Collection[str]) -> str | None:
    """Return the ending that makes each name of ``short`` one of ``long``; ``None`` if there is not a single one."""
    endings = [{name[len(stem) :] for name in long if name.startswith(stem)} for stem in short]
    common = set.intersection(*endings) - {""} if endings else set()
    return min(common, key=len) if common else None


def _unpaired(images: dict[str, tuple[Path, ...]], labels: dict[str, Path]) -> list[str]:
    without_label = [
        f"{images[i][0]} has no label map (put test images into --test-images)"
        for i in images
        if images[i] and i not in labels
    ]
    return without_label + [f"{labels[i]} has no image" for i in sorted(labels) if i not in images]
