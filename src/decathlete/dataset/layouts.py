"""Make the content of ``dataset.json`` in the layouts of the Decathlon and of nnU-Net v2; ``manifest`` reads both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from decathlete.core.labels import LabelSet
from decathlete.core.structure_codes import FIELD, StructureCode
from decathlete.dataset.declared_labels import name_values
from decathlete.io.format_lookup import DEFAULT_SUFFIX


@dataclass(frozen=True, kw_only=True)
class ManifestContent:
    """The content of a manifest in any layout.

    Attributes:
        training, test: case ids, from which the names of the files follow.
        suffix: suffix of all files, e.g. ``.nii.gz``.
        groups: case id -> patient.
        annotated: case id -> annotated classes, of cases in which not all classes were annotated.
        structure_codes: class or region -> its code in DICOM objects.
        texts: description, licence and similar fields, copied unchanged.
    """

    name: str
    channels: Sequence[str]
    labels: LabelSet
    training: Sequence[str]
    test: Sequence[str] = ()
    suffix: str = DEFAULT_SUFFIX
    groups: Mapping[str, str] = field(default_factory=dict)
    annotated: Mapping[str, Sequence[str]] = field(default_factory=dict)
    structure_codes: Mapping[str, StructureCode] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


def decathlon_manifest(content: ManifestContent) -> dict[str, object]:
    """Make a manifest in the Decathlon's layout, with overlapping regions in an additional field."""
    labels, suffix = content.labels, content.suffix
    names = {str(c.value): c.name for c in labels.classes}
    return {
        "name": content.name,
        **content.texts,
        "tensorImageSize": "4D" if len(content.channels) > 1 else "3D",
        "modality": _numbered(content.channels),
        "labels": names if labels.ignore is None else names | {str(labels.ignore): "ignore"},
        **({"regions": _regions(labels), "regions_class_order": list(labels.region_order)} if labels.regions else {}),
        **_codes(content),
        **_of_cases(content),
        "numTraining": len(content.training),
        "numTest": len(content.test),
        "training": [
            {"image": f"./imagesTr/{i}{suffix}", "label": f"./labelsTr/{i}{suffix}"} for i in content.training
        ],
        "test": [f"./imagesTs/{i}{suffix}" for i in content.test],
    }


def nnunet_manifest(content: ManifestContent) -> dict[str, object]:
    """Make a manifest in the layout of nnU-Net v2, which finds cases by the names of their files."""
    labels = content.labels
    classes: dict[str, object] = {c.name: c.value for c in labels.foreground}
    declared = {labels.classes[0].name: 0} | (_regions(labels) if labels.regions else classes)
    return {
        "name": content.name,
        **content.texts,
        "channel_names": _numbered(content.channels),
        "labels": declared if labels.ignore is None else declared | {"ignore": labels.ignore},
        **({"regions_class_order": list(labels.region_order)} if labels.regions else {}),
        **_codes(content),
        **_of_cases(replace(content, annotated=_annotated_as_read(content))),
        "numTraining": len(content.training),
        "file_ending": content.suffix,
    }


def _annotated_as_read(content: ManifestContent) -> dict[str, list[str]]:
    """Return the annotated classes by the names that reading gives them: with regions, nnU-Net declares no classes."""
    value_of = {c.name: c.value for c in content.labels.foreground}
    name_of = name_values({structure.name: structure.values for structure in content.labels.structures})
    return {case_id: [name_of[value_of[name]] for name in names] for case_id, names in content.annotated.items()}


def _numbered(channels: Sequence[str]) -> dict[str, str]:
    return {str(c): name for c, name in enumerate(channels)}


def _regions(labels: LabelSet) -> dict[str, object]:
    """Return name -> values; nnU-Net writes a region of one value as a number."""
    return {r.name: list(r.values) if len(r.values) > 1 else r.values[0] for r in labels.regions}


def _codes(content: ManifestContent) -> dict[str, object]:
    codes = content.structure_codes
    return {FIELD: {name: code.model_dump(exclude_none=True) for name, code in codes.items()}} if codes else {}


def _of_cases(content: ManifestContent) -> dict[str, object]:
    """Return what the manifest says of single cases: groups and annotated classes."""
    groups: dict[str, object] = {"groups": dict(content.groups)} if content.groups else {}
    return groups | ({"annotated": {i: list(n) for i, n in content.annotated.items()}} if content.annotated else {})
