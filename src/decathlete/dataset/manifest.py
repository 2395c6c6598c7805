"""Read the ``dataset.json`` of a folder in the layout of the Decathlon or of nnU-Net v2.

No image is opened, and files need not exist: ``check`` reports missing files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from decathlete.core.geometry import Triple
from decathlete.core.labels import LabelSet
from decathlete.core.regions import whole_number
from decathlete.dataset.annotated import AnnotatedClasses, AnnotatedFile, with_annotated
from decathlete.dataset.declared_labels import parse_label_set
from decathlete.dataset.find_dataset import FOLDS, MANIFEST
from decathlete.dataset.groups import assign_groups, describe_ungrouped, group_problems
from decathlete.dataset.listed_cases import drive_problems
from decathlete.dataset.manifest_cases import read_cases
from decathlete.dataset.manifest_schema import REMEDY, DecathlonManifest, Manifest, load_manifest
from decathlete.dataset.spec import Case, DatasetSpec, id_problems, path_problems
from decathlete.errors import ManifestError, problems_found
from decathlete.io.dicom_label import LabelStructures, is_structure_file, structure_names
from decathlete.io.format_settings import FormatSettings
from decathlete.io.image_files import strip_suffix


@dataclass(frozen=True, kw_only=True)
class DeclaredLabels:
    """What is declared about label maps.

    Attributes:
        labels: the classes.
        annotated: annotated classes of the cases in which not all were annotated; ``None``: nothing is declared.
        case_ids: name of a label map without its suffix -> id of its case, for the label maps that a manifest lists.
    """

    labels: LabelSet
    annotated: AnnotatedFile | None = None
    case_ids: Mapping[str, str] = field(default_factory=dict)


def read_dataset(
    root: Path,
    *,
    group_by: str | None = None,
    spacing: Triple | None = None,
    formats: FormatSettings = (),
    annotated: AnnotatedClasses | None = None,
) -> DatasetSpec:
    """Read the manifest of the dataset in ``root``.

    Args:
        group_by: a regular expression with one group, whose match in a case's id is the case's patient. Without it,
            patients follow from the manifest's ``groups`` object, or from names like ``patient001_frame02``.
        spacing: z, y, x in mm, for files that do not contain their spacing.
        formats: settings of image formats that change how files are read.
        annotated: case id -> names of its annotated classes, instead of the manifest's ``annotated`` object. All
            classes were annotated in a case without an entry.

    Raises:
        ManifestError: the manifest is missing or not valid, or ``annotated`` names unknown cases or classes; lists
            every problem.
    """
    manifest, unknown = load_manifest(root)
    problems = path_problems(root)
    channels = _channels(manifest, problems)
    if not manifest.labels:
        problems.append('labels is empty: declare the background and each structure, e.g. {"0": "background", ...}')
        labels = None
    else:
        labels = parse_label_set(manifest.labels, manifest.regions, manifest.regions_class_order, problems)
    listed = read_cases(manifest, root, len(channels), problems)
    known, test_cases = set(listed.training), listed.test
    # a case of both lists is held out
    cases = (*listed.training, *(case for case in listed.validation if case not in known))
    problems += id_problems(cases, "training") + id_problems(test_cases, "test")
    problems += drive_problems((*cases, *test_cases), root)
    declared = {} if group_by is not None else manifest.groups
    if not problems:  # without them, names may be missing
        problems += group_problems(declared, [case.id for case in (*cases, *test_cases)])
    if problems or labels is None:
        raise problems_found(problems, where=root / MANIFEST, remedy=REMEDY, kind=ManifestError)
    cases = _with_structures(cases, labels, manifest.dicom_structures, root)
    groups = assign_groups([c.id for c in cases], group_by=group_by, declared=declared)
    spec = DatasetSpec(
        name=root.resolve().name,
        root=root,
        layout="decathlon" if isinstance(manifest, DecathlonManifest) else "nnunet",
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
    spec = spec.read_with(spacing=spacing, formats=formats)
    partial = manifest.annotated if annotated is None else annotated
    listed_in = annotated.path if isinstance(annotated, AnnotatedFile) else root / MANIFEST
    return with_annotated(spec, partial, where=listed_in) if partial else spec


def read_labels(root: Path, folder: Path) -> DeclaredLabels:
    """Read what the manifest in ``root`` declares about label maps; the images that it declares need not be there.

    The annotated classes are not checked.

    Args:
        folder: folder of the label maps. If several label maps have the same name, ``case_ids`` has the one in it.

    Raises:
        ManifestError: the manifest is missing, or its labels are not valid.
    """
    manifest, _ = load_manifest(root)
    problems: list[str] = []
    labels = parse_label_set(manifest.labels, manifest.regions, manifest.regions_class_order, problems)
    if labels is None:
        raise problems_found(problems, where=root / MANIFEST, remedy=REMEDY, kind=ManifestError)
    annotated = AnnotatedFile(root / MANIFEST)
    annotated.update({case_id: tuple(classes) for case_id, classes in manifest.annotated.items()})
    return DeclaredLabels(labels=labels, annotated=annotated, case_ids=_ids_of_label_maps(manifest, root, folder))


def _ids_of_label_maps(manifest: Manifest, root: Path, folder: Path) -> dict[str, str]:
    """Return the ``case_ids`` of :class:`DeclaredLabels`."""
    listed = read_cases(manifest, root, len(_channels(manifest, [])), [])
    cases = [(case.label, case.id) for case in (*listed.training, *listed.validation) if case.label is not None]
    cases.sort(key=lambda case: case[0].parent.absolute() == folder.resolve())  # the last of equal names counts
    return {strip_suffix(label.name): case_id for label, case_id in cases}


def _describe_unread_folds(root: Path) -> tuple[str, ...]:
    """Return a line about each file beside the manifest that is named like one of folds and is not read."""
    try:
        names = sorted(path.name for path in root.iterdir() if "split" in path.name.lower() and path.is_file())
    except OSError:  # the manifest was read, which is enough here
        return ()
    if FOLDS in names:
        return ()
    why = {".pkl": "it may contain code; write the folds to splits_final.json"}
    other = f"folds are those of {FOLDS}, or of --splits FILE"
    return tuple(
        f"{name} is not read: {why.get(Path(name).suffix.lower(), other)}"
        for name in names
        if Path(name).suffix.lower() in (".pkl", ".json", ".csv", ".yaml", ".yml", ".txt")
    )


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
    problems = [
        f"case {case.id} lists several labels, of which {path} is no DICOM SEG object or structure set"
        for case in cases
        for path in case.label_files
        if len(case.label_files) > 1 and path.is_file() and not is_structure_file(path)
    ]
    if problems:
        remedy = "list one label map for each case"
        raise problems_found(problems, where=root / MANIFEST, remedy=remedy, kind=ManifestError)
    return tuple(
        replace(case, structures=replace(case.structures or LabelStructures(image=case.images[0]), names=names))
        if case.structures is not None or (case.label is not None and is_structure_file(case.label))
        else case
        for case in cases
    )


def _channels(manifest: Manifest, problems: list[str]) -> tuple[str, ...]:
    field: Literal["modality", "channel_names"] = (
        "modality" if isinstance(manifest, DecathlonManifest) else "channel_names"
    )
    declared: dict[str, str] = getattr(manifest, field)
    if sorted(declared) != sorted(map(str, range(len(declared)))):
        problems.append(f"{field} must number the channels 0, 1, ...; it has {', '.join(declared)}")
        return tuple(declared.values())
    if unnamed := [number for number, name in declared.items() if not name.strip()]:
        problems.append(f"{field}: channel {', '.join(unnamed)} has no name")
    return tuple(declared[str(c)] for c in range(len(declared)))
