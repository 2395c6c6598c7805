"""RT structure sets: the outline of each structure on each slice, as closed planar contours.

A contour runs halfway between voxels inside and outside, so that exactly the centres of the voxels inside lie within
it. Where contours of one structure lie within one another on a slice, the inner one is a hole.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.lazy_import import lazy_import
from decathlete.core.structure_codes import DicomCode, StructureCode
from decathlete.inference.output.dicom.codes import Description
from decathlete.inference.output.dicom.source import SourceSeries, copy_patient_and_study, reference_to
from decathlete.inference.output.provenance import NOTICE
from decathlete.version import __version__

if TYPE_CHECKING:
    from decathlete.inference.output.dicom.result import Segmented

contourpy = lazy_import("contourpy")
pydicom = lazy_import("pydicom")

SERIES_NUMBER = 901
_STUDY_MANAGEMENT = "1.2.840.10008.3.1.2.3.1"
_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_MAX_LO = 64


def make_object(segmented: Segmented) -> Any:
    """Return a dataset with a region of interest for each structure, numbered from 1."""
    structure_set = _header(segmented)
    structure_set.ReferencedFrameOfReferenceSequence = [_frame_of_reference(segmented.source)]
    regions, contours, observations, found = [], [], [], False
    for index, structure in enumerate(segmented.structures):
        drawn = list(_contours(segmented.source, segmented.mask_ZYX(index)))
        found = found or bool(drawn)
        regions.append(_region(index + 1, structure, segmented.source, is_empty=not drawn))
        contours.append(_contour_item(index + 1, structure, drawn))
        observations.append(_observation(index + 1, structure))
    structure_set.StructureSetROISequence = regions
    structure_set.ROIContourSequence = contours
    structure_set.RTROIObservationsSequence = observations
    structure_set.StructureSetDescription = _description(segmented, found=found)
    return structure_set


def _description(segmented: Segmented, *, found: bool) -> str:
    from decathlete.inference.output.dicom.result import NOTHING_FOUND

    models = f"Model: {segmented.model_names}. Digest: {' '.join(segmented.digests)}. {NOTICE}"
    return models if found else f"{NOTHING_FOUND}. {models}"


def _header(segmented: Segmented) -> Any:
    first = segmented.source.datasets[0]
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = _STRUCTURE_SET, segmented.uid("instance")
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    made = pydicom.dataset.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID, made.SOPInstanceUID = _STRUCTURE_SET, meta.MediaStorageSOPInstanceUID
    copy_patient_and_study(first, made)
    now = datetime.now()
    made.Modality, made.SeriesInstanceUID = "RTSTRUCT", segmented.uid("series")
    made.SeriesNumber, made.InstanceNumber, made.OperatorsName = SERIES_NUMBER, 1, ""
    made.SeriesDescription = f"Decathlete: {segmented.model_names}"[:_MAX_LO]
    made.Manufacturer, made.ManufacturerModelName, made.SoftwareVersions = "Decathlete", "Decathlete", __version__
    made.DeviceSerialNumber = segmented.digests[0][:_MAX_LO]
    made.StructureSetLabel, made.ApprovalStatus = "Decathlete", "UNAPPROVED"
    made.StructureSetDate, made.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    made.FrameOfReferenceUID = first.FrameOfReferenceUID
    made.PositionReferenceIndicator = first.get("PositionReferenceIndicator") or ""
    return made


def _frame_of_reference(source: SourceSeries) -> Any:
    series, study, frame = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    series.SeriesInstanceUID = source.datasets[0].SeriesInstanceUID
    series.ContourImageSequence = [reference_to(dataset) for dataset in source.datasets]
    study.ReferencedSOPClassUID = _STUDY_MANAGEMENT
    study.ReferencedSOPInstanceUID = source.datasets[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = source.datasets[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _region(number: int, structure: Description, source: SourceSeries, *, is_empty: bool) -> Any:
    region = pydicom.Dataset()
    region.ROINumber, region.ROIName = number, structure.name[:_MAX_LO]
    region.ReferencedFrameOfReferenceUID = source.datasets[0].FrameOfReferenceUID
    region.ROIGenerationAlgorithm = "AUTOMATIC"
    if is_empty:
        region.ROIDescription = "Not found in this image"
    return region


def _contour_item(number: int, structure: Description, drawn: list[Any]) -> Any:
    item = pydicom.Dataset()
    item.ROIDisplayColor, item.ReferencedROINumber = list(structure.color), number
    if drawn:
        item.ContourSequence = drawn
    return item


def _observation(number: int, structure: Description) -> Any:
    observation, kind = pydicom.Dataset(), _concept(structure.code)
    if structure.code.modifier is not None:
        kind.SegmentedPropertyTypeModifierCodeSequence = [_concept(structure.code.modifier)]
    observation.ObservationNumber, observation.ReferencedROINumber = number, number
    observation.SegmentedPropertyCategoryCodeSequence = [_concept(structure.category)]
    observation.RTROIIdentificationCodeSequence = [kind]
    observation.RTROIInterpretedType, observation.ROIInterpreter = "", ""
    return observation


def _concept(code: DicomCode | StructureCode) -> Any:
    concept = pydicom.Dataset()
    concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = code.code, code.scheme, code.meaning
    return concept


def _contours(source: SourceSeries, mask_ZYX: NDArray[np.bool_]) -> Iterator[Any]:
    row_step = np.array(source.cosines[:3]) * source.spacing_YX[1]
    column_step = np.array(source.cosines[3:]) * source.spacing_YX[0]
    for place in np.flatnonzero(mask_ZYX.any(axis=(1, 2))):
        for outline_XY in outlines(mask_ZYX[place]):
            points = np.array(source.origins[place]) + outline_XY[:, :1] * row_step + outline_XY[:, 1:] * column_step
            yield _contour(source, int(place), points)


def outlines(mask_YX: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Return closed outlines halfway between voxels inside and outside: x and y of each point, in voxels."""
    padded = np.pad(mask_YX, 1).astype(np.float32)
    lines = contourpy.contour_generator(z=padded).lines(0.5)
    return [np.asarray(line[:-1] - 1, dtype=np.float64) for line in lines]


def _contour(source: SourceSeries, place: int, points: NDArray[np.float64]) -> Any:
    contour = pydicom.Dataset()
    image = reference_to(source.dataset_of(place))
    if source.is_multi_frame:
        image.ReferencedFrameNumber = source.frames[place] + 1
    contour.ContourImageSequence = [image]
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
    contour.ContourData = [f"{value:.4f}" for value in points.ravel()]
    return contour
