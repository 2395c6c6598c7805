"""Options for the kind of file of a prediction, and for DICOM series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decathlete.core.choices import OutputFormat, SegmentationType
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.inference.output.output_kind import OutputKind

DICOM = "DICOM"

DicomCodes = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=DICOM,
        show_default="those of the model, or SNOMED CT by name",
        help="Codes and colours of structures in DICOM objects: a dataset.json with the field dicom_codes.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class OutputArguments:
    """Options of the files that are written, and of the series that are read."""

    format: Annotated[
        OutputFormat | None,
        typer.Option(
            rich_help_panel=DICOM,
            show_default="that of the image; NIfTI for DICOM",
            help="File format of the label maps. DICOM objects (extra [dicom]) refer to the slices of the series.",
        ),
    ] = None
    series: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[CHANNEL=]RULE",
            rich_help_panel=DICOM,
            show_default="by the names of the channels",
            help="Series to segment: modality:CT,description:*thorax*,orientation:axial,slices:20 (at least). Can "
            "be repeated, for models of several channels: PET=modality:PT.",
        ),
    ] = None
    segmentation_type: Annotated[
        SegmentationType | None,
        typer.Option(
            rich_help_panel=DICOM,
            show_default="binary",
            help="Type of DICOM segmentations: a bit mask for each structure (read by every viewer), or one label map "
            "(smaller).",
        ),
    ] = None
    dicom_codes: DicomCodes = None

    def to_output_kind(self, image_formats: Mapping[str, Any]) -> OutputKind:
        """Return the options as :class:`OutputKind`.

        Args:
            image_formats: settings of image formats by the format's name.

        Raises:
            OptionError: an option has no effect with this format, or the codes cannot be read.
        """
        from decathlete.inference.output.dicom import DicomOptions, read_structure_codes
        from decathlete.inference.output.output_kind import OutputKind

        if self.segmentation_type is not None and self.format != "dicom-seg":
            raise _without_effect("--segmentation-type", "dicom-seg")
        if self.dicom_codes is not None and self.format not in ("dicom-seg", "rtstruct"):
            raise _without_effect("--dicom-codes", "dicom-seg or rtstruct")
        options = DicomOptions(
            segmentation_type=self.segmentation_type or "binary",
            codes=read_structure_codes(self.dicom_codes) if self.dicom_codes is not None else {},
        )
        return OutputKind(format=self.format, dicom=options, image_formats=image_formats)


def _without_effect(option: str, formats: str) -> OptionError:
    return OptionError(
        f"{option} has no effect without --format {formats}",
        remedy=f"leave it out, or add --format {formats.split()[0]}",
        code="E-OPTION-CONFLICT",
    )
