"""Options of the DICOM node that runs beside the service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decathlete.cli.service_options import LOCAL
from decathlete.core.extras import import_optional
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.serving.dicom_node.settings import DicomNodeSettings
    from decathlete.serving.settings import ServiceLimits

NODE = "DICOM node"


@dataclass(frozen=True, kw_only=True)
class DicomNodeArguments:
    """Options of the DICOM node."""

    dicom_node: Annotated[
        str | None,
        typer.Option(
            metavar="AET:PORT",
            rich_help_panel=NODE,
            show_default="none",
            help="Receive series by C-STORE under this title and port, segment them with the first model, and send "
            "DICOM segmentations back.",
        ),
    ] = None
    dicom_caller: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AET",
            rich_help_panel=NODE,
            help="Title of an application that may send to the node. Can be repeated.",
        ),
    ] = None
    dicom_host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            rich_help_panel=NODE,
            show_default=LOCAL,
            help="Address that the node listens on; 0.0.0.0: all addresses.",
        ),
    ] = None
    send_to: Annotated[
        str | None,
        typer.Option(
            metavar="AET@HOST:PORT", rich_help_panel=NODE, help="Receiver of the results of series that were sent."
        ),
    ] = None
    series: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[CHANNEL=]RULE",
            rich_help_panel=NODE,
            show_default="by the names of the channels",
            help="Series that the node segments, as in decathlete predict: modality:CT,description:*thorax*. Can "
            "be repeated, for models of several channels: PET=modality:PT.",
        ),
    ] = None
    dicomweb: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            rich_help_panel=NODE,
            show_default="none",
            help="DICOMweb archive: its series that this model did not segment yet are segmented, and the results are "
            "stored there.",
        ),
    ] = None
    dicomweb_every: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=1,
            rich_help_panel=NODE,
            show_default="60",
            help="Time between two queries of the archive.",
        ),
    ] = None

    dicom_max_storage: Annotated[
        float | None,
        typer.Option(
            metavar="GB",
            min=0,
            rich_help_panel=NODE,
            show_default="50",
            help="Maximum size of the stored series; files of series that are finished are deleted first.",
        ),
    ] = None

    def to_settings(self, data: Path, limits: ServiceLimits) -> DicomNodeSettings | None:
        """Return the options as :class:`DicomNodeSettings`; ``None`` if there is no node.

        Args:
            data: folder of the service.
            limits: of the service; those of time and image size are also the node's.

        Raises:
            OptionError: an option is not valid, or has no effect without another.
            MissingPackageError: pynetdicom is not installed.
        """
        self._check_effect()
        if self.dicom_node is None and self.dicomweb is None:
            return None
        import_optional("pynetdicom", title="pynetdicom", extra="serve")
        from decathlete.serving.dicom_node.settings import NODE_FOLDER, DicomNodeSettings, Peer, parse_listen

        aet, port = parse_listen(self.dicom_node) if self.dicom_node is not None else ("DECATHLETE", None)
        return DicomNodeSettings(
            data=data / NODE_FOLDER,
            aet=aet,
            port=port,
            host=self.dicom_host or LOCAL,
            callers=tuple(self.dicom_caller or ()),
            send_to=Peer.parse(self.send_to) if self.send_to is not None else None,
            series=tuple(self.series or ()),
            dicomweb=self.dicomweb,
            poll_seconds=self.dicomweb_every or 60.0,
            job_seconds=limits.job_seconds,
            keep_seconds=limits.keep_seconds,
            image_bytes=limits.image_bytes,
            max_bytes=round((50.0 if self.dicom_max_storage is None else self.dicom_max_storage) * 1e9),
        )

    def _check_effect(self) -> None:
        of_node = {"--dicom-caller": self.dicom_caller, "--dicom-host": self.dicom_host, "--send-to": self.send_to}
        of_web = {"--dicomweb-every": self.dicomweb_every}
        of_both = {"--series": self.series, "--dicom-max-storage": self.dicom_max_storage}
        for needed, value, options in (
            ("--dicom-node", self.dicom_node, of_node),
            ("--dicomweb", self.dicomweb, of_web),
            ("--dicom-node or --dicomweb", self.dicom_node or self.dicomweb, of_both),
        ):
            if value is None and (useless := [name for name, given in options.items() if given is not None]):
                raise OptionError(
                    f"{', '.join(useless)} has no effect without {needed}",
                    remedy=f"add {needed}, or leave it out",
                    code="E-OPTION-CONFLICT",
                )
