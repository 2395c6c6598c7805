"""Check a dataset: list every problem with its file and its remedy."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from decathlete.core.parallel import Workers, map_cases
from decathlete.core.progress import CaseProgress
from decathlete.core.schema import Schema
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.errors import DatasetError, DecathleteError
from decathlete.io.images import Image, LabelMap, read_image, read_label

GRID_TOLERANCE_MM = 1e-2
"""Greatest allowed difference of spacing and origin between files of one case, mm."""

DIRECTION_TOLERANCE = 1e-3
"""Greatest allowed difference of a direction cosine between files of one case."""

Read = TypeVar("Read", Image, LabelMap)
Severity = Literal["error", "warning"]


class Problem(Schema):
    """One problem of a dataset.

    Attributes:
        severity: an ``error`` must be fixed before the dataset can be used; a ``warning`` needs a person's judgement.
            Problems of test images are warnings: training does not need them, only their own prediction will fail.
        code: stable error code, explained in :mod:`decathlete.core.error_codes`.
        file: path relative to the dataset's folder.
    """

    severity: Severity
    code: str
    case_id: str | None = None
    file: str | None = None
    message: str
    remedy: str

    def __str__(self) -> str:
        where = self.file or self.case_id
        return f"{where + ': ' if where else ''}{self.message}\n    → {self.remedy}"


class CheckReport(Schema):
    """The result of a check.

    Attributes:
        regions: descriptions of the regions that the manifest declares or the user chose.
    """

    dataset: str
    root: str
    n_cases: int
    n_test_cases: int
    problems: tuple[Problem, ...]
    regions: tuple[str, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that prevent the use of the dataset."""
        return tuple(p for p in self.problems if p.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that need a person's judgement."""
        return tuple(p for p in self.problems if p.severity == "warning")

    @property
    def ok(self) -> bool:
        """Whether there are no errors."""
        return not self.errors

    def lines(self) -> list[str]:
        """Return a readable report: errors, warnings, and a summary."""
        tests = f" and {self.n_test_cases} test images" if self.n_test_cases else ""
        out = [f"{self.dataset}: {self.n_cases} cases{tests} in {self.root}"]
        out += [f"region {region}" for region in self.regions]
        for name, problems in (("error", self.errors), ("warning", self.warnings)):
            out += [f"{name} {p.code}: {p}" for p in problems]
        if self.ok and not self.warnings:
            return [*out, "no problems found"]
        return [*out, f"{len(self.errors)} errors, {len(self.warnings)} warnings"]

    def raise_for_errors(self) -> None:
        """Raise an error if the check found errors.

        Raises:
            DatasetError: with all errors of the check.
        """
        if self.errors:
            listed = "".join(f"\n  - {p}" for p in self.errors)
            raise DatasetError(
                f"{len(self.errors)} problems:{listed}",
                where=self.root,
                remedy="fix them, then run the same command again (`decathlete check` also lists warnings)",
                code="E-DATASET-CHECK",
            )


class _CaseFindings(Schema):
    """The problems and the content of one case's files."""

    problems: tuple[Problem, ...]
    image_digest: str | None = None
    classes: tuple[int, ...] = ()


def check_dataset(spec: DatasetSpec, *, workers: Workers = 2, progress: CaseProgress | None = None) -> CheckReport:
    """Read every file of a dataset once and list all problems; nothing is changed.

    The grids of a case's files may differ by ``GRID_TOLERANCE_MM`` and ``DIRECTION_TOLERANCE``.
    """
    cases = {f"train {c.id}": c for c in spec.cases} | {f"test {c.id}": c for c in spec.test_cases}
    findings: dict[str, _CaseFindings] = {}
    declared = replace(spec, cases=(), test_cases=())  # all that one case is compared with
    for outcome in map_cases(partial(_check_case, declared), cases, workers=workers):
        case_id = cases[outcome.case_id].id
        findings[outcome.case_id] = outcome.value or _failed_check(cases[outcome.case_id], outcome.cause)
        if progress:
            progress(len(findings), len(cases), case_id)
    ordered = [findings[key] for key in cases]
    problems = [p for f in ordered for p in f.problems]
    problems += _duplicates({key: f.image_digest for key, f in zip(cases, ordered, strict=True)})
    problems += _absent_classes(spec, ordered)
    return CheckReport(
        dataset=spec.name,
        root=str(spec.root),
        n_cases=len(spec.cases),
        n_test_cases=len(spec.test_cases),
        problems=tuple(problems),
    )


def _check_case(spec: DatasetSpec, case: Case) -> _CaseFindings:
    checker = _CaseChecker(spec, case)
    checker.check()
    return _CaseFindings(
        problems=tuple(checker.problems), image_digest=checker.digest, classes=tuple(sorted(checker.classes))
    )


class _CaseChecker:
    """Check the files of one case and collect their problems."""

    def __init__(self, spec: DatasetSpec, case: Case) -> None:
        self.spec = spec
        self.case = case
        self.problems: list[Problem] = []
        self.digest: str | None = None
        self.classes: set[int] = set()

    def check(self) -> None:
        images = [(path, image) for path in self.case.images if (image := self._read(path, read_image)) is not None]
        label = self._read(self.case.label, read_label) if self.case.label else None
        if len(images) == len(self.case.images):
            self._channels(images)
            self.digest = _digest(images)
        other_values_exist = any(c.min() != c.max() for _, image in images for c in image.array_CZYX)
        for path, image in images:
            self._intensities(path, image, other_values_exist=other_values_exist)
        self._grids(images, label)
        if label is not None and self.case.label is not None:
            self._label(self.case.label, label)

    def _add(self, severity: Severity, code: str, path: Path, message: str, remedy: str) -> None:
        root = self.spec.root
        file = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
        self.problems.append(_problem(self.case, severity, code, message, remedy, file=file))

    def _read(self, path: Path, read: Callable[[Path], Read]) -> Read | None:
        try:
            return read(path)
        except DecathleteError as problem:
            self._add("error", problem.code, path, problem.problem, problem.remedy or "fix this file")
        except OSError as problem:
            self._add(
                "error", "E-FILE", path, f"cannot be read ({problem.strerror})", "check the file and its permissions"
            )
        return None

    def _channels(self, images: list[tuple[Path, Image]]) -> None:
        n_channels, n_declared = sum(i.array_CZYX.shape[0] for _, i in images), len(self.spec.channels)
        if n_channels != n_declared:
            self._add(
                "error",
                "E-IMAGE-CHANNELS",
                images[0][0],
                f"has {n_channels} channels; dataset.json declares {n_declared} ({', '.join(self.spec.channels)})",
                "use the same channels in every case, in the declared order",
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
                self._add(
                    "error",
                    "E-IMAGE-GEOMETRY",
                    path,
                    f"does not share the grid of {first_path.name}: {'; '.join(differences)} "
                    f"(tolerance {GRID_TOLERANCE_MM} mm, cosines {DIRECTION_TOLERANCE})",
                    "resample one to the other's grid, or correct the header that is wrong",
                )

    def _label(self, path: Path, label: LabelMap) -> None:
        values = np.unique(label.array_ZYX)
        undeclared = self.spec.labels.find_undeclared_values(values)
        if undeclared:
            listed = ", ".join(f"{v:g}" for v in undeclared[:10])
            self._add(
                "error",
                "E-IMAGE-VALUES",
                path,
                f"contains label values that dataset.json does not declare: {listed}",
                "declare them under labels, or remove them from the label map",
            )
        present = set(values.tolist())
        self.classes = {c.value for c in self.spec.labels.classes if c.value in present}
        if not self.classes - {0}:
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


def _failed_check(case: Case, cause: DecathleteError | None) -> _CaseFindings:
    """Return the findings of a case whose check itself failed."""
    cause = cause or DecathleteError("the check failed")
    where = f"{cause.where}: " if cause.where is not None else ""
    remedy = cause.remedy or "look at the files of this case"
    return _CaseFindings(problems=(_problem(case, "error", cause.code, f"{where}{cause.problem}", remedy),))


def _digest(images: Iterable[tuple[Path, Image]]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for _, image in images:
        total.update(str(image.array_CZYX.shape).encode())
        total.update(np.ascontiguousarray(image.array_CZYX).data)
    return total.hexdigest()


def _duplicates(digests: dict[str, str | None]) -> list[Problem]:
    """Return a problem for each group of equal images; the keys of ``digests`` are ``train ID`` and ``test ID``."""
    cases_of: dict[str, list[str]] = defaultdict(list)
    for key, digest in digests.items():
        if digest:
            part, case_id = key.split(" ", 1)
            cases_of[digest].append(case_id if part == "train" else f"{case_id} (test)")
    return [
        Problem(
            severity="warning",
            code="E-DATASET-DUPLICATES",
            case_id=ids[0],
            message=f"the images of {', '.join(ids)} are the same, voxel for voxel",
            remedy="keep one of them, otherwise the same image may be trained on and held out",
        )
        for ids in cases_of.values()
        if len(ids) > 1
    ]


def _absent_classes(spec: DatasetSpec, findings: list[_CaseFindings]) -> list[Problem]:
    present = {value for f in findings for value in f.classes}
    return [
        Problem(
            severity="warning",
            code="E-DATASET-LABELS",
            message=f"class {c.name!r} (value {c.value}) is declared and occurs in no label map",
            remedy="remove it from dataset.json, or correct the label maps",
        )
        for c in spec.labels.foreground
        if c.value not in present
    ]
