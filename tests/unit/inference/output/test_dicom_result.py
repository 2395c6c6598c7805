"""SEG and structure sets come back voxel by voxel on the slices of their series, whatever its orientation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.config import IGNORE

from decathlete.core.labels import LabelClass, LabelSet, Region
from decathlete.core.structure_codes import DicomCode
from decathlete.errors import MissingPackageError, OutputError
from decathlete.inference.output.dicom import DicomOptions, StructureCode, write_dicom_result
from decathlete.inference.output.dicom.result import NOTHING_FOUND
from decathlete.inference.output.provenance import ModelUse, RecordedSettings
from decathlete.io.dicom_structures import list_structures, read_structure_masks, referenced_series
from decathlete.io.images import read_grid, read_image
from dicom_checkers import dciodvfy_errors, dcmqi_voxels, plastimatch_voxels
from dicom_support import ORIENTATIONS, uid, write_enhanced, write_series

DIGEST = "ab" * 32
USE = ModelUse(digest=DIGEST, dataset="Task09_Spleen", dims=3, weights="final", engine="torch", precision="fp32")
SETTINGS = RecordedSettings(models=(USE,), tta=False, overlap=0.5, blend="gaussian")
LABELS = LabelSet(classes=tuple(LabelClass(name=n, value=v) for n, v in [("background", 0), ("liver", 1), ("Q", 4)]))
NESTED = LabelSet(
    classes=tuple(LabelClass(name=n, value=v) for n, v in [("background", 0), ("edema", 1), ("core", 2)]),
    regions=(Region(name="whole tumour", values=(1, 2)), Region(name="core", values=(2,))),
    region_order=(1, 2),
)
UPPER_CYST = StructureCode(
    code="12494005",
    meaning="Cyst",
    category=DicomCode(code="1", scheme="99X", meaning="Finding"),
    modifier=DicomCode(code="2", scheme="99X", meaning="Upper"),
)
SHAPE = (7, 11, 13)
KINDS = ["dicom-seg", "rtstruct"]


def make_label() -> Any:
    """Blobs with a hole, voxels at the edge of the image and ones that touch at a corner; empty slices."""
    label = np.zeros(SHAPE, np.uint8)
    label[1:5, 2:8, 3:10] = 1
    label[2, 4:6, 5:7] = 0  # a hole
    label[2, 4, 5] = 4  # within the hole
    label[3, 0, 0] = label[3, 10, 12] = label[3, 9, 11] = 4
    label[6, 5, 5] = 4
    return label


def write(path: Path, kind: Any, label: Any, source: Path, *, labels: LabelSet = LABELS, **options: Any) -> Any:
    options_ = DicomOptions(**options)
    write_dicom_result(path, kind, label, labels=labels, source=source, settings=SETTINGS, options=options_)
    return pydicom.dcmread(path)


def read_back(path: Path, source: Path) -> dict[str, Any]:
    _, geometry = read_grid(source)
    masks = {s.number: (s.name, np.zeros(geometry.shape_ZYX, bool)) for s in list_structures(path)}
    for mask in read_structure_masks(path, geometry, frozenset(masks)):
        masks[mask.number][1][mask.indices_ZYX] = True
    return dict(masks.values())


def check(path: Path, source: Path, label: Any) -> None:
    found = read_back(path, source)
    assert list(found) == ["liver", "Q"]
    np.testing.assert_array_equal(found["liver"], label == 1)
    np.testing.assert_array_equal(found["Q"], label == 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [2.0, -2.0], ids=["", "reversed"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_comes_back(orientation: str, step: float, kind: str, tmp_path: Path) -> None:
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    source = write_series(tmp_path / "s", voxels, orientation=ORIENTATIONS[orientation], step=step)
    label = make_label()
    stored = read_image(source).array_CZYX[0]
    in_stored_order = label if np.array_equal(stored, voxels) else label[::-1]
    write(tmp_path / "r.dcm", kind, in_stored_order, source)
    check(tmp_path / "r.dcm", source, in_stored_order)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_de_identifier_deleted_or_replaced_is_empty(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deleted = ("PatientID", "PatientName", "AccessionNumber", "StudyID", "StudyTime", "ReferringPhysicianName")
    replaced = {"PatientSex": "U", "PatientBirthDate": "19700000", "StudyDate": "ANON"}
    source = write_series(tmp_path / "s", np.zeros(SHAPE, np.int16))
    for path in source.iterdir():
        slice_ = pydicom.dcmread(path)
        for name in deleted:
            delattr(slice_, name)
        for name, value in replaced.items():
            slice_[name] = pydicom.DataElement(name, slice_[name].VR, value, validation_mode=IGNORE)
        slice_.save_as(path)
    made = write(tmp_path / "r.dcm", kind, make_label(), source)
    assert {str(made[name].value or "") for name in (*deleted, *replaced)} == {""}
    assert all(name in caplog.text for name in replaced)
    check(tmp_path / "r.dcm", source, make_label())


@pytest.mark.filterwarnings("ignore:The value length")
@pytest.mark.parametrize("kind", KINDS)
def test_a_value_that_is_too_long_is_kept_and_named_once(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another value would be another study; pydicom's own message names neither the value nor the file."""
    source = write_series(tmp_path / "s", np.zeros(SHAPE, np.int16), StudyID="STUDY_OF_TOO_MANY")
    caplog.clear()
    write_dicom_result(tmp_path / "r.dcm", kind, make_label(), labels=LABELS, source=source, settings=SETTINGS)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "StudyID of the series has 17 characters" in message
    assert "DICOM allows 16" in message
    assert pydicom.dcmread(tmp_path / "r.dcm").StudyID == "STUDY_OF_TOO_MANY"


@pytest.mark.parametrize("kind", KINDS)
def test_a_tilted_gantry_comes_back(kind: str, tmp_path: Path) -> None:
    source = write_series(tmp_path / "s", np.zeros(SHAPE, np.int16), shift=(0.0, 0.7, 0.0))
    write(tmp_path / "r.dcm", kind, make_label(), source)
    check(tmp_path / "r.dcm", source, make_label())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", ["axial", "oblique"])
def test_frames_of_one_file_come_back(orientation: str, kind: str, tmp_path: Path) -> None:
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    source = write_enhanced(tmp_path / "e.dcm", voxels, orientation=ORIENTATIONS[orientation])
    np.testing.assert_array_equal(read_image(source).array_CZYX[0], voxels)
    written = write(tmp_path / "r.dcm", kind, make_label(), source)
    check(tmp_path / "r.dcm", source, make_label())
    assert str(pydicom.dcmread(source).SOPInstanceUID) in str(written)


def test_a_label_map_object_comes_back(tmp_path: Path) -> None:
    source = write_series(tmp_path / "s", np.zeros(SHAPE, np.int16))
    written = write(tmp_path / "r.dcm", "dicom-seg", make_label(), source, segmentation_type="labelmap")
    assert written.SegmentationType == "LABELMAP"
    check(tmp_path / "r.dcm", source, make_label())


@pytest.mark.parametrize("kind", KINDS)
def test_patient_study_model_and_every_slice_are_named(kind: str, tmp_path: Path) -> None:
    source = write_series(tmp_path / "s", np.zeros(SHAPE, np.int16))
    written = write(tmp_path / "r.dcm", kind, make_label(), source)
    assert (written.PatientName, written.PatientID, written.AccessionNumber) == ("Müller^Jörg", "P1", "A1")
    assert written.StudyInstanceUID == uid("study", "study")
    assert written.SeriesInstanceUID != uid("series", "series")
    assert referenced_series(tmp_path / "r.dcm") == {uid("series", "series")}
    text = str(written)
    assert all(uid("series", k) in text for k in range(SHAPE[0]))  # also the slices without a voxel
    assert DIGEST in text
    assert "10200004" in text
    assert "99DECATHLETE" in text  # Q has none


def test_seg_carries_codes_colours_and_the_algorithm(tmp_path: Path) -> None:
    source = write_series(tmp_path / "s", np.zeros(SHAPE, np.int16))
    codes = {"Q": StructureCode(code="64033007", meaning="Kidney", color=(255, 0, 0))}
    _, segment = write(tmp_path / "r.dcm", "dicom-seg", make_label(), source, codes=codes).SegmentSequence
    kind, algorithm = (
        segment.SegmentedPropertyTypeCodeSequence[0],
        segment.SegmentationAlgorithmIdentificationSequence[0],
    )
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("64033007", "SCT", "Kidney")
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert DIGEST in algorithm.AlgorithmParameters
    lightness, a, b = np.array(segment.RecommendedDisplayCIELabValue) / [655.35, 257, 257] - [0, 128, 128]
    assert (round(lightness), round(a), round(b)) == (53, 80, 67)  # red


def test_structure_sets_carry_codes_with_their_sides_and_categories(tmp_path: Path) -> None:
    source = write_series(tmp_path / "s", np.zeros(SHAPE, np.int16))
    values = {"background": 0, "kidney_left": 1, "kidney_right": 2, "Q": 4}
    labels = LabelSet(classes=tuple(LabelClass(name=n, value=v) for n, v in values.items()))
    made = write(tmp_path / "r.dcm", "rtstruct", make_label(), source, labels=labels, codes={"Q": UPPER_CYST})
    found = []
    for observation in made.RTROIObservationsSequence:
        (kind,), (category,) = (
            observation.RTROIIdentificationCodeSequence,
            observation.SegmentedPropertyCategoryCodeSequence,
        )
        (modifier,) = kind.SegmentedPropertyTypeModifierCodeSequence
        found.append([(c.CodeValue, c.CodingSchemeDesignator, c.CodeMeaning) for c in (category, kind, modifier)])
    anatomy, kidney = ("91723000", "SCT", "Anatomical Structure"), ("64033007", "SCT", "Kidney")
    assert found == [
        [anatomy, kidney, ("7771000", "SCT", "Left")],
        [anatomy, kidney, ("24028007", "SCT", "Right")],
        [("1", "99X", "Finding"), ("12494005", "SCT", "Cyst"), ("2", "99X", "Upper")],
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_segmentation_without_a_voxel_says_so(kind: str, tmp_path: Path) -> None:
    source = write_series(tmp_path / "s", np.zeros(SHAPE, np.int16))
    written = write(tmp_path / "r.dcm", kind, np.zeros(SHAPE, np.uint8), source)
    described = written.ContentDescription if kind == "dicom-seg" else written.StructureSetDescription
    assert described.startswith(NOTHING_FOUND)
    assert not any(mask.any() for mask in read_back(tmp_path / "r.dcm", source).values())
    assert referenced_series(tmp_path / "r.dcm") == {uid("series", "series")}


@pytest.mark.parametrize("kind", KINDS)
def test_overlapping_regions_are_segments_of_their_own(kind: str, tmp_path: Path) -> None:
    source = write_series(tmp_path / "s", np.zeros(SHAPE, np.int16))
    label = np.where(make_label() == 4, 2, make_label())
    write(tmp_path / "r.dcm", kind, label, source, labels=NESTED)
    found = read_back(tmp_path / "r.dcm", source)
    np.testing.assert_array_equal(found["whole tumour"], label > 0)
    np.testing.assert_array_equal(found["core"], label == 2)
    with pytest.raises(OutputError, match=r"overlap.*\n.*binary"):
        write(tmp_path / "no.dcm", "dicom-seg", label, source, labels=NESTED, segmentation_type="labelmap")
    assert not (tmp_path / "no.dcm").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_equal_results_have_equal_identifiers_and_others_do_not(kind: str, tmp_path: Path) -> None:
    source = write_series(tmp_path / "s", np.zeros(SHAPE, np.int16))
    first, again = (write(tmp_path / f"{k}.dcm", kind, make_label(), source) for k in range(2))
    other = write(tmp_path / "o.dcm", kind, np.zeros(SHAPE, np.uint8), source)
    assert first.SOPInstanceUID == again.SOPInstanceUID != other.SOPInstanceUID


def test_a_single_structure_comes_back(tmp_path: Path) -> None:
    """A SEG of one segment names it once for all frames."""
    source = write_series(tmp_path / "s", np.zeros(SHAPE, np.int16))
    label = (make_label() > 0).astype(np.uint8)
    write(tmp_path / "r.dcm", "dicom-seg", label, source, labels=LabelSet.from_names(["liver"]))
    np.testing.assert_array_equal(read_back(tmp_path / "r.dcm", source)["liver"], label > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_series_without_identifiers_is_refused(kind: str, tmp_path: Path) -> None:
    source = write_series(tmp_path / "s", np.zeros(SHAPE, np.int16), SOPInstanceUID="", FrameOfReferenceUID="")
    with pytest.raises(OutputError, match=r"no SOPInstanceUID, FrameOfReferenceUID(.|\n)*--format nifti") as caught:
        write(tmp_path / "r.dcm", kind, make_label(), source)
    assert caught.value.code == "E-OUTPUT-DICOM"
    assert "Müller" not in str(caught.value)


def test_a_missing_extra_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(MissingPackageError, match=r"\[dicom\]"):
        write(tmp_path / "r.dcm", "dicom-seg", make_label(), tmp_path)


def write_any_series(folder: Path, shape: str, orientation: str) -> Path:
    """Write ``slices``, ``reversed`` ones (against their normal), ``tilted`` ones, or ``frames`` of one file."""
    voxels = np.zeros(SHAPE, np.int16)
    if shape == "frames":
        return write_enhanced(folder / "e.dcm", voxels, orientation=ORIENTATIONS[orientation])
    step, shift = -2.0 if shape == "reversed" else 2.0, (0.0, 0.7, 0.0) if shape == "tilted" else (0.0, 0.0, 0.0)
    return write_series(folder / "s", voxels, orientation=ORIENTATIONS[orientation], step=step, shift=shift)


@pytest.mark.full
@pytest.mark.parametrize("empty", [False, True], ids=["", "empty"])
@pytest.mark.parametrize("kind", [*KINDS, "labelmap"])
@pytest.mark.parametrize("shape", ["slices", "reversed", "tilted", "frames"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_dciodvfy_finds_no_error(orientation: str, shape: str, kind: str, empty: bool, tmp_path: Path) -> None:
    source = write_any_series(tmp_path, shape, orientation)
    label = np.zeros(SHAPE, np.uint8) if empty else make_label()
    options: dict[str, Any] = {"segmentation_type": "labelmap"} if kind == "labelmap" else {}
    options["codes"] = {"Q": UPPER_CYST}
    write(tmp_path / "r.dcm", "dicom-seg" if kind == "labelmap" else kind, label, source, **options)
    assert dciodvfy_errors(tmp_path / "r.dcm") == []


@pytest.mark.full
@pytest.mark.parametrize("shape", ["slices", "reversed", "frames"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_dcmqi_reads_the_same_voxels(orientation: str, shape: str, tmp_path: Path) -> None:
    source = write_any_series(tmp_path, shape, orientation)
    write(tmp_path / "r.dcm", "dicom-seg", make_label(), source)
    _, geometry = read_grid(source)
    found = dcmqi_voxels(tmp_path / "r.dcm", tmp_path / "read", (1, 2), geometry)
    for number, value in ((1, 1), (2, 4)):
        np.testing.assert_array_equal(found[number], np.argwhere(make_label() == value))


@pytest.mark.full
@pytest.mark.parametrize("shape", ["slices", "reversed"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_plastimatch_fills_the_same_voxels(orientation: str, shape: str, tmp_path: Path) -> None:
    """Without holes: plastimatch fills these, too."""
    source = write_any_series(tmp_path, shape, orientation)
    label = np.zeros(SHAPE, np.uint8)
    label[1:5, 2:8, 3:10], label[2:4, 1:3, 1:3] = 1, 1
    label[3, 0, 0] = label[3, 9, 11] = label[6, 5, 5] = 4
    write(tmp_path / "r.dcm", "rtstruct", label, source)
    found = plastimatch_voxels(tmp_path / "r.dcm", source, tmp_path / "read")
    for name, value in (("liver", 1), ("Q", 4)):
        np.testing.assert_array_equal(found[name], np.argwhere(label == value))
