"""The kind of file that a prediction is written as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.choices import OutputFormat
from decathlete.core.geometry import Geometry
from decathlete.core.labels import LabelSet
from decathlete.core.registry import ComponentSettings
from decathlete.core.structure_codes import StructureCode
from decathlete.errors import OptionError
from decathlete.inference.output.dicom import DicomOptions, require_dicom_packages, write_dicom_result
from decathlete.inference.output.provenance import RecordedSettings
from decathlete.io.folder_tree import is_slice
from decathlete.io.format_lookup import DEFAULT_SUFFIX, find_format
from decathlete.io.format_settings import changed_settings, check_effect, format_settings
from decathlete.io.images import output_suffix, write_label

_SUFFIXES = {"nifti": DEFAULT_SUFFIX, "dicom-seg": ".seg.dcm", "rtstruct": ".rtstruct.dcm"}


@dataclass(frozen=True, kw_only=True)
class OutputKind:
    """How label maps are written, and settings of the formats of files.

    Attributes:
        format: ``None``: the input's own format, and NIfTI for DICOM.
        dicom: how DICOM objects are written.
        image_formats: settings of the image formats that images are read and label maps are written in, by the name of
            the format, e.g. ``{"nifti": {"compression_level": 9}}``.

    Raises:
        OptionError: settings that an image format does not have, or does not allow.
    """

    format: OutputFormat | None = None
    dicom: DicomOptions = DicomOptions()
    image_formats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        format_settings(self.image_formats)  # before any work

    @property
    def settings_of_formats(self) -> tuple[ComponentSettings, ...]:
        """The validated settings of image formats."""
        return format_settings(self.image_formats)

    def suffix(self, image: Path) -> str:
        """Return the suffix of the label map of an image."""
        return output_suffix(image) if self.format is None else _SUFFIXES[self.format]

    def recorded(self, settings: RecordedSettings) -> RecordedSettings:
        """Return the settings with what decides the content of the files, beside the label map."""
        changed = changed_settings(self.settings_of_formats)
        if changed:
            settings = settings.revised(image_formats=changed)
        if self.format is None or self.format == "nifti":
            return settings
        return settings.revised(output=self.dicom.as_text(self.format))

    def check(self, inputs: Mapping[str, Sequence[Path]]) -> None:
        """Check before any work that the inputs can be written as this kind.

        Raises:
            OptionError: an input is not DICOM.
            MissingPackageError: a package is missing.
        """
        if self.format is None or self.format == "nifti":
            return
        require_dicom_packages(self.format)
        for paths in inputs.values():
            if not _is_dicom(paths[0]):
                raise OptionError(
                    f"--format {self.format} refers to the slices of a DICOM series, and this image is none",
                    where=paths[0],
                    remedy="predict DICOM series, or use --format nifti",
                    code="E-OPTION-CONFLICT",
                )

    def check_effect(self, inputs: Mapping[str, Sequence[Path]], *, are_prepared: bool = False) -> None:
        """Check that the settings of image formats are those of files that are read or written.

        Args:
            are_prepared: the inputs are only the names of the files that the cases were prepared from.

        Raises:
            OptionError: a setting has no effect.
        """
        written = (Path(f"{case_id}{self.suffix(paths[0])}") for case_id, paths in inputs.items())
        read = () if are_prepared else (path for paths in inputs.values() for path in paths)
        check_effect(self.settings_of_formats, read=read, written=written)

    def write(
        self,
        path: Path,
        label_ZYX: NDArray[np.integer[Any]],
        geometry: Geometry,
        *,
        labels: LabelSet,
        source: Path,
        settings: RecordedSettings,
        codes: Mapping[str, StructureCode] | None = None,
    ) -> None:
        """Write a label map.

        Args:
            source: the image, or its first channel.
            codes: of the structures in DICOM objects, from the model.

        Raises:
            OutputError: the file cannot be written, or no DICOM object can refer to the image.
        """
        if self.format is None or self.format == "nifti":
            write_label(path, label_ZYX, geometry, settings=self.settings_of_formats)
            return
        write = partial(write_dicom_result, labels=labels, source=source, settings=settings)
        write(path, self.format, label_ZYX, options=self.dicom, codes=codes)


def _is_dicom(path: Path) -> bool:
    found = find_format(path)
    return found is not None and found.reads_folders and (path.is_dir() or is_slice(path))
