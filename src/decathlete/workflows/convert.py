"""Convert a dataset to another layout: read the source, survey every file, link or write each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decathlete.core.choices import DatasetLayout
from decathlete.core.geometry import Triple
from decathlete.core.labels import LabelSet
from decathlete.core.locks import locked_output
from decathlete.core.output_paths import check_writable_path
from decathlete.core.progress import ProgressOfStep
from decathlete.core.regions import GivenRegions
from decathlete.dataset.annotated import annotated_of
from decathlete.dataset.conversion.plain_sources import FileNames, read_plain_source
from decathlete.dataset.conversion.run import ConversionResult, check_output, check_replaceable, run_jobs
from decathlete.dataset.conversion.source import Source, read_source
from decathlete.dataset.conversion.survey import Target, choose_suffix, survey
from decathlete.dataset.conversion.values import nnunet_values
from decathlete.dataset.find_dataset import MANIFEST
from decathlete.dataset.layouts import ManifestContent, decathlon_manifest, nnunet_manifest
from decathlete.dataset.regions import resolve_labels
from decathlete.errors import DatasetError, OptionError
from decathlete.io.format_lookup import check_suffix
from decathlete.io.format_settings import FormatSettings, format_settings
from decathlete.workflows.workspace import Workspace


def convert(
    source: str | Path,
    output: str | Path,
    *,
    to: DatasetLayout,
    files: FileNames = FileNames(),
    suffix: str | None = None,
    copy: bool = False,
    image_formats: Mapping[str, Mapping[str, Any]] | None = None,
    regions: GivenRegions | None = None,
    regions_order: tuple[int, ...] = (),
    brats: bool = False,
    group_by: str | None = None,
    spacing: Triple | None = None,
    workspace: Workspace = Workspace(),
    workers: int = 2,
    overwrite: bool = False,
    listen: ProgressOfStep = lambda _: None,
) -> ConversionResult:
    """Create a dataset in another layout in the folder ``output``; unchanged files become links.

    Args:
        source: a dataset with ``dataset.json`` (path, folder name or number under ``workspace.data``), a folder of
            images and label maps (with ``files.images``), or a CSV file.
        to: ``decathlon`` or ``nnunet`` (v2; the folder must have a name like ``Dataset123_Name``).
        files: file names and content of a source without ``dataset.json``.
        suffix: suffix of all new files; needed only if the files of the source have several.
        copy: copy files instead of linking them.
        image_formats: settings of the formats of the files that are read and written, by the name of the format, e.g.
            ``{"nifti": {"compression_level": 9}}``.
        regions, regions_order, brats: see :class:`~decathlete.PlanOptions`; written to the new ``dataset.json``.
        group_by: regular expression with one group that matches a case's patient; the groups are kept.
        spacing: z, y, x in mm, for files that do not contain their spacing; the new files contain it.
        listen: returns the progress function of a step (``"read headers"``, ``"convert"``, ...), or ``None``.

    Raises:
        DatasetError: the source is not valid; lists every problem. Nothing was written.
        OptionError: the options do not apply to this source.
        OutputError: ``output`` may not be written, or contains other files.
        CasesFailedError: at the end, if some cases could not be converted.
    """
    check_suffix(suffix)
    settings = format_settings(image_formats or {})
    folder, nnunet = check_writable_path(output), to == "nnunet"
    has_manifest = files.images is None and Path(source).suffix.lower() != ".csv"
    origin = workspace.dataset(source) if has_manifest else Path(source)
    check_output(folder, origin, source_folders=(origin,) if has_manifest else files.folders(origin), nnunet=nnunet)
    with locked_output(folder):
        check_replaceable(folder)
        original = _read(
            origin,
            files,
            has_manifest=has_manifest,
            group_by=group_by,
            spacing=spacing,
            formats=settings,
            workers=workers,
            listen=listen,
        )
        labels = resolve_labels(original.spec.labels, regions=regions, order=regions_order, brats=brats)
        new_labels, values = nnunet_values(labels, origin) if nnunet else (labels, {})
        target = _target(
            original,
            labels,
            values,
            layout=to,
            folder=folder,
            suffix=suffix,
            check_values=files.classes is not None,
        )
        return run_jobs(
            survey(original.spec, target, workers=workers, progress=listen("read headers")),
            folder,
            source=str(origin.resolve()),
            manifest=_manifest(original, new_labels, target),
            folds=original.folds,
            values=values,
            copy=copy,
            image_formats=settings,
            overwrite=overwrite,
            workers=workers,
            progress=listen("convert"),
        )


def _target(
    original: Source,
    labels: LabelSet,
    values: Mapping[int, int],
    *,
    layout: DatasetLayout,
    folder: Path,
    suffix: str | None,
    check_values: bool,
) -> Target:
    """Describe the new dataset: where and how its files are written."""
    return Target(
        layout=layout,
        folder=folder,
        suffix=choose_suffix(original.spec, suffix),
        channels=len(original.spec.channels),
        values=values,
        known=(*labels.values, *([labels.ignore] if labels.ignore is not None else [])),
        check_values=check_values,
    )


def _read(
    origin: Path,
    files: FileNames,
    *,
    has_manifest: bool,
    group_by: str | None,
    spacing: Triple | None,
    formats: FormatSettings,
    workers: int,
    listen: ProgressOfStep,
) -> Source:
    if not has_manifest:
        if not origin.exists():
            raise DatasetError("does not exist", where=origin, remedy="check the path", code="E-DATASET-NOT-FOUND")
        return read_plain_source(
            origin,
            files,
            group_by=group_by,
            spacing=spacing,
            formats=formats,
            workers=workers,
            progress=listen("read labels"),
        )
    if not (origin / MANIFEST).is_file():
        raise DatasetError(
            f"has no {MANIFEST}",
            where=origin,
            remedy="use the folders of its images and label maps: --images, --labels",
        )
    if files != FileNames():
        raise OptionError(
            "--channels, --classes, --labels, --test-images and --label-suffix are for plain folders and CSV files",
            where=origin,
            remedy=f"leave them out, since {MANIFEST} contains this information; or use --images to ignore it",
            code="E-OPTION-CONFLICT",
        )
    return read_source(origin, group_by=group_by, spacing=spacing, formats=formats)


def _manifest(original: Source, labels: LabelSet, target: Target) -> dict[str, object]:
    given = original.spec.groups_from != "names"  # a guess must not become a fact of the new dataset
    content = ManifestContent(
        name=target.folder.name,
        channels=original.spec.channels,
        labels=labels,
        training=[case.id for case in original.spec.cases],
        test=[case.id for case in original.spec.test_cases],
        suffix=target.suffix,
        groups={case.id: case.group for case in original.spec.cases if given and case.group is not None},
        annotated=annotated_of(original.spec),
        structure_codes=original.spec.structure_codes,
        texts=original.texts,
    )
    return nnunet_manifest(content) if target.layout == "nnunet" else decathlon_manifest(content)
