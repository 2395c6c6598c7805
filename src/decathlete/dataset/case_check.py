"""Check the files of one case: each can be read, and they fit together and to the manifest."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from decathlete.core.geometry import Triple
from decathlete.core.header_transforms import describe_disagreement
from decathlete.core.schema import Schema
from decathlete.dataset.case_measures import CaseMeasures, measure_case
from decathlete.dataset.check_report import Problem, Severity
from decathlete.dataset.duplicates import CaseDigests, digest_case
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.errors import DecathleteError
from decathlete.io.dicom_series import series_uid
from decathlete.io.dicom_structures import referenced_series
from decathlete.io.format_lookup import is_picture
from decathlete.io.format_settings import FormatSettings
from decathlete.io.images import Image, LabelMap, is_grey, match_channels, read_image, read_label
from decathlete.io.volumes import MAX_CLASSES, SPLIT_4D, describe_misplaced_channels

GRID_TOLERANCE_MM = 1e-2
"""Maximum allowed difference of spacing and origin between files of one case, mm."""

DIRECTION_TOLERANCE = 1e-3
"""Maximum allowed difference of a direction cosine between files of one case."""

DECLARE_COLOURS = (
    "declare three channels: --channels red,green,blue for plain folders (with --overwrite if they are described "
    "already), or three names in dataset.json; or save this image as grey"
)

Read = TypeVar("Read", Image, LabelMap, covariant=True)


class Reader(Protocol[Read]):
    """Reads a file, see :mod:`decathlete.io.images`."""

    def __call__(self, path: Path, *, spacing: Triple | None, formats: FormatSettings) -> Read: ...


class CaseFindings(Schema):
    """The problems and the content of one case's files."""

    problems: tuple[Problem, ...]
    digests: CaseDigests = CaseDigests()
    classes: tuple[int, ...] = ()
    measures: CaseMeasures | None = None
    is_grey_rgb: bool = False


def check_case(spec: DatasetSpec, case: Case) -> CaseFindings:
    """Read the files of one case once and list their problems.

    The grids of the files may differ by ``GRID_TOLERANCE_MM`` and ``DIRECTION_TOLERANCE``.

    Args:
        spec: the dataset; its lists of cases are not used.
    """
    checker = _CaseChecker(spec, case)
    checker.check()
    return CaseFindings(
        problems=tuple(checker.problems),
        digests=checker.digests,
        classes=tuple(sorted(checker.classes)),
        is_grey_rgb=checker.is_grey_rgb,
        measures=checker.measures,
    )


def failed_check(case: Case, cause: DecathleteError | None) -> CaseFindings:
    """Return the findings of a case whose check itself failed."""
    cause = cause or DecathleteError("the check failed")
    where = f"{cause.where}: " if cause.where is not None else ""
    remedy = cause.remedy or "look at the files of this case"
    return CaseFindings(problems=(_problem(case, "error", cause.code, f"{where}{cause.problem}", remedy),))


class _CaseChecker:
    """Check the files of one case and collect their problems."""

    def __init__(self, spec: DatasetSpec, case: Case) -> None:
        self.spec = spec
        self.case = case
        self.problems: list[Problem] = []
        self.digests = CaseDigests()
        self.classes: set[int] = set()
        self.measures: CaseMeasures | None = None
        self.is_grey_rgb = False

    def check(self) -> None:
        images = [(path, image) for path in self.case.images if (image := self._read(path, read_image)) is not None]
        read = partial(read_label, structures=self.case.structures, warn=self._warn_of_label)
        label = self._read(self.case.label, read) if self.case.label else None
        is_grey_picture = False
        if len(images) == len(self.case.images) == 1:
            ((path, image),) = images
            self.is_grey_rgb = path.is_file() and is_picture(path) and is_grey(image.array_CZYX)
            is_grey_picture = self.is_grey_rgb or len(image.array_CZYX) == 1
            images = [(path, match_channels(path, image, len(self.spec.channels)))]
        if len(images) == len(self.case.images):
            self._channels(images)
            self._measure([image for _, image in images], label, is_grey_picture=is_grey_picture)
        other_values_exist = any(c.min() != c.max() for _, image in images for c in image.array_CZYX)
        for path, image in images:
            self._intensities(path, image, other_values_exist=other_values_exist)
        self._grids(images, label)
        self._transforms([*images, *([(self.case.label, label)] if self.case.label and label is not None else [])])
        if label is not None and self.case.label is not None:
            self._label(self.case.label, label)
            if self.case.structures is not None:
                self._references(self.case.label_files)

    def _measure(self, images: list[Image], label: LabelMap | None, *, is_grey_picture: bool) -> None:
        channels_ZYX = [channel_ZYX for image in images for channel_ZYX in image.array_CZYX]
        self.digests = digest_case(
            channels_ZYX,
            None if label is None else label.array_ZYX,
            compare_channels=len(channels_ZYX) == len(self.spec.channels) and not is_grey_picture,
        )
        self.measures = measure_case(self.spec.channels, images, label)

    def _add(self, severity: Severity, code: str, path: Path, message: str, remedy: str) -> None:
        root = self.spec.root
        file = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
        self.problems.append(_problem(self.case, severity, code, message, remedy, file=file))

    def _read(self, path: Path, read: Reader[Read]) -> Read | None:
        try:
            return read(path, spacing=self.case.spacing, formats=self.case.formats)
        except DecathleteError as problem:
            part = problem.where.name if isinstance(problem.where, Path) and problem.where != path else None
            text = problem.problem if part is None else f"{part}: {problem.problem}"  # a slice, or the voxels
            self._add("error", problem.code, path, text, self._remedy(path, problem))
        except OSError as problem:
            self._add(
                "error", "E-FILE", path, f"cannot be read ({problem.strerror})", "check the file and its permissions"
            )
        return None

    def _remedy(self, path: Path, problem: DecathleteError) -> str:
        remedy = problem.remedy or "fix this file"
        if problem.code != "E-IMAGE-NOT-FOUND" or problem.where != path:
            return remedy
        if path.is_relative_to(self.spec.root):
            return f"{remedy}; or leave case {self.case.id} out, with all its files"
        tails = ("/".join(path.parts[k:]) for k in range(1, len(path.parts)))
        tail = next((tail for tail in tails if (self.spec.root / tail).exists()), None)
        return remedy if tail is None else f"list it relative to dataset.json: {tail}"

    def _channels(self, images: list[tuple[Path, Image]]) -> None:
        n_channels, n_declared = sum(i.array_CZYX.shape[0] for _, i in images), len(self.spec.channels)
        if n_channels != n_declared:
            names = [path.name for path, _ in images]
            misplaced = describe_misplaced_channels(images[0][1], n_declared) if len(images) == 1 else ""
            files = f" (files {names[0]} to {names[-1]}, by their names)" if len(names) > max(1, n_declared) else ""
            remedy = "use the same channels in every case, in the declared order"
            if n_declared == 1:
                is_coloured = n_channels == 3 and len(images) == 1 and is_picture(images[0][0])
                remedy = DECLARE_COLOURS if is_coloured else f"{SPLIT_4D}, or declare all of them"
            self._add(
                "error",
                "E-IMAGE-CHANNELS",
                images[0][0],
                f"has {n_channels} channels{files}; dataset.json declares {n_declared} "
                f"({', '.join(self.spec.channels)}){misplaced}",
                remedy,
            )

    def _intensities(self, path: Path, image: Image, *, other_values_exist: bool) -> None:
        for c, channel_ZYX in enumerate(image.array_CZYX):
            channel = f"channel {c} " if image.array_CZYX.shape[0] > 1 else ""
            n_invalid = int(channel_ZYX.size - np.isfinite(channel_ZYX).sum())
            if n_invalid:
                self._add(
                    "error",
                    "E-IMAGE-VALUES",
                    path,
                    f"{channel}contains {n_invalid} voxels that are NaN or infinite",
                    "replace them, for instance with the value of the background",
                )
            elif channel_ZYX.min() == channel_ZYX.max():
                value = float(channel_ZYX.flat[0])
                # a missing sequence of one patient is often filled with zeros; an image with a single value is useless
                severity: Severity = "warning" if other_values_exist else "error"
                self._add(
                    severity,
                    "E-IMAGE-VALUES",
                    path,
                    f"{channel}has the single value {value:g}",
                    "export this image again, or leave it out",
                )

    def _grids(self, images: list[tuple[Path, Image]], label: LabelMap | None) -> None:
        if not images:
            return
        first_path, first = images[0]
        others: list[tuple[Path, Image | LabelMap]] = list(images[1:])
        if label is not None and self.case.label is not None:
            others.append((self.case.label, label))
        for path, other in others:
            differences = first.geometry.differences(
                other.geometry, tolerance_mm=GRID_TOLERANCE_MM, tolerance=DIRECTION_TOLERANCE
            )
            if differences:
                remedy = "resample one to the other's grid, or correct the header that is wrong"
                if first.geometry.unit != other.geometry.unit:
                    remedy = "give both files a spacing, or none: one of them has none, so that it is in pixels"
                shape, other_shape = first.geometry.shape_ZYX, other.geometry.shape_ZYX
                if shape != other_shape and sorted(shape) == sorted(other_shape):
                    remedy = "transpose one of them: its axes are in another order (as arrays of SimpleITK and nibabel)"
                self._add(
                    "error",
                    "E-IMAGE-GEOMETRY",
                    path,
                    f"does not share the grid of {first_path.name}: {'; '.join(differences)} "
                    f"(tolerance {GRID_TOLERANCE_MM} mm, at most a tenth of a voxel; cosines {DIRECTION_TOLERANCE})",
                    remedy,
                )

    def _transforms(self, files: Iterable[tuple[Path, Image | LabelMap]]) -> None:
        for path, file in files:
            if text := describe_disagreement(file.geometry):
                remedy = "write the transform that is right to both fields: other programs may use the qform"
                self._add("warning", "E-IMAGE-TRANSFORMS", path, text, remedy)

    def _warn_of_label(self, problem: str, remedy: str) -> None:
        assert self.case.label is not None  # for the type checker: only label maps warn
        self._add("warning", "E-DATASET-CONTOURS", self.case.label, problem, remedy)

    def _references(self, paths: Iterable[Path]) -> None:
        """Compare the series that DICOM labels refer to with those of the images."""
        found = {uid for image in self.case.images if (uid := series_uid(image))}
        for path in paths:
            referenced = referenced_series(path)
            if referenced and found and not referenced & found:
                self._add(
                    "warning",
                    "E-DATASET-CONTOURS",
                    path,
                    "refers to another series than the image of its case",
                    "list it with the image that it was drawn on, unless the identifiers of one of them were replaced",
                )

    def _label(self, path: Path, label: LabelMap) -> None:
        values = np.unique(label.array_ZYX)
        undeclared = self.spec.labels.find_undeclared_values(values)
        if undeclared:
            listed = ", ".join(f"{v:g}" for v in undeclared[:10])
            remedy = "declare them under labels, or remove them from the label map"
            if undeclared == [255] and len(values) <= 2:
                remedy = "if it is a mask of 0 and 255, declare its class with the value 255 under labels"
            elif len(undeclared) > MAX_CLASSES:
                remedy = f"make sure that this is a label map: {len(undeclared)} values are as many as an image has"
            elif min(undeclared) < 0:
                remedy = (
                    "replace values below 0, which cannot be classes: if these voxels are not annotated, use the value "
                    "of an ignore label"
                )
            self._add(
                "error",
                "E-IMAGE-VALUES",
                path,
                f"contains label values that dataset.json does not declare: {listed}",
                remedy,
            )
        present = set(values.tolist())
        if extra := [c.name for c in self.spec.labels.classes if c.value in present & set(self.case.unannotated)]:
            self._add(
                "warning",
                "E-DATASET-LABELS",
                path,
                f"contains classes that are listed as not annotated in this case: {', '.join(extra)}",
                "list them as annotated; otherwise their voxels are not used",
            )
        present -= set(self.case.unannotated)
        self.classes = {c.value for c in self.spec.labels.classes if c.value in present}
        if not self.classes - {0} and not undeclared:
            self._add(
                "warning",
                "E-DATASET-LABELS",
                path,
                "the label map is empty",
                "make sure that this case contains no structure",
            )


def _problem(
    case: Case, severity: Severity, code: str, message: str, remedy: str, *, file: str | None = None
) -> Problem:
    if case.label is None and severity == "error":
        severity, remedy = (
            "warning",
            f"{remedy} (a test image: it is not needed for training, its prediction will fail)",
        )
    return Problem(severity=severity, code=code, case_id=case.id, file=file, message=message, remedy=remedy)
