"""DICOM SEG objects, by highdicom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.lazy_import import lazy_import
from decathlete.core.structure_codes import DicomCode
from decathlete.errors import OutputError
from decathlete.inference.output.dicom.codes import Description
from decathlete.inference.output.dicom.source import SourceSeries, reference_to
from decathlete.inference.output.provenance import NOTICE
from decathlete.version import __version__

if TYPE_CHECKING:
    from decathlete.inference.output.dicom.result import Segmented

hd = lazy_import("highdicom")
pydicom = lazy_import("pydicom")

SERIES_NUMBER = 900
_MAX_LO = 64


def make_object(segmented: Segmented) -> Any:
    """Return a SEG dataset with a segment for each structure, numbered from 1.

    Raises:
        OutputError: the structures overlap, and a label map cannot represent them.
    """
    is_binary = segmented.options.segmentation_type == "binary"
    voxels = _pixel_array(segmented, is_binary=is_binary)
    is_empty = not voxels.any()
    described = _descriptions(segmented)
    sources: Sequence[Any] = segmented.source.datasets
    if is_empty and not segmented.source.is_multi_frame:  # one frame for each segment: it must have some
        voxels, sources = voxels[:1], sources[:1]
    segmentation = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=voxels,
        segmentation_type=hd.seg.SegmentationTypeValues[segmented.options.segmentation_type.upper()],
        segment_descriptions=described,
        series_instance_uid=segmented.uid("series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=segmented.uid("instance"),
        instance_number=1,
        manufacturer="Decathlete",
        manufacturer_model_name="Decathlete",
        software_versions=__version__,
        device_serial_number=segmented.digests[0][:_MAX_LO],
        series_description=f"Decathlete: {segmented.model_names}"[:_MAX_LO],
        content_label="SEGMENTATION",
        content_description=_content_description(is_empty=is_empty),
        content_creator_name="Decathlete",
        omit_empty_frames=not is_empty,  # an object needs a frame
        transfer_syntax_uid=_transfer_syntax(is_binary=is_binary),
    )
    _complete(segmentation, segmented)
    return segmentation


def _content_description(*, is_empty: bool) -> str:
    from decathlete.inference.output.dicom.result import NOTHING_FOUND

    return f"{f'{NOTHING_FOUND}. ' if is_empty else ''}{NOTICE}"[:_MAX_LO]


def _transfer_syntax(*, is_binary: bool) -> str:
    return str(pydicom.uid.ExplicitVRLittleEndian if is_binary else pydicom.uid.RLELossless)


def _pixel_array(segmented: Segmented, *, is_binary: bool) -> NDArray[np.uint8]:
    """Return segment numbers, or one mask for each segment (last axis) where structures overlap; in file order."""
    label_ZYX, structures = segmented.label_ZYX, segmented.labels.structures
    order = np.argsort(segmented.source.frames) if segmented.source.is_multi_frame else slice(None)
    values = [value for structure in structures for value in structure.values]
    if len(set(values)) == len(values):
        numbers = np.zeros(label_ZYX.shape, np.uint8)
        for number, structure in enumerate(structures, start=1):
            numbers[np.isin(label_ZYX, structure.values)] = number
        return numbers[order]
    if not is_binary:
        raise OutputError(
            "regions that overlap cannot be a LABELMAP segmentation, which has one number for each voxel",
            where=segmented.source.path,
            remedy="use --segmentation-type binary",
            code="E-OUTPUT-DICOM",
        )
    masks = [segmented.mask_ZYX(index) for index in range(len(structures))]
    return np.stack(masks, axis=-1).astype(np.uint8)[order]


def _descriptions(segmented: Segmented) -> list[Any]:
    algorithm = hd.AlgorithmIdentificationSequence(
        name="Decathlete",
        version=__version__,
        family=pydicom.sr.codedict.codes.DCM.ArtificialIntelligence,
        source="Decathlete",
        parameters={"model": segmented.model_names, "digest": " ".join(segmented.digests)},
    )
    return [
        _description(number, structure, algorithm, segmented.uid(f"segment {number}"))
        for number, structure in enumerate(segmented.structures, start=1)
    ]


def _description(number: int, structure: Description, algorithm: Any, uid: str) -> Any:
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=structure.name[:_MAX_LO],
        segmented_property_category=_concept(structure.category),
        segmented_property_type=hd.sr.CodedConcept(structure.code.code, structure.code.scheme, structure.code.meaning),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=uid,
        tracking_id=structure.name[:_MAX_LO],
        display_color=hd.color.CIELabColor.from_rgb(*structure.color),
    )
    if structure.code.modifier is not None:
        of_type = description.SegmentedPropertyTypeCodeSequence[0]
        of_type.SegmentedPropertyTypeModifierCodeSequence = [_concept(structure.code.modifier)]
    return description


def _concept(code: DicomCode) -> Any:
    return hd.sr.CodedConcept(code.code, code.scheme, code.meaning)


def _complete(segmentation: Any, segmented: Segmented) -> None:
    """Refer to every slice of the series, also to those without a voxel, and store names as Unicode."""
    segmentation.SpecificCharacterSet = "ISO_IR 192"
    segmentation.ReferencedSeriesSequence = [_referenced_series(segmented.source)]


def _referenced_series(source: SourceSeries) -> Any:
    series = pydicom.Dataset()
    series.SeriesInstanceUID = source.datasets[0].SeriesInstanceUID
    series.ReferencedInstanceSequence = [reference_to(dataset) for dataset in source.datasets]
    return series
