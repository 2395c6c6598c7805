"""Options of services: where they listen, who may use them, and what they allow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from decathlete.serving.settings import ServiceLimits

LIMITS = "Limits"
PROTECTION = "Address and protection"
LOCAL = "127.0.0.1"
"""Address that only this computer can reach."""

ListenAddress = Annotated[
    str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on; 0.0.0.0: all addresses.")
]


@dataclass(frozen=True, kw_only=True)
class ProtectionArguments:
    """Options of the port, and of who may use the service."""

    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, rich_help_panel=PROTECTION, help="Port; 0: any free one.")
    ] = 8080
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=PROTECTION,
            help="File with the token that every request needs; required unless only this computer can connect.",
        ),
    ] = None
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=PROTECTION,
            help="Further name under which the service is reached, e.g. through a proxy; no port. Can be repeated.",
        ),
    ] = None
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            rich_help_panel=PROTECTION,
            help="Other site whose pages may use the API, e.g. https://viewer.example.org. Can be repeated.",
        ),
    ] = None

    def read_token(self) -> str | None:
        """Return the token, if one is required.

        Raises:
            OptionError: its file cannot be read, or it is not a safe token.
        """
        from decathlete.serving.settings import read_token

        return read_token(self.token_file) if self.token_file else None


@dataclass(frozen=True, kw_only=True)
class LimitArguments:
    """Limits of sizes, numbers and times."""

    keep: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            rich_help_panel=LIMITS,
            help="Age at which images and results are deleted: 90s, 20m, 12h, 7d.",
        ),
    ] = "7d"
    max_upload: Annotated[
        float, typer.Option(metavar="GB", min=0, rich_help_panel=LIMITS, help="Maximum size of an upload.")
    ] = 2.0
    max_image: Annotated[
        float,
        typer.Option(
            metavar="GB",
            min=0,
            rich_help_panel=LIMITS,
            help="Maximum size of an image in memory (4 bytes for each voxel and channel), also of the DICOM node, "
            "and of an unpacked archive.",
        ),
    ] = 8.0
    max_jobs: Annotated[
        int, typer.Option(metavar="N", min=1, rich_help_panel=LIMITS, help="Maximum number of waiting jobs.")
    ] = 1000
    max_time: Annotated[
        str,
        typer.Option(
            metavar="DURATION", rich_help_panel=LIMITS, help="Longest upload, and longest computation of one job."
        ),
    ] = "1h"
    model_memory: Annotated[
        float | None,
        typer.Option(
            metavar="GB",
            min=0,
            rich_help_panel=LIMITS,
            show_default="all models stay loaded",
            help="Memory for loaded models, by the size of their files; the least recently used ones are unloaded.",
        ),
    ] = None

    @property
    def model_memory_bytes(self) -> int | None:
        """Memory for loaded models; ``None``: unlimited."""
        return None if self.model_memory is None else round(self.model_memory * 1e9)

    def to_limits(self) -> ServiceLimits:
        """Return the options as :class:`ServiceLimits`.

        Raises:
            OptionError: a duration has another form.
        """
        from decathlete.core.durations import parse_duration
        from decathlete.serving.settings import ServiceLimits

        seconds = parse_duration(self.max_time)
        return ServiceLimits(
            upload_bytes=round(self.max_upload * 1e9),
            image_bytes=round(self.max_image * 1e9),
            waiting_jobs=self.max_jobs,
            job_seconds=seconds,
            upload_seconds=seconds,
            keep_seconds=parse_duration(self.keep),
        )
