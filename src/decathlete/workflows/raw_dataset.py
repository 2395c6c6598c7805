"""The raw dataset of a task: its manifest, its fingerprint and its folds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from decathlete.core.choices import Orientation
from decathlete.core.geometry import Triple
from decathlete.core.parallel import Workers
from decathlete.core.progress import CaseProgress
from decathlete.dataset.annotated import read_annotated
from decathlete.dataset.check import check_dataset
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import DatasetSpec
from decathlete.dataset.split_cases import SplitChoice, split_cases
from decathlete.dataset.split_options import SplitOptions
from decathlete.dataset.splits import Splits
from decathlete.errors import DecathleteError
from decathlete.io.format_settings import format_settings
from decathlete.planning.fingerprint import Fingerprint, make_fingerprint
from decathlete.planning.options import PlanOptions
from decathlete.workflows.workspace import Workspace

log = logging.getLogger(__name__)


def read_task(
    task: str | Path,
    *,
    workspace: Workspace,
    options: PlanOptions,
    spacing: Triple | None,
    image_formats: Mapping[str, Mapping[str, Any]] | None,
) -> DatasetSpec:
    """Read the manifest of a dataset as the options of the plan say.

    Args:
        spacing, image_formats: see :func:`~decathlete.workflows.preprocess.preprocess`.

    Raises:
        ManifestError: there is no dataset, or its manifest or the list of annotated classes is not valid.
        OptionError: a setting of an image format has no effect.
    """
    spec = read_dataset(
        workspace.dataset(task),
        group_by=options.group_by,
        spacing=spacing,
        formats=format_settings(image_formats or {}),
        annotated=None if options.annotated is None else read_annotated(options.annotated),
    )
    spec.check_formats()
    return spec


def load_or_make_fingerprint(
    spec: DatasetSpec, folder: Path, orientation: Orientation, *, workers: Workers, progress: CaseProgress | None = None
) -> Fingerprint:
    """Return the dataset's fingerprint, which is stored beside the prepared data until the dataset changes.

    A dataset is checked before its fingerprint is made, so that a stored fingerprint means that the check passed.
    """
    path = folder / f"fingerprint_{orientation}.json"
    digest = spec.digest()
    if path.is_file():
        try:
            stored = Fingerprint.load(path)
        except DecathleteError:
            log.info("the fingerprint %s is damaged and is made again", path)
        else:
            named = {case.id for case in spec.cases if case.label is not None}  # the digest leaves names out
            if stored.dataset_digest == digest and {case.case_id for case in stored.cases} == named:
                return stored
            log.info("the dataset has changed; it is checked again and a new fingerprint is made")
    report = check_dataset(spec, workers=workers, progress=progress)
    report.raise_for_errors()
    for problem in report.problems:
        log.warning("%s", problem)
    fingerprint = make_fingerprint(spec, orientation=orientation, workers=workers)
    fingerprint.save(path)
    return fingerprint


def choose_folds(
    spec: DatasetSpec, options: SplitOptions, fingerprint: Fingerprint, folder: Path, *, overwrite: bool
) -> Splits:
    """Return the folds of a dataset, and log what the user should know about them.

    Args: as of :func:`find_folds`.
    """
    choice = find_folds(spec, options, fingerprint, folder, overwrite=overwrite)
    for note in (*spec.unused, *choice.notes):
        log.info("%s", note)
    for warning in choice.warnings:
        log.warning("%s", warning)
    return choice.splits


def find_folds(
    spec: DatasetSpec, options: SplitOptions, fingerprint: Fingerprint, folder: Path, *, overwrite: bool
) -> SplitChoice:
    """Return the folds that a dataset is prepared with.

    Args:
        folder: folder of the prepared data. Folds that are recorded there are kept, unless ``overwrite`` is set or the
            options ask for others.

    Raises:
        DatasetError: no case can be held out, or the given folds are not valid.
    """
    recorded, path = None, folder / "splits.json"
    if not overwrite and path.is_file():
        with suppress(DecathleteError):  # damaged: the folder is then rejected
            recorded = Splits.load(path)
    return split_cases(spec, options, fingerprint.presence(spec.labels), recorded=recorded)
