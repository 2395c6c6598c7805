"""Segmentations as DICOM objects: SEG and RT structure sets that refer to the slices of their series.

:func:`write_dicom_result` is what the command line, the service and the DICOM node use. Packages of the extra
``[dicom]`` are imported when an object is written.
"""

from __future__ import annotations

from decathlete.core.structure_codes import StructureCode
from decathlete.inference.output.dicom.codes import read_structure_codes
from decathlete.inference.output.dicom.result import DicomOptions, require_dicom_packages, write_dicom_result

__all__ = [
    "DicomOptions",
    "StructureCode",
    "read_structure_codes",
    "require_dicom_packages",
    "write_dicom_result",
]
