"""DICOM series for tests: any orientation, one file per slice or an enhanced file with all frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from decathlete.io.dicom_structures import list_structures, read_structure_masks
from decathlete.io.images import read_grid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
FLIPPED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)
ORIENTATIONS = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL, "flipped": FLIPPED, "oblique": OBLIQUE}
PATIENT = "Müller^Jörg"


def uid(*names: object) -> str:
    """Return the identifier of a name, always the same."""
    return str(generate_uid(entropy_srcs=["decathlete", *map(str, names)]))


def write_series(
    folder: Path,
    array_ZYX: NDArray[Any],
    *,
    orientation: tuple[float, ...] = AXIAL,
    step: float = 2.0,
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
    series: str = "series",
    study: str = "study",
    modality: str = "CT",
    **attributes: Any,
) -> Path:
    """Write one file per slice; a negative ``step`` stacks them against their normal, ``shift`` tilts the gantry."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(orientation[:3], orientation[3:])
    for place, plane_YX in enumerate(array_ZYX):
        position = np.array([-30.0, 20.0, 5.0]) + place * (step * normal + np.array(shift))
        slice_ = _new(CTImageStorage, uid(series, place), series=series, study=study, modality=modality)
        slice_.ImagePositionPatient = [f"{v:.8g}" for v in position]
        slice_.ImageOrientationPatient = [f"{v:.8g}" for v in orientation]
        slice_.PixelSpacing, slice_.SliceThickness = [0.9, 1.1], abs(step)
        slice_.InstanceNumber, slice_.RescaleSlope, slice_.RescaleIntercept = place + 1, 1, 0
        slice_.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        slice_.KVP, slice_.AcquisitionNumber = "120", 1
        _set_pixels(slice_, plane_YX[None])
        for name, value in attributes.items():
            setattr(slice_, name, value)
        name = f"{(place * 7) % 97:02d}_{series}.dcm"  # the order of names is not that of positions
        pydicom.dcmwrite(folder / name, slice_, enforce_file_format=True)
    return folder


def write_enhanced(path: Path, array_ZYX: NDArray[Any], *, orientation: tuple[float, ...] = AXIAL) -> Path:
    """Write an enhanced CT whose frames are stored in a mixed order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = _new(EnhancedCTImageStorage, uid(path.name), series=path.name, study="study", modality="CT")
    made.NumberOfFrames, made.InstanceNumber, made.ContentLabel = len(array_ZYX), 1, "TEST"
    made.ImageType, made.ContentDate, made.ContentTime = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "20200101", "101010"
    order = [(place * 3) % len(array_ZYX) for place in range(len(array_ZYX))]
    assert sorted(order) == list(range(len(array_ZYX)))
    normal = np.cross(orientation[:3], orientation[3:])
    shared, measures, direction = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness, measures.SpacingBetweenSlices = [0.9, 1.1], 2.0, 2.0
    direction.ImageOrientationPatient = [f"{v:.8g}" for v in orientation]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [direction]
    made.SharedFunctionalGroupsSequence = [shared]
    made.PerFrameFunctionalGroupsSequence = []
    for place in order:
        frame, position, content = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [f"{v:.8g}" for v in np.array([1.0, 2.0, 3.0]) + place * 2.0 * normal]
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", place + 1, [1, place + 1]
        frame.PlanePositionSequence, frame.FrameContentSequence = [position], [content]
        made.PerFrameFunctionalGroupsSequence.append(frame)
    _set_pixels(made, array_ZYX[order])
    pydicom.dcmwrite(path, made, enforce_file_format=True)
    return path


def paint_structures(path: Path, source: Path) -> NDArray[Any]:
    """The label map of a SEG object or RT structure set on the grid of its series: each structure has its number."""
    _, geometry = read_grid(source)
    painted_ZYX = np.zeros(geometry.shape_ZYX, int)
    for mask in read_structure_masks(path, geometry, frozenset(s.number for s in list_structures(path))):
        painted_ZYX[mask.indices_ZYX] = mask.number
    return painted_ZYX


def _new(sop_class: str, instance: str, *, series: str, study: str, modality: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SpecificCharacterSet = "ISO_IR 100"
    made.SOPClassUID, made.SOPInstanceUID, made.Modality = sop_class, instance, modality
    made.PatientName, made.PatientID, made.PatientSex, made.PatientBirthDate = PATIENT, "P1", "O", "19700101"
    made.StudyInstanceUID, made.SeriesInstanceUID = uid("study", study), uid("series", series)
    made.FrameOfReferenceUID, made.StudyDate, made.StudyTime, made.StudyID = uid("for", study), "20200101", "10", "7"
    made.AccessionNumber, made.ReferringPhysicianName, made.SeriesNumber = "A1", "", 3
    made.Manufacturer, made.PositionReferenceIndicator = "Maker", ""
    return made


def _set_pixels(made: Dataset, frames: NDArray[Any]) -> None:
    made.Rows, made.Columns = frames.shape[1:]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 1
    made.PixelData = np.ascontiguousarray(frames, "<i2").tobytes()
