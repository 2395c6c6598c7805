"""A dataset from one layout into another: read what there is, survey every file, place or write each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from decathlete.core.choices import DatasetLayout, ImageSuffix
from decathlete.core.labels import LabelSet
from decathlete.core.progress import CaseProgress
from decathlete.core.regions import GivenRegions
from decathlete.dataset.conversion.plain_sources import FileNames, read_undeclared
from decathlete.dataset.conversion.run import Record, check_place, run_jobs
from decathlete.dataset.conversion.source import Source, read_source
from decathlete.dataset.conversion.survey import Target, common_suffix, survey
from decathlete.dataset.conversion.values import nnunet_values
from decathlete.dataset.layouts import ManifestContent, decathlon_manifest, nnunet_manifest
from decathlete.dataset.manifest import MANIFEST
from decathlete.dataset.regions import resolve_labels
from decathlete.errors import DatasetError, OptionError, problems_found
from decathlete.workflows.workspace import Workspace

Listen = Callable[[str], CaseProgress | None]


def convert(
    source: str | Path,
    output: str | Path,
    *,
    to: DatasetLayout,
    files: FileNames = FileNames(),
    suffix: ImageSuffix | None = None,
    copy: bool = False,
    regions: GivenRegions | None = None,
    regions_order: tuple[int, ...] = (),
    brats: bool = False,
    group_by: str | None = None,
    workspace: Workspace = Workspace(),
    workers: int = 2,
    overwrite: bool = False,
    listen: Listen = lambda _: None,
) -> Record:
    """Make a dataset of another layout in the folder ``output``; files become links where they can stay as they are.

    Args:
        source: a dataset with ``dataset.json`` (path, folder name or number under ``workspace.data``), a folder of
            images and label maps (with ``files.images``), or a CSV file.
        to: ``decathlon`` or ``nnunet`` (v2; the folder is then called ``Dataset123_Name``).
        suffix: of all new files; needed only where those of the source differ.
        copy: copy instead of linking.
        regions, regions_order, brats: see :class:`~decathlete.PlanOptions`; they go into the new ``dataset.json``.
        group_by: regular expression with one group that names a case's patient; the groups are kept.
        listen: asked, for each part of the work, who is told of its cases.

    Raises:
        DatasetError: every problem of the source together; nothing was written.
        OptionError: options that do not go with this source.
        OutputError: ``output`` may not be written, or something else is in the way.
        CasesFailedError: at the end, if some cases could not be converted.
    """
    folder, nnunet = Path(output), to == "nnunet"
    declared = files.images is None and Path(source).suffix.lower() != ".csv"
    origin = workspace.dataset(source) if declared else Path(source)
    check_place(folder, origin, kept_clean=(origin,) if declared else files.folders(origin), nnunet=nnunet)
    found = _read(origin, files, declared=declared, group_by=group_by, workers=workers, listen=listen)
    labels = resolve_labels(found.spec.labels, regions=regions, order=regions_order, brats=brats)
    new_labels, values = _nnunet_labels(labels, origin) if nnunet else (labels, {})
    target = _target(found, labels, values, layout=to, folder=folder, suffix=suffix)
    return run_jobs(
        survey(found.spec, target, workers=workers, progress=listen("read headers")),
        folder,
        source=origin,
        manifest=_manifest(found, new_labels, target),
        folds=found.folds,
        values=values,
        copy=copy,
        overwrite=overwrite,
        workers=workers,
        progress=listen("convert"),
    )


def _read(
    origin: Path, files: FileNames, *, declared: bool, group_by: str | None, workers: int, listen: Listen
) -> Source:
    if not declared:
        if not origin.exists():
            raise DatasetError("does not exist", where=origin, remedy="check the path", code="E-DATASET-NOT-FOUND")
        return read_undeclared(origin, files, group_by=group_by, workers=workers, progress=listen("read labels"))
    if not (origin / MANIFEST).is_file():
        raise DatasetError(
            f"has no {MANIFEST}", where=origin, remedy="say where its images and label maps lie: --images, --labels"
        )
    if files != FileNames():
        raise OptionError(
            "--channels, --classes, --labels, --test-images and --label-suffix are for plain folders and CSV files",
            where=origin,
            remedy=f"leave them out, since its {MANIFEST} says these things; or give --images to pass it over",
            code="E-OPTION-CONFLICT",
        )
    return read_source(origin, group_by=group_by)


def _nnunet_labels(labels: LabelSet, where: Path) -> tuple[LabelSet, dict[int, int]]:
    problems: list[str] = []
    found = nnunet_values(labels, problems)
    if problems:
        remedy = "rename the classes, or give --regions"
        raise problems_found(problems, where=where, remedy=remedy, kind=DatasetError)
    return found


def _target(
    found: Source,
    labels: LabelSet,
    values: dict[int, int],
    *,
    layout: DatasetLayout,
    folder: Path,
    suffix: ImageSuffix | None,
) -> Target:
    """What the new files are to be; ``labels`` are the source's, whose ``values`` may be renumbered."""
    return Target(
        layout=layout,
        folder=folder,
        suffix=common_suffix(found.spec, suffix),
        channels=len(found.spec.channels),
        values=values,
        known=(*labels.values, *([labels.ignore] if labels.ignore is not None else [])),
    )


def _manifest(found: Source, labels: LabelSet, target: Target) -> dict[str, object]:
    content = ManifestContent(
        name=target.folder.name,
        channels=found.spec.channels,
        labels=labels,
        training=[case.id for case in found.spec.cases],
        test=[case.id for case in found.spec.test_cases],
        suffix=target.suffix,
        groups={case.id: case.group for case in found.spec.cases if case.group is not None},
        texts=found.texts,
    )
    return nnunet_manifest(content) if target.layout == "nnunet" else decathlon_manifest(content)
