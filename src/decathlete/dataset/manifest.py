"""Read the ``dataset.json`` of a folder in the layout of the Decathlon or of nnU-Net v2.

No image is opened, and files need not exist: ``check`` reports missing files.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from decathlete.core.digits import parse_digits
from decathlete.core.documents import read_json
from decathlete.core.geometry import Triple
from decathlete.core.labels import LabelSet
from decathlete.core.regions import whole_number
from decathlete.core.schema import describe
from decathlete.dataset.annotated import Annotated, read_annotated, with_annotated
from decathlete.dataset.declared_labels import parse_label_set
from decathlete.dataset.groups import assign_groups, describe_ungrouped, group_problems
from decathlete.dataset.listed_cases import ListedCases, drive_problems, listed_file, read_listed_cases
from decathlete.dataset.manifest_fields import DecathlonFields, NnUNetFields, describe_unknown
from decathlete.dataset.spec import Case, DatasetSpec, id_problems, path_problems
from decathlete.errors import DatasetError, ImageError, ManifestError, problems_found
from decathlete.io.dicom_label import LabelStructures, is_structure_file, structure_names
from decathlete.io.format_lookup import is_picture
from decathlete.io.image_files import group_channels, image_suffixes, is_image_name, strip_suffix

MANIFEST = "dataset.json"
_NUMBERED = re.compile(r"(?P<id>.+)_[0-9]{4}")
_HELP = "correct dataset.json (layouts: Medical Segmentation Decathlon, nnU-Net v2)"


def read_dataset(
    root: Path,
    *,
    group_by: str | None = None,
    spacing: Triple | None = None,
    annotated: Annotated | Path | None = None,
) -> DatasetSpec:
    """Read the manifest of the dataset in ``root``.

    Args:
        group_by: a regular expression with one group, whose match in a case's id is the case's patient. Without it,
            patients follow from the manifest's ``groups`` object, or from names like ``patient001_frame02``.
        spacing: z, y, x in mm, for files that do not contain their spacing.
        annotated: case id -> names of its annotated classes, or a CSV file with them, instead of the manifest's
            ``annotated`` object. All classes were annotated in a case without an entry.

    Raises:
        ManifestError: the manifest is missing or not valid, or ``annotated`` names unknown cases or classes; lists
            every problem.
    """
    manifest, unknown = _load(root)
    problems = path_problems(root)
    channels = _channels(manifest, problems)
    if not manifest.labels:
        problems.append('labels is empty: declare the background and each structure, e.g. {"0": "background", ...}')
        labels = None
    else:
        labels = parse_label_set(manifest.labels, manifest.regions, manifest.regions_class_order, problems)
    listed = _cases(manifest, root, len(channels), problems)
    known, test_cases = set(listed.training), listed.test
    # a case of both lists is held out
    cases = (*listed.training, *(case for case in listed.validation if case not in known))
    problems += id_problems(cases, "training") + id_problems(test_cases, "test")
    problems += drive_problems((*cases, *test_cases), root)
    declared = {} if group_by is not None else manifest.groups
    problems += group_problems(declared, [case.id for case in (*cases, *test_cases)])
    if problems or labels is None:
        raise problems_found(problems, where=root / MANIFEST, remedy=_HELP, kind=ManifestError)
    cases = _with_structures(cases, labels, manifest.dicom_structures, root)
    groups = assign_groups([c.id for c in cases], group_by=group_by, declared=declared)
    spec = DatasetSpec(
        name=root.resolve().name,
        root=root,
        layout="decathlon" if isinstance(manifest, DecathlonFields) else "nnunet",
        channels=channels,
        labels=labels,
        cases=tuple(replace(case, group=groups.of.get(case.id)) for case in cases),
        test_cases=test_cases,
        groups_from=groups.source,
        validation=tuple(c.id for c in listed.validation),
        fold_of=listed.fold_of,
        n_declared=(whole_number(manifest.numTraining), whole_number(manifest.numTest)),
        unused=(
            *unknown,
            *listed.unused,
            *describe_ungrouped(declared, [c.id for c in cases]),
            *_describe_unread_folds(root),
        ),
        structure_codes=manifest.dicom_codes,
    )
    spec = spec.with_spacing(spacing)
    where, partial = root / MANIFEST, manifest.annotated if annotated is None else annotated
    if isinstance(partial, Path):
        where, partial = partial, read_annotated(partial)
    return with_annotated(spec, partial, where=where) if partial else spec


def _describe_unread_folds(root: Path) -> tuple[str, ...]:
    """Return a line about the folds of nnU-Net v1, whose file could run code when it is read."""
    if not (root / "splits_final.pkl").exists():
        return ()
    return ("splits_final.pkl is not read: it may contain code; write the folds to splits_final.json",)


def _with_structures(
    cases: tuple[Case, ...], labels: LabelSet, patterns: dict[str, str], root: Path
) -> tuple[Case, ...]:
    """Return the cases with the structures of labels that are DICOM SEG objects or structure sets."""
    if unknown := sorted(set(patterns) - {c.name for c in labels.classes}):
        raise ManifestError(
            f"'dicom_structures' names classes that 'labels' do not declare: {', '.join(unknown)}",
            where=root / MANIFEST,
            remedy='write class names with patterns of the structures: "dicom_structures": {"tumour": "GTV*"}',
        )
    names = structure_names({c.name: c.value for c in labels.foreground}, patterns)
    return tuple(
        replace(case, structures=LabelStructures(image=case.images[0], names=names))
        if case.label is not None and is_structure_file(case.label)
        else case
        for case in cases
    )


def resolve_task(task: str, data_root: Path) -> Path:
    """Find a dataset folder by path, by its name below ``data_root``, or by number (``04``, ``4``).

    Raises:
        DatasetError: there is no such dataset, or the number fits several.
    """
    number = parse_digits(task)
    for folder in (Path(task), data_root / task):
        if (folder / MANIFEST).is_file():
            return folder
    for folder in (Path(task), data_root / task):
        if folder.is_dir() and number is None:
            return folder  # read_dataset reports what this folder lacks
    if number is None and Path(task).is_file():
        raise DatasetError(
            "is a file, not the folder of a dataset",
            where=task,
            remedy=f"use the folder with its {MANIFEST}{_nearby_dataset(Path(task))}",
            code="E-DATASET-NOT-FOUND",
        )
    known = sorted(p.parent for p in data_root.glob(f"*/{MANIFEST}")) if data_root.is_dir() else []
    numbered = [p for p in known if number is not None and _number(p.name) == number]
    if len(numbered) == 1:
        return numbered[0]
    if numbered:
        names = ", ".join(p.name for p in numbered)
        raise DatasetError(
            f"task {task} fits several datasets: {names}",
            where=data_root,
            remedy="use the folder's name",
            code="E-DATASET-NOT-FOUND",
        )
    known_names = f"datasets there: {', '.join(p.name for p in known)}" if known else "there is no dataset in it"
    raise DatasetError(
        f"no dataset {task!r} ({known_names})",
        where=data_root,
        remedy=f"use a folder with a {MANIFEST}, its name below --data, or its number (Task04_..., Dataset004_...)",
        code="E-DATASET-NOT-FOUND",
    )


def _nearby_dataset(path: Path) -> str:
    """Return the dataset around ``path``, or the first ones in it, as a clause; an empty text if there is none."""
    around = next((p for p in (path.parent, *path.resolve().parents[:2]) if (p / MANIFEST).is_file()), None)
    if around is not None:
        return f" ({around})"
    inside = sorted(p.parent.name for p in path.glob(f"*/{MANIFEST}")) if path.is_dir() else []
    more = f" and {len(inside) - 3} more" if len(inside) > 3 else ""
    return f" ({path} has {', '.join(inside[:3])}{more})" if inside else ""


def _number(name: str) -> int | None:
    match = re.match(r"(?:Task|Dataset)(\d+)_", name)
    return parse_digits(match[1]) if match else None


def _load(root: Path) -> tuple[DecathlonFields | NnUNetFields, tuple[str, ...]]:
    """Return the manifest, and a line about each of its fields that is not known."""
    path = root / MANIFEST
    if not root.is_dir():
        raise ManifestError(
            "is not a folder", where=root, remedy=f"use the folder that contains {MANIFEST}", code="E-DATASET-NOT-FOUND"
        )
    remedy = "correct it, or write one"
    if not path.exists():
        remedy = f"use the folder that contains {MANIFEST}{_nearby_dataset(root)}, or write one"
    raw = read_json(path, error=ManifestError, remedy=remedy)
    if not isinstance(raw, dict):
        raise ManifestError("must be a JSON object", where=path, remedy=_HELP)
    kind: type[DecathlonFields] | type[NnUNetFields]
    if "channel_names" in raw:
        kind = NnUNetFields
    elif "training" in raw:
        kind = DecathlonFields
    else:
        raise ManifestError(
            "declares neither 'training' (Decathlon layout) nor 'channel_names' (nnU-Net v2 layout)",
            where=path,
            remedy=_HELP,
        )
    try:
        return kind.model_validate(raw), describe_unknown(raw, kind)
    except ValidationError as problem:
        raise problems_found(describe(problem), where=path, remedy=_HELP, kind=ManifestError) from None


def _channels(manifest: DecathlonFields | NnUNetFields, problems: list[str]) -> tuple[str, ...]:
    field: Literal["modality", "channel_names"] = (
        "modality" if isinstance(manifest, DecathlonFields) else "channel_names"
    )
    declared: dict[str, str] = getattr(manifest, field)
    if sorted(declared) != sorted(map(str, range(len(declared)))):
        problems.append(f"{field} must number the channels 0, 1, ...; it has {', '.join(declared)}")
        return tuple(declared.values())
    return tuple(declared[str(c)] for c in range(len(declared)))


def _cases(manifest: DecathlonFields | NnUNetFields, root: Path, n_channels: int, problems: list[str]) -> ListedCases:
    if isinstance(manifest, DecathlonFields):
        return read_listed_cases(manifest, root)
    unused = _vain_lists(manifest)
    ending = manifest.file_ending
    if not ending.startswith(".") or not f"x{ending}".lower().endswith(image_suffixes()):
        problems.append(f"file_ending {ending!r} is not one of {', '.join(image_suffixes())}")
        return ListedCases(training=(), test=(), unused=unused)
    try:
        if manifest.dataset is not None:
            cases = _listed_cases(manifest.dataset, root, problems)
        else:
            cases = _folder_cases(root, "Tr", ending, n_channels)
        test_cases = _folder_cases(root, "Ts", ending, n_channels)
    except ImageError as problem:
        problems.append(problem.problem)
        return ListedCases(training=(), test=(), unused=unused)
    if not cases:
        problems.append(f"there are no images *{ending} in imagesTr{_content(root / 'imagesTr')}")
    return ListedCases(training=cases, test=test_cases, unused=unused)


def _vain_lists(manifest: NnUNetFields) -> tuple[str, ...]:
    reason = "nnU-Net finds cases by the names of their files, and folds in splits_final.json"
    listed = [name for name in ("training", "validation", "test") if getattr(manifest, name)]
    return tuple(f"{name!r} in {MANIFEST} is not used: {reason}" for name in listed)


def _listed_cases(listed: dict[str, dict[str, Any]], root: Path, problems: list[str]) -> tuple[Case, ...]:
    """Read nnU-Net v2's ``dataset`` object: id -> images (a list) and label, relative to the folder or absolute."""
    cases = []
    for case_id, entry in listed.items():
        images, label = entry.get("images"), entry.get("label")
        if not isinstance(images, list) or not images or not isinstance(label, str):
            problems.append(f"dataset.{case_id} needs 'images' (a list of files) and 'label' (a file)")
            continue
        files = tuple(listed_file(root, str(f)) for f in images)
        cases.append(Case(id=case_id, images=files, label=listed_file(root, label)))
    return tuple(cases)


def _folder_cases(root: Path, part: Literal["Tr", "Ts"], ending: str, n_channels: int) -> tuple[Case, ...]:
    """Find the cases of ``imagesTr`` or ``imagesTs``, with all channels that are declared or exist.

    A label without an image is a case whose image is missing.
    """
    images, labels = root / f"images{part}", root / f"labels{part}"
    files_of = group_channels(_with_ending(images, ending))
    if part == "Tr":
        labelled = {p.name[: -len(ending)] for p in _with_ending(labels, ending)}
        files_of = _group_by_labels(files_of, labelled, n_channels)
        misnamed = {p.name[: -len(ending)] for i, files in files_of.items() if i not in labelled for p in files}
        ids = files_of.keys() | (labelled - misnamed)
    else:
        ids = set(files_of)
    cases = []
    for case_id in sorted(ids):
        files = files_of.get(case_id, ())
        expected = [images / f"{case_id}_{c:04d}{ending}" for c in range(n_channels)]
        if len(files) == 1 and n_channels > 1 and is_picture(files[0]):
            expected = [files[0]]  # nnU-Net's RGB images: all channels are in ID_0000
        extra = [p for p in files if p not in expected and p.name != f"{case_id}{ending}"]
        label = labels / f"{case_id}{ending}" if part == "Tr" else None
        cases.append(Case(id=case_id, images=(*expected, *extra), label=label))
    return tuple(cases)


def _content(folder: Path) -> str:
    """Return what a folder contains instead of what is expected there, as a clause."""
    if not folder.is_dir():
        return ", which does not exist"
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f", which contains {', '.join(names[:3])}{more}" if names else ", which is empty"


def _group_by_labels(
    files_of: dict[str, tuple[Path, ...]], labelled: set[str], n_channels: int
) -> dict[str, tuple[Path, ...]]:
    """Correct the grouping of channels by the names of the label maps.

    ``ID_0001`` belongs to the case ``ID`` if that has a label: its first channel, ``ID_0000``, is missing. Files that
    have a label each are cases, whose names lack the number of the channel, if they are too many for one case.
    """
    found: dict[str, tuple[Path, ...]] = {}
    for case_id, files in files_of.items():
        if case_id not in labelled and len(files) > n_channels and all(strip_suffix(p.name) in labelled for p in files):
            continue  # their labels are the cases
        match = _NUMBERED.fullmatch(case_id)
        is_channel = match is not None and case_id not in labelled and match["id"] in labelled
        key = match["id"] if match is not None and is_channel else case_id
        found[key] = (*found.get(key, ()), *files)
    return found


def _with_ending(folder: Path, ending: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if is_image_name(p) and p.name.endswith(ending))
