"""Cases in plain folders: image and label map belong together by name, channels are told apart by suffix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from decathlete.dataset.spec import Case, id_problems
from decathlete.errors import DatasetError, ImageError, OptionError, problems_found
from decathlete.io.image_files import group_channels, is_image_name, strip_suffix

_HELP = (
    "say with --images, --labels, --test-images, --channels and --label-suffix where files lie and what they are called"
)
_CHANNELS_HELP = "write e.g. --channels MRI, --channels CT,PET (files ID_0000, ID_0001) or --channels T1=_t1,T2=_t2"


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where files lie and how they are called.

    Attributes:
        root: the others are relative to it.
        channels: channel name -> what a file's name ends with before ``.nii.gz``. ``None``: files are called as their
            case (which may have all channels in one file), or ``ID_0000``, ``ID_0001``, ...
        label_suffix: what a label map's name ends with. A file that is called by its suffix alone (``P1/t1.nii.gz``)
            is named after its folder.
    """

    root: Path
    images: Path
    labels: Path
    channels: dict[str, str | None]
    test_images: Path | None = None
    label_suffix: str = ""

    @property
    def suffixes(self) -> dict[str, str]:
        """Channel name -> suffix; empty where names follow the default."""
        return {name: suffix for name, suffix in self.channels.items() if suffix is not None}

    @property
    def endings(self) -> list[str]:
        """What names of images end with; nothing in particular where they follow the default."""
        return list(self.suffixes.values()) or [""]


def parse_channels(text: str) -> dict[str, str | None]:
    """``T1=_t1,T2=_t2`` or ``CT,PET``: channel name -> suffix, or ``None`` for all.

    Raises:
        OptionError: it is anything else.
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
    """Training and test cases; folders are searched with all below them, hidden files (``._*``) are ignored.

    Raises:
        DatasetError: images without a label map, label maps without an image, missing channels, names that two files
            claim: every problem together.
    """
    problems: list[str] = []
    places = {"images": folders.images, "labels": folders.labels, "test images": folders.test_images}
    found = {name: folders.root / place for name, place in places.items() if place is not None}
    problems += [f"there is no folder {folder} ({name})" for name, folder in found.items() if not folder.is_dir()]
    cases, test_cases = ((), ()) if problems else _matched(folders, found, problems)
    problems += [*id_problems(cases, "training"), *id_problems(test_cases, "test")]
    if problems or not cases:
        raise problems_found(problems or ["there are no images"], where=folders.root, remedy=_HELP, kind=DatasetError)
    return cases, test_cases


def _matched(
    folders: Folders, found: dict[str, Path], problems: list[str]
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    images, labels = _training_files(folders, found, problems)
    training, label_of = _cases(images, folders, problems), _labels(labels, folders, problems)
    test_files = _files(found["test images"]) if "test images" in found else []
    tests = _cases([path for path in test_files if not _is_label(path, folders)], folders, problems)
    problems += _unpaired(training, label_of)
    return (
        tuple(Case(id=i, images=files, label=label_of.get(i)) for i, files in sorted(training.items())),
        tuple(Case(id=i, images=files) for i, files in sorted(tests.items())),
    )


def _files(folder: Path) -> list[Path]:
    return sorted(_walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and is_image_name(path) and path.suffix.lower() != ".dcm" and path.is_file():
            yield path


def _training_files(folders: Folders, found: dict[str, Path], problems: list[str]) -> tuple[list[Path], list[Path]]:
    """Files of images and of label maps; one folder may hold both, or lie in the other."""

    def own(folder: Path) -> list[Path]:
        within = [other for other in found.values() if other != folder and other.is_relative_to(folder)]
        return [path for path in _files(folder) if not any(path.is_relative_to(other) for other in within)]

    if found["images"] != found["labels"]:
        return own(found["images"]), own(found["labels"])
    if folders.label_suffix in folders.endings:
        problems.append("images and label maps lie in one folder and nothing tells them apart: give --label-suffix")
        return [], []
    files = own(found["images"])
    return [p for p in files if not _is_label(p, folders)], [p for p in files if _is_label(p, folders)]


def _is_label(path: Path, folders: Folders) -> bool:
    """By its name, among images."""
    longest = _longest(strip_suffix(path.name), [*folders.endings, folders.label_suffix])
    return longest == folders.label_suffix and longest not in folders.endings


def _longest(stem: str, suffixes: Collection[str]) -> str | None:
    """The longest of ``suffixes`` that ``stem`` ends with."""
    return max((s for s in suffixes if stem.endswith(s)), key=len, default=None)


def _case_id(path: Path, suffix: str) -> str:
    return strip_suffix(path.name).removesuffix(suffix) or path.parent.name


def _cases(files: list[Path], folders: Folders, problems: list[str]) -> dict[str, tuple[Path, ...]]:
    """Case id -> files in the order of the channels."""
    if not folders.suffixes:
        try:
            return group_channels(files, n_channels=len(folders.channels))
        except ImageError as problem:
            problems.append(f"{problem.where}: {problem.problem}")
            return {}
    by_suffix: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in files:
        suffix = _longest(strip_suffix(path.name), folders.suffixes.values())
        if suffix is not None:
            by_suffix[_case_id(path, suffix)][suffix].append(path)
    for case_id, found in sorted(by_suffix.items()):
        for name, suffix in folders.suffixes.items():
            if len(found[suffix]) != 1:
                what = ", ".join(str(p) for p in found[suffix]) or f"no file {case_id}{suffix}.*"
                problems.append(f"case {case_id} has {len(found[suffix])} files of channel {name}: {what}")
    return {i: tuple(path for s in folders.suffixes.values() for path in found[s]) for i, found in by_suffix.items()}


def _labels(files: list[Path], folders: Folders, problems: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in files:
        if strip_suffix(path.name).endswith(folders.label_suffix):
            case_id = _case_id(path, folders.label_suffix)
            if case_id in found:
                problems.append(f"case {case_id} has two label maps: {found[case_id]}, {path}")
            found[case_id] = path
    return found


def _unpaired(images: dict[str, tuple[Path, ...]], labels: dict[str, Path]) -> list[str]:
    without_label = [
        f"{images[i][0]} has no label map (a test image belongs into --test-images)" for i in images if i not in labels
    ]
    return without_label + [f"{labels[i]} is the label map of no image" for i in sorted(labels) if i not in images]
