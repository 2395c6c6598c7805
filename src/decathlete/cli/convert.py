"""Command ``convert``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decathlete.cli import options as o
from decathlete.cli.component_settings import FormatSettings, only_image_formats
from decathlete.cli.option_values import parse_spacing
from decathlete.cli.terminal import echo
from decathlete.core.choices import DatasetLayout
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.dataset.conversion.plain_sources import FileNames
    from decathlete.dataset.conversion.run import ConversionResult

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
    structures: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            rich_help_panel=FILES,
            show_default="every name that occurs",
            help="Classes and their structures in DICOM labels (SEG, RT structure sets): tumour=GTV*,liver=Liver.",
        ),
    ] = None

    def to_file_names(self) -> FileNames:
        """Return the options as :class:`FileNames`."""
        from decathlete.dataset.conversion.plain_sources import FileNames

        return FileNames(**vars(self))


Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Source: a dataset (folder, or name or number under --data), a plain folder, or a CSV file. Several "
        "datasets with --merge.",
    ),
]
Layout = Annotated[
    DatasetLayout,
    typer.Option("--to", help="Layout of the new dataset: Medical Segmentation Decathlon or nnU-Net v2."),
]
Output = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="DIR", help="Folder of the new dataset; for nnU-Net e.g. Dataset004_Liver."),
]
Copy = Annotated[bool, typer.Option("--copy/--no-copy", help="Copy files instead of linking to them.")]
Merge = Annotated[
    bool,
    typer.Option(
        "--merge/--no-merge",
        help="Unite several datasets with different classes: classes of the same name become one, and the new "
        "dataset.json lists which classes were annotated in each case.",
    ),
]
Suffix = Annotated[
    str | None,
    typer.Option(
        "--suffix",
        metavar="SUFFIX",
        show_default="the source's",
        help="File format of all images and label maps, which are converted if needed: .nii.gz, .nii, .nrrd, .mha, "
        ".mgz, .png, .bmp, .tif, .ome.tif, or a plug-in's.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ReadingArguments:
    """Options of the way in which one source is read. A merge has none of them."""

    regions: o.Regions = None
    regions_order: o.RegionsOrder = None
    brats: o.Brats = False
    group_by: o.GroupBy = None
    spacing: o.Spacing = None

    def to_fields(self) -> dict[str, Any]:
        """Return the options as arguments of a conversion."""
        from decathlete.core.regions import parse_order

        parsed = {"regions_order": parse_order(self.regions_order), "spacing": parse_spacing(self.spacing)}
        return vars(self) | parsed


def convert(
    sources: Sources,
    to: Layout,
    output: Output,
    files: FileArguments,
    reading: ReadingArguments,
    merge: Merge = False,
    copy: Copy = False,
    suffix: Suffix = None,
    set_: FormatSettings = None,
    data: o.Data = Path("data"),
    workers: o.Workers = 2,
    overwrite: o.Overwrite = False,
) -> None:
    """Convert a dataset to another layout. The source is not changed; files are linked where possible."""
    _check_sources(sources, files, reading, merge=merge)
    from decathlete.cli.progress import TerminalReporter
    from decathlete.workflows.convert import convert as convert_dataset
    from decathlete.workflows.merge import merge_datasets
    from decathlete.workflows.workspace import Workspace

    writing: dict[str, Any] = {
        "to": to,
        "suffix": suffix,
        "copy": copy,
        "image_formats": only_image_formats(set_),
        "workspace": Workspace(data=data),
        "workers": workers,
        "overwrite": overwrite,
        "listen": TerminalReporter().cases,
    }
    if merge:
        record = merge_datasets(sources, output, **writing)
    else:
        record = convert_dataset(sources[0], output, files=files.to_file_names(), **reading.to_fields(), **writing)
    echo("\n".join([*_summary_lines(output, record), *(_merged_lines(output) if merge else ())]))


def _check_sources(sources: list[str], files: FileArguments, reading: ReadingArguments, *, merge: bool) -> None:
    """Check that there is one source, or that several are merged without options of one source.

    Raises:
        OptionError: it is not so.
    """
    if merge:
        _reject_ignored(files, reading)
    elif len(sources) > 1:
        raise OptionError(
            f"{len(sources)} sources are given, a conversion has one",
            remedy="add --merge to unite them, or convert one after the other",
        )


def _reject_ignored(files: FileArguments, reading: ReadingArguments) -> None:
    """Reject options that a merge does not use.

    Raises:
        OptionError: one of them is set.
    """
    used = [f"--{name.replace('_', '-')}" for name, value in (vars(reading) | vars(files)).items() if value]
    if used:
        raise OptionError(
            f"{', '.join(used)} cannot be combined with --merge",
            remedy="convert each dataset with these options first, then merge the results",
            code="E-OPTION-CONFLICT",
        )


def _summary_lines(output: Path, record: ConversionResult) -> list[str]:
    changed = ", ".join(f"{old} is now {new}" for old, new in record.values.items())
    files = f"{record.linked} files linked, {record.written} written"
    return [f"{output}: {files}", *([f"label values are renumbered: {changed}"] if changed else [])]


def _merged_lines(output: Path) -> list[str]:
    """Return the classes of a merged dataset, and how many of its cases have annotations of some of them only."""
    from decathlete.dataset.manifest import read_dataset

    spec = read_dataset(output)
    n_partial = sum(bool(case.unannotated) for case in spec.cases)
    return [
        "classes: " + ", ".join(f"{c.value} {c.name}" for c in spec.labels.foreground),
        f"{n_partial} of {len(spec.cases)} cases have annotations of some of these classes only",
    ]
