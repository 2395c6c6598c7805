"""Options of ``run`` for folders of images and label maps without a ``dataset.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decathlete.cli.terminal import echo
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.cli.progress import TerminalReporter
    from decathlete.dataset.plain_folders import PlainDataset
    from decathlete.workflows.fold import PipelineOptions

FOLDERS = "Plain folders, instead of a dataset.json"


@dataclass(frozen=True, kw_only=True)
class PlainFolderArguments:
    """Options for files without a ``dataset.json``; nothing is written beside them."""

    images: Annotated[
        Path | None, typer.Option(metavar="DIR", rich_help_panel=FOLDERS, help="Folder of the images.")
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", rich_help_panel=FOLDERS, show_default="with the images", help="Folder of the label maps."
        ),
    ] = None
    test_images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", rich_help_panel=FOLDERS, help="Folder of images without label maps, to predict."),
    ] = None
    channels: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            rich_help_panel=FOLDERS,
            show_default="found in the files",
            help="Names of the channels, with the suffixes of their files: MRI, or CT,PET, or T1=_t1,T2=_t2. The name "
            "CT selects CT normalisation.",
        ),
    ] = None
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            rich_help_panel=FOLDERS,
            show_default="every value that occurs",
            help="Names of the classes: liver,tumour (values 1, 2), or liver=1,tumour=4,ignore=9.",
        ),
    ] = None
    label_suffix: Annotated[
        str, typer.Option(metavar="TEXT", rich_help_panel=FOLDERS, help="Suffix of the names of label maps: _seg.")
    ] = ""
    structures: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            rich_help_panel=FOLDERS,
            show_default="every name that occurs",
            help="Classes and their structures in DICOM labels (SEG, RT structure sets): tumour=GTV*,liver=Liver.",
        ),
    ] = None

    def describe(
        self,
        name: str | None,
        *,
        group_by: str | None,
        workers: int,
        options: PipelineOptions,
        reporter: TerminalReporter,
    ) -> str:
        """Return the dataset of a command: ``name``, or the description of the folders, which is printed.

        Args:
            workers: label maps that are read at a time.
            options: of which workspace, spacing, settings of image formats and overwriting are used.

        Raises:
            OptionError: there is neither a name nor a folder of images, or the other options have no effect.
        """
        if self.images is None:
            return self._require_name(name)
        from decathlete.dataset.conversion.plain_sources import FileNames
        from decathlete.workflows.plain_dataset import describe_folders

        def show(found: PlainDataset) -> None:
            echo("\n".join(found.describe()))

        folder = describe_folders(
            FileNames(**vars(self)),
            name=name,
            workspace=options["workspace"],
            group_by=group_by,
            spacing=options["spacing"],
            image_formats=options["image_formats"],
            workers=workers,
            overwrite=options["overwrite"],
            progress=reporter.cases("read labels"),
            on_found=show,
        )
        echo(f"dataset: {folder} (use it for other commands; the files stay where they are)")
        return str(folder)

    def _require_name(self, name: str | None) -> str:
        if vars(self) != vars(PlainFolderArguments()):
            raise OptionError(
                "--labels, --test-images, --channels, --classes, --label-suffix and --structures have no effect "
                "without --images",
                remedy="add --images DIR, or leave them out",
                code="E-OPTION-CONFLICT",
            )
        if name is None:
            raise OptionError(
                "there is no dataset",
                remedy="name a folder with dataset.json (DATASET), or use --images DIR --labels DIR",
            )
        return name
