"""Check a dataset: read every file and list every problem with its remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from decathlete.core.geometry import Triple
from decathlete.core.parallel import Workers, require_shared
from decathlete.core.progress import CaseProgress
from decathlete.core.regions import GivenRegions
from decathlete.dataset.annotated import read_annotated
from decathlete.dataset.check import check_dataset
from decathlete.dataset.check_report import CheckReport
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.regions import resolve_labels
from decathlete.dataset.split_options import N_FOLDS, SEED, SplitOptions
from decathlete.errors import OptionError, problems_found
from decathlete.io.format_settings import format_settings
from decathlete.planning.explain import region_lines
from decathlete.workflows.workspace import Workspace


def check(
    task: str | Path,
    *,
    workspace: Workspace = Workspace(),
    n_folds: int = N_FOLDS,
    split_seed: int = SEED,
    splits: Path | None = None,
    group_by: str | None = None,
    annotated: Path | None = None,
    spacing: Triple | None = None,
    image_formats: Mapping[str, Mapping[str, Any]] | None = None,
    regions: GivenRegions | None = None,
    regions_order: tuple[int, ...] = (),
    brats: bool = False,
    workers: Workers = 2,
    progress: CaseProgress | None = None,
) -> CheckReport:
    """Read every file of a dataset once and report all problems; nothing is changed.

    Args:
        task: its number or folder name under ``workspace.data``, or a path.
        n_folds, split_seed, splits: options of the folds, see :class:`~decathlete.PlanOptions`; checked against the
            cases and their classes.
        workers: number of cases that are checked in parallel, or an executor (:func:`decathlete.connect_cluster`).
        group_by: regular expression with one group that matches a case's patient; checked against every case.
        annotated: CSV file with the annotated classes of partially annotated cases, see
            :class:`~decathlete.PlanOptions`.
        spacing: z, y, x in mm, for files that do not contain their spacing.
        image_formats: settings of image formats that change how files are read, by the name of the format.
        regions, regions_order, brats: see :class:`~decathlete.PlanOptions`; checked against the labels.

    Returns:
        The report; its ``ok`` says whether the dataset can be used.

    Raises:
        ManifestError: there is no dataset, or its ``dataset.json`` is not valid.
        OptionError: ``group_by`` or the options of the folds do not fit the cases, or the regions the labels.
    """
    split = SplitOptions(n_folds=n_folds, seed=split_seed, file=splits)
    if problems := list(split.problems()):
        raise problems_found(problems, where="options of the split", remedy="fix these options", kind=OptionError)
    listed = None if annotated is None else read_annotated(annotated)
    spec = read_dataset(
        workspace.dataset(task),
        group_by=group_by,
        spacing=spacing,
        formats=format_settings(image_formats or {}),
        annotated=listed,
    )
    spec.check_formats()
    labels = resolve_labels(spec.labels, regions=regions, order=regions_order, brats=brats)
    require_shared(workers, reads=[spec.root])
    report = check_dataset(replace(spec, labels=labels), split=split, workers=workers, progress=progress)
    return report.revised(regions=tuple(region_lines(labels)))
