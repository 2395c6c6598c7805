"""Check a dataset: read every file and list every problem with its remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from decathlete.core.parallel import Workers, require_shared
from decathlete.core.progress import CaseProgress
from decathlete.core.regions import GivenRegions
from decathlete.dataset.check import CheckReport, check_dataset
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.regions import resolve_labels
from decathlete.planning.explain import region_lines
from decathlete.workflows.workspace import Workspace


def check(
    task: str | Path,
    *,
    workspace: Workspace = Workspace(),
    group_by: str | None = None,
    regions: GivenRegions | None = None,
    regions_order: tuple[int, ...] = (),
    brats: bool = False,
    workers: Workers = 2,
    progress: CaseProgress | None = None,
) -> CheckReport:
    """Read every file of a dataset once and report all problems; nothing is changed.

    Args:
        task: its number or folder name under ``workspace.data``, or a path.
        workers: number of cases that are checked in parallel, or an executor (:func:`decathlete.connect_cluster`).
        group_by: regular expression with one group that matches a case's patient; checked against every case.
        regions, regions_order, brats: see :class:`~decathlete.PlanOptions`; checked against the labels.

    Returns:
        The report; its ``ok`` says whether the dataset can be used.

    Raises:
        ManifestError: there is no dataset, or its ``dataset.json`` is not valid.
        OptionError: ``group_by`` does not fit the cases, or the regions do not fit the labels.
    """
    spec = read_dataset(workspace.dataset(task), group_by=group_by)
    labels = resolve_labels(spec.labels, regions=regions, order=regions_order, brats=brats)
    require_shared(workers, reads=[spec.root])
    report = check_dataset(replace(spec, labels=labels), workers=workers, progress=progress)
    return report.revised(regions=tuple(region_lines(labels)))
