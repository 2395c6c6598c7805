"""Check a dataset: list every problem with its file and its remedy."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from decathlete.core.estimates import check_bytes
from decathlete.core.geometry import Triple
from decathlete.core.header_transforms import describe_disagreement
from decathlete.core.limits import limit_workers
from decathlete.core.parallel import Workers, map_cases
from decathlete.core.progress import CaseProgress
from decathlete.core.schema import Schema
from decathlete.dataset.case_measures import CaseMeasures, measure_case
from decathlete.dataset.check_report import CheckReport, Problem, Severity
from decathlete.dataset.dataset_check import check_cohort, check_folds, check_manifest
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.dataset.split_options import SplitOptions
from decathlete.dataset.unused_files import unused_files
from decathlete.errors import DecathleteError
from decathlete.io.folder_tree import name_some
from decathlete.io.format_lookup import is_picture
from decathlete.io.images import Image, LabelMap, is_grey, match_channels, read_image, read_label
from decathlete.io.largest_images import sizes_of_largest

GRID_TOLERANCE_MM = 1e-2
"""Greatest allowed difference of spacing and origin between files of one case, mm."""

DIRECTION_TOLERANCE = 1e-3
"""Greatest allowed difference of a direction cosine between files of one case."""

Read = TypeVar("Read", Image, LabelMap, covariant=True)


class Reader(Protocol[Read]):
    """Reads a file, see :mod:`decathlete.io.images`."""

    def __call__(self, path: Path, *, spacing: Triple | None) -> Read: ...


class _CaseFindings(Schema):
    """The problems and the content of one case's files."""

    problems: tuple[Problem, ...]
    image_digest: str | None = None
    classes: tuple[int, ...] = ()
    measures: CaseMeasures | None = None
    is_grey_rgb: bool = False


def check_dataset(
    spec: DatasetSpec,
    *,
    split: SplitOptions | None = None,
    workers: Workers = 2,
    progress: CaseProgress | None = None,
) -> CheckReport:
    """Read every file of a dataset once and list all problems; nothing is changed.

    Args:
        split: options of the folds that are checked, too; ``None``: folds are not checked.

    The grids of a case's files may differ by ``GRID_TOLERANCE_MM`` and ``DIRECTION_TOLERANCE``.
    """
    cases = {f"train {c.id}": c for c in spec.cases} | {f"test {c.id}": c for c in spec.test_cases}
    findings: dict[str, _CaseFindings] = {}
    declared = replace(spec, cases=(), test_cases=())  # all that one case is compared with
    workers = _limit_workers(workers, spec, cases)
    for outcome in map_cases(partial(_check_case, declared), cases, workers=workers):
        case_id = cases[outcome.case_id].id
        findings[outcome.case_id] = outcome.value or _failed_check(cases[outcome.case_id], outcome.cause)
        if progress:
            progress(len(findings), len(cases), case_id)
    ordered = [findings[key] for key in cases]
    problems = [p for f in ordered for p in f.problems]
    problems += _duplicates({key: f.image_digest for key, f in zip(cases, ordered, strict=True)})
    problems += _absent_classes(spec, ordered)
    problems += check_manifest(spec)
    measured = zip(cases.items(), ordered, strict=True)
    problems += check_cohort(spec, [(case, f.measures) for (_, case), f in measured if f.measures is not None])
    notes: tuple[str, ...] = spec.unused + _note_grey(spec, sum(f.is_grey_rgb for f in ordered), len(ordered))
    if split is not None:
        fold_problems, fold_notes = check_folds(spec, split, _presence(spec, findings))
        problems, notes = problems + fold_problems, notes + fold_notes
    problems += _unused_files(spec)
    return CheckReport(
        dataset=spec.name,
        root=str(spec.root),
        n_cases=len(spec.cases),
        n_test_cases=len(spec.test_cases),
        problems=tuple(problems),
        notes=notes,
    )


def _limit_workers(workers: Workers, spec: DatasetSpec, cases: Mapping[str, Case]) -> Workers:
    """Lower ``workers`` to the number of cases that fit into memory; an executor is returned as it is."""
    if not isinstance(workers, int):
        return workers
    images = {key: case.images for key, case in cases.items()}
    sizes = sizes_of_largest(images, workers, spacing=spec.spacing)
    return limit_workers(workers, {cases[key].id: check_bytes(size) for key, size in sizes.items()}, doing="check")


def _note_grey(spec: DatasetSpec, n_grey: int, n_cases: int) -> tuple[str, ...]:
    """Say how many images are grey and saved as RGB, and how they are read."""
    if not n_grey:
        return ()
    read = "one channel" if len(spec.channels) == 1 else "three equal channels"
    advice = "; declare one channel instead of three" if n_grey == n_cases and len(spec.channels) == 3 else ""
    return (f"{n_grey} of {n_cases} images are grey and saved as RGB; they are read as {read}{advice}",)


def _presence(spec: DatasetSpec, findings: Mapping[str, _CaseFindings]) -> dict[str, frozenset[str]]:
    """Return the names of the foreground classes in each training case."""
    return {
        case.id: frozenset(c.name for c in spec.labels.foreground if c.value in findings[f"train {case.id}"].classes)
        for case in spec.cases
    }


def _check_case(spec: DatasetSpec, case: Case) -> _CaseFindings:
    checker = _CaseChecker(spec, case)
    checker.check()
    return _CaseFindings(
        problems=tuple(checker.problems),
        image_digest=checker.digest,
        classes=tuple(sorted(checker.classes)),
        is_grey_rgb=checker.is_grey_rgb,
        measures=checker.measures,
    )


class _CaseChecker:
    """Check the files of one case and collect their problems."""

    def __init__(self, spec: DatasetSpec, case: Case) -> None:
        self.spec = spec
        self.case = case
        self.problems: list[Problem] = []
        self.digest: str | None = None
        self.classes: set[int] = set()
        self.measures: CaseMeasures | None = None
        self.is_grey_rgb = False

    def check(self) -> None:
        images = [(path, image) for path in self.case.images if (image := self._read(path, read_image)) is not None]
        read = partial(read_label, structures=self.case.structures)
        label = self._read(self.case.label, read) if self.case.label else None
        if len(images) == len(self.case.images) == 1:
            ((path, image),) = images
            self.is_grey_rgb = path.is_file() and is_picture(path) and is_grey(image.array_CZYX)
            images = [(path, match_channels(path, image, len(self.spec.channels)))]
        if len(images) == len(self.case.images):
            self._channels(images)
            self.digest = _digest(images)
            self.measures = measure_case(self.spec.channels, [image for _, image in images], label)
        other_values_exist = any(c.min() != c.max() for _, image in images for c in image.array_CZYX)
        for path, image in images:
            self._intensities(path, image, other_values_exist=other_values_exist)
        self._grids(images, label)
        self._transforms([*images, *([(self.case.label, label)] if self.case.label and label is not None else [])])
        if label is not None and self.case.label is not None:
            self._label(self.case.label, label)

    def _add(self, severity: Severity, code: str, path: Path, message: str, remedy: str) -> None:
        root = self.spec.root
        file = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
        self.problems.append(_problem(self.case, severity, code, message, remedy, file=file))

    def _read(self, path: Path, read: Reader[Read]) -> Read | None:
        try:
            return read(path, spacing=self.case.spacing)
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
            names = [path.name for path, _ in images]
            files = f" (files {names[0]} to {names[-1]}, by their names)" if len(names) > max(1, n_declared) else ""
            self._add(
                "error",
                "E-IMAGE-CHANNELS",
                images[0][0],
                f"has {n_channels} channels{files}; dataset.json declares {n_declared} "
                f"({', '.join(self.spec.channels)})",
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

    def _transforms(self, files: Iterable[tuple[Path, Image | LabelMap]]) -> None:
        for path, file in files:
            if text := describe_disagreement(file.geometry):
                remedy = "write the transform that is right to both fields: other programs may use the qform"
                self._add("warning", "E-IMAGE-TRANSFORMS", path, text, remedy)

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
            cases=tuple(ids),
            message=f"the images of {', '.join(ids)} are the same, voxel for voxel",
            remedy="keep one of them, otherwise the same image may be trained on and held out",
        )
        for ids in cases_of.values()
        if len(ids) > 1
    ]


def _unused_files(spec: DatasetSpec) -> list[Problem]:
    paths_of: dict[str, list[Path]] = defaultdict(list)
    for path, reason in unused_files(spec).items():
        paths_of[reason].append(path)
    return [
        Problem(
            severity="warning",
            code="E-DATASET-UNUSED",
            message=f"not used: {name_some(spec.root, paths)} ({reason})",
            remedy="list these files in dataset.json or move them to the right folder, or remove them",
        )
        for reason, paths in paths_of.items()
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
