"""Labels in DICOM: segmentation objects and structure sets, whose elements and items change anywhere in their tree."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from decathlete.core.labels import LabelSet
from decathlete.inference.output.dicom import write_dicom_result
from decathlete.inference.output.provenance import ModelUse, RecordedSettings
from dicom_support import uid, write_series
from robustness.byte_mutations import BYTE_MUTATIONS, near_start
from robustness.formats import FileMutation, Files, Format, byte_mutations, on_file
from robustness.formats.models import read_folder
from robustness.phantom import make_phantom

LABEL, SERIES = "mutant/label.dcm", "mutant/image"
CLASSES = ("ball", "cube")
_NUMBERS = (0, 1, -1, 2, 7, 255, 65535)
_DECIMALS = ("", "0", "-1", "nan", "inf", "1e400", "1e38", "1e-38", "x", "123456789", "0.5")
_MOMENTS = {"DA": "20200101", "TM": "101010", "DT": "20200101101010"}
_TEXTS = ("", "ball", "X" * 200, "\x1b[31m", "1.2.3", "BINARY", "FRACTIONAL", "POINT", "CLOSED_PLANAR", "*")


def _make(kind: Any) -> Files:
    image, label = make_phantom()
    voxels_ZYX, label_ZYX = image.transpose(2, 1, 0), label.transpose(2, 1, 0)
    use = ModelUse(digest="0" * 64, dataset="T", dims=3, weights="final", engine="torch", precision="fp32")
    settings = RecordedSettings(models=(use,), tta=False, overlap=0.5, blend="gaussian")
    manifest = {
        "name": "T",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "ball", "2": "cube"},
        "numTraining": 1,
        "training": [{"image": "image", "label": "label.dcm"}],
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = write_series(folder / SERIES, voxels_ZYX)
        labels = LabelSet.from_names(list(CLASSES))
        write_dicom_result(folder / LABEL, kind, label_ZYX, labels=labels, source=source, settings=settings)
        (folder / LABEL).write_bytes(_repeatable((folder / LABEL).read_bytes(), known=_identifiers(source)))
        (folder / "mutant/dataset.json").write_text(json.dumps(manifest))
        return read_folder(folder / "mutant", "mutant")


def _identifiers(source: Path) -> set[str]:
    datasets = (pydicom.dcmread(path) for path in sorted(source.iterdir()))
    return {str(element.value) for dataset in datasets for _, element in _places(dataset) if element.VR == "UI"}


def _repeatable(data: bytes, *, known: set[str]) -> bytes:
    """Replace dates, times and identifiers that were made just now, so that equal seeds are equal inputs."""
    dataset = pydicom.dcmread(BytesIO(data))
    made: dict[str, str] = {}
    for _, element in [*_places(dataset), *_places(dataset.file_meta)]:
        if element.VR in _MOMENTS:
            element.value = _MOMENTS[element.VR]
        elif element.VR == "UI" and not str(element.value).startswith("1.2.840.10008.") and element.value not in known:
            element.value = made.setdefault(str(element.value), uid("made", len(made)))
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _segmentation() -> Files:
    return _make("dicom-seg")


def _structure_set() -> Files:
    return _make("rtstruct")


def _places(dataset: Dataset) -> Iterator[tuple[Dataset, Any]]:
    """Yield all elements with their parents, those of nested sequences, too."""
    for element in dataset:
        yield dataset, element
        if element.VR == "SQ":
            for item in element.value:
                yield from _places(item)


def change_tree(data: bytes, random: Random) -> bytes:
    """Remove, replace, repeat or shorten one to three elements anywhere in the tree."""
    dataset = pydicom.dcmread(BytesIO(data))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        parent, element = random.choice(list(_places(dataset)))
        _change(parent, element, random)
    with pydicom.config.disable_value_validation():
        stream = BytesIO()
        try:
            dataset.save_as(stream, enforce_file_format=False)
        except Exception:  # the writer cannot express it
            return data[: len(data) // 2]
    return stream.getvalue()


def _change(parent: Dataset, element: Any, random: Random) -> None:
    if random.random() < 0.25:
        del parent[element.tag]
    elif element.VR == "SQ":
        items = list(element.value)
        element.value = random.choice((items[:-1], items * 2, items[::-1], [Dataset()], []))
    else:
        element._value = _another(element, random)


def _another(element: Any, random: Random) -> Any:
    """Return another value; the element does not validate it."""
    if element.VR in ("US", "UL", "SS", "SL"):
        return random.choice([n for n in _NUMBERS if n >= 0])
    if element.VR in ("OB", "OW"):
        value = bytes(element.value)
        return random.choice((b"", value[: len(value) // 4 * 2], value * 2, b"\xff" * len(value)))
    if element.VR in ("DS", "IS"):
        parts = [str(v) for v in element.value] if element.VM > 1 else [str(element.value)]
        at = random.randrange(len(parts))
        changed = [*parts[:at], random.choice(_DECIMALS), *parts[at + 1 :]]
        return "\\".join(random.choice((changed, parts[:-1], parts * 2, changed)))
    return random.choice(_TEXTS)


def change_contours(data: bytes, random: Random) -> bytes:
    """Move, cut, flatten or spoil the points of one contour, or of all."""
    dataset = pydicom.dcmread(BytesIO(data))
    contours = [c for roi in dataset.ROIContourSequence for c in roi.ContourSequence]
    choice, axis = random.randrange(7), random.randrange(3)
    for contour in contours if random.random() < 0.4 else [random.choice(contours)]:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        if choice == 0:
            points[:, axis] += random.choice((0.4, 1.0, 50.0, -1e6, 1e30))
        elif choice == 1:
            points[random.randrange(len(points)), axis] = random.choice((1e6, -1e6, 1e15))
        elif choice == 2:
            points[:, axis] = points[0, axis]
        elif choice == 3:
            points = points[: random.choice((0, 1, 2, 3))]
        elif choice == 4:
            points = np.repeat(points, 50, axis=0)
        texts = [f"{v:.10g}" for v in points.ravel()]
        if choice == 5:
            texts = texts[:-1]
        elif choice == 6:
            texts[random.randrange(len(texts))] = random.choice(("nan", "inf", "", "x"))
        contour["ContourData"]._value = "\\".join(texts)
    with pydicom.config.disable_value_validation():
        stream = BytesIO()
        dataset.save_as(stream, enforce_file_format=False)
    return stream.getvalue()


def exchange_image(files: Files, random: Random) -> Files:
    """Lose slices of the image that the object was drawn on, or replace them by another series."""
    slices = sorted(name for name in files if name.startswith(SERIES))
    lost = random.choice((slices[:1], slices[-1:], slices[2:6], slices))
    return {name: content for name, content in files.items() if name not in lost}


def _format(name: str, make: Any, special: dict[str, FileMutation]) -> Format:
    near = {f"{k}_in_header": on_file(LABEL, near_start(BYTE_MUTATIONS[k], 1500)) for k in ("flip_bits", "set_bytes")}
    return Format(
        name=name,
        make=make,
        entry="mutant",
        mutations={
            **byte_mutations(LABEL),
            **near,
            "tree": on_file(LABEL, change_tree),
            "image": exchange_image,
            **special,
        },
        actions=("read_structures", "check_folder", "convert_folder"),
        weight=0.6,
    )


FORMATS = (
    _format("dicom_seg", _segmentation, {}),
    _format("rtstruct", _structure_set, {"contours": on_file(LABEL, change_contours)}),
)
