"""Command ``convert``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decathlete.cli import options as o
from decathlete.cli.terminal import echo
from decathlete.core.choices import DatasetLayout
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.dataset.conversion.plain_sources import FileNames
    from decathlete.dataset.conversion.run import Record

FILES = "Plain folders and tables"


@dataclass(frozen=True, kw_only=True)
class FileArguments:
    """Options for files without a ``dataset.json``."""

    channels: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            rich_help_panel=FILES,
            help="Names of the channels, with the suffixes of their files: MRI, or CT,PET, or "
            "T1=_t1,T2=_t2. The name CT selects CT normalisation.",
        ),
    ] = None
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            rich_help_panel=FILES,
            show_default="every value that occurs",
            help="Names of the classes: liver,tumour (values 1, 2), or liver=1,tumour=4,ignore=9.",
        ),
    ] = None
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", rich_help_panel=FILES, help="Folder of the images in SOURCE, if it has no dataset.json."
        ),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=FILES,
            show_default="with the images",
            help="Folder of the label maps in SOURCE.",
        ),
    ] = None
    test_images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", rich_help_panel=FILES, help="Folder of the test images in SOURCE."),
    ] = None
    label_suffix: Annotated[
        str,
        typer.Option(metavar="TEXT", rich_help_panel=FILES, help="Suffix of the names of label maps: _seg."),
    ] = ""

    def to_file_names(self) -> FileNames:
        """Return the options as :class:`FileNames`."""
        from decathlete.dataset.conversion.plain_sources import FileNames

        return FileNames(**vars(self))


def convert(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Source: a dataset (folder, or name or number under --data), a plain folder, or a CSV file. Several "
            "datasets with --merge.",
        ),
    ],
    to: Annotated[
        DatasetLayout,
        typer.Option("--to", help="Layout of the new dataset: Medical Segmentation Decathlon or nnU-Net v2."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder of the new dataset; for nnU-Net e.g. Dataset004_Liver."
        ),
    ],
    files: FileArguments,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge/--no-merge",
            help="Unite several datasets with different classes: classes of the same name become one, and the new "
            "dataset.json lists which classes were annotated in each case.",
        ),
    ] = False,
    copy: Annotated[bool, typer.Option("--copy/--no-copy", help="Copy files instead of linking to them.")] = False,
    suffix: Annotated[
        str | None,
        typer.Option(
            "--suffix",
            metavar="SUFFIX",
            show_default="the source's",
            help="File format of all images: .nii.gz, .nii, .nrrd, .mha, or a plug-in's; others are converted.",
        ),
    ] = None,
    regions: o.Regions = None,
    regions_order: o.RegionsOrder = None,
    brats: o.Brats = False,
    group_by: o.GroupBy = None,
    spacing: o.Spacing = None,
    data: o.Data = Path("data"),
    workers: o.Workers = 2,
    overwrite: o.Overwrite = False,
) -> None:
    """Convert a dataset to another layout. The source is not changed; files are linked where possible."""
    if merge:
        _reject_ignored(files, regions, regions_order, brats, group_by, spacing)
        _merge(sources, output, to=to, suffix=suffix, copy=copy, data=data, workers=workers, overwrite=overwrite)
        return
    if len(sources) > 1:
        raise OptionError(
            f"{len(sources)} sources are given, a conversion has one",
            remedy="add --merge to unite them, or convert one after the other",
        )
    from decathlete.cli.progress import TerminalReporter
    from decathlete.core.regions import parse_order
    from decathlete.workflows.convert import convert as convert_dataset
    from decathlete.workflows.workspace import Workspace

    record = convert_dataset(
        sources[0],
        output,
        to=to,
        files=files.to_file_names(),
        suffix=suffix,
        copy=copy,
        regions=regions,
        regions_order=parse_order(regions_order),
        brats=brats,
        group_by=group_by,
        spacing=o.parse_spacing(spacing),
        workspace=Workspace(data=data),
        workers=workers,
        overwrite=overwrite,
        listen=TerminalReporter().cases,
    )
    echo("\n".join(_summary_lines(output, record)))


def _merge(
    sources: list[str],
    output: Path,
    *,
    to: DatasetLayout,
    suffix: str | None,
    copy: bool,
    data: Path,
    workers: int,
    overwrite: bool,
) -> None:
    from decathlete.cli.progress import TerminalReporter
    from decathlete.dataset.manifest import read_dataset
    from decathlete.workflows.merge import merge_datasets
    from decathlete.workflows.workspace import Workspace

    record = merge_datasets(
        sources,
        output,
        to=to,
        suffix=suffix,
        copy=copy,
        workspace=Workspace(data=data),
        workers=workers,
        overwrite=overwrite,
        listen=TerminalReporter().cases,
    )
    spec = read_dataset(output)
    n_partial = sum(bool(case.unannotated) for case in spec.cases)
    echo("\n".join(_summary_lines(output, record)))
    echo("classes: " + ", ".join(f"{c.value} {c.name}" for c in spec.labels.foreground))
    echo(f"{n_partial} of {len(spec.cases)} cases have annotations of some of these classes only")


def _reject_ignored(
    files: FileArguments,
    regions: str | None,
    regions_order: str | None,
    brats: bool,
    group_by: str | None,
    spacing: str | None,
) -> None:
    """Reject options that a merge does not use.

    Raises:
        OptionError: one of them is set.
    """
    given = {
        "--regions": regions,
        "--regions-order": regions_order,
        "--brats": brats,
        "--group-by": group_by,
        "--spacing": spacing,
    } | {f"--{name.replace('_', '-')}": value for name, value in vars(files).items()}
    if used := [name for name, value in given.items() if value]:
        raise OptionError(
            f"{', '.join(used)} cannot be combined with --merge",
            remedy="convert each dataset with these options first, then merge the results",
            code="E-OPTION-CONFLICT",
        )


def _summary_lines(output: Path, record: Record) -> list[str]:
    changed = ", ".join(f"{old} is now {new}" for old, new in record.values.items())
    files = f"{record.linked} files linked, {record.written} written"
    return [f"{output}: {files}", *([f"label values are renumbered: {changed}"] if changed else [])]
