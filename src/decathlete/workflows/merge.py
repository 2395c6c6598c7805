"""Merge datasets with different classes into one dataset: unite labels, survey every file, link or write each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from decathlete.core.choices import DatasetLayout
from decathlete.core.locks import locked_output
from decathlete.core.output_paths import check_writable_path
from decathlete.core.progress import ProgressOfStep
from decathlete.dataset.conversion.jobs import Job
from decathlete.dataset.conversion.merge import MergedDatasets, merge_sources
from decathlete.dataset.conversion.run import ConversionResult, check_output, check_replaceable, run_jobs
from decathlete.dataset.conversion.source import read_source
from decathlete.dataset.conversion.survey import Target, choose_suffix, survey
from decathlete.dataset.layouts import ManifestContent, decathlon_manifest, nnunet_manifest
from decathlete.errors import OptionError
from decathlete.io.format_lookup import check_suffix
from decathlete.io.format_settings import format_settings
from decathlete.workflows.workspace import Workspace


def merge_datasets(
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    to: DatasetLayout,
    suffix: str | None = None,
    copy: bool = False,
    image_formats: Mapping[str, Mapping[str, Any]] | None = None,
    workspace: Workspace = Workspace(),
    workers: int = 2,
    overwrite: bool = False,
    listen: ProgressOfStep = lambda _: None,
) -> ConversionResult:
    """Create one dataset from several in the folder ``output``; unchanged files become links.

    Classes with the same name become one class. The manifest lists for each case which classes were annotated, so that
    training neither punishes nor scores the others. Folds of the sources are united if all have the same number.

    Args:
        sources: datasets with ``dataset.json``: paths, folder names or numbers under ``workspace.data``.
        to: ``decathlon`` or ``nnunet`` (v2; the folder must have a name like ``Dataset123_Name``).
        suffix, copy, image_formats, overwrite, listen: see :func:`~decathlete.convert`.

    Raises:
        DatasetError: a source is not valid, or the sources contradict each other; lists every problem. Nothing was
            written.
        OptionError: fewer than two sources, a suffix of no format that can be written, or settings that an image format
            does not have.
        OutputError: ``output`` may not be written, or contains other files.
        CasesFailedError: at the end, if some cases could not be converted.
    """
    check_suffix(suffix)
    settings = format_settings(image_formats or {})
    folder, roots = check_writable_path(output), [workspace.dataset(source) for source in sources]
    if len({root.resolve() for root in roots}) < 2:
        raise OptionError("--merge needs at least two different datasets", remedy="name them: --merge A B")
    check_output(folder, roots[0], source_folders=roots, nnunet=to == "nnunet")
    with locked_output(folder):
        check_replaceable(folder)
        merged = merge_sources([read_source(root, formats=settings) for root in roots])
        chosen = suffix or _common_suffix(merged)
        jobs: dict[str, tuple[Job, ...]] = {}
        for part in merged.parts:
            target = Target(
                layout=to,
                folder=folder,
                suffix=chosen,
                channels=len(merged.channels),
                values=part.values,
                known=part.known,
                check_values=True,
            )
            jobs |= survey(part.spec, target, workers=workers, progress=listen(f"read headers of {part.spec.name}"))
        return run_jobs(
            jobs,
            folder,
            source=" + ".join(str(root.resolve()) for root in roots),
            manifest=_manifest(merged, folder, to, chosen),
            folds=merged.folds,
            values={},
            numbering=[[sorted(part.values.items()), list(part.known)] for part in merged.parts],
            copy=copy,
            image_formats=settings,
            overwrite=overwrite,
            workers=workers,
            progress=listen("merge"),
        )


def _common_suffix(merged: MergedDatasets) -> str:
    """Return the suffix of the files of all datasets.

    Raises:
        DatasetError: they have several.
        OptionError: the datasets have different ones.
    """
    found = {part.spec.name: choose_suffix(part.spec, None) for part in merged.parts}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} {suffix}" for name, suffix in found.items())
        raise OptionError(
            f"the datasets have files of different formats ({listed})",
            remedy=f"add e.g. --suffix {next(iter(found.values()))}: the other files are converted",
        )
    return next(iter(found.values()))


def _manifest(merged: MergedDatasets, folder: Path, layout: DatasetLayout, suffix: str) -> dict[str, object]:
    content = ManifestContent(
        name=folder.name,
        channels=merged.channels,
        labels=merged.labels,
        training=[case.id for part in merged.parts for case in part.spec.cases],
        test=[case.id for part in merged.parts for case in part.spec.test_cases],
        suffix=suffix,
        groups=merged.groups,
        annotated=merged.annotated,
        structure_codes={
            name: code for part in reversed(merged.parts) for name, code in part.spec.structure_codes.items()
        },
        texts=merged.texts,
    )
    return nnunet_manifest(content) if layout == "nnunet" else decathlon_manifest(content)
