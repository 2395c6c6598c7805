"""Addresses and limits of a DICOM node."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from decathlete.errors import OptionError

_AET = r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,15}"
_LISTEN = re.compile(rf"(?P<aet>{_AET}):(?P<port>\d{{1,5}})")
_PEER = re.compile(rf"(?P<aet>{_AET})@(?P<host>[A-Za-z0-9.\-\[\]:]+):(?P<port>\d{{1,5}})")
_URL = re.compile(r"https?://[^\s@]+")
MAX_PORT = 65535
NODE_FOLDER = "dicom-node"
"""Folder of the DICOM node in the folder of its service."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A DICOM application that receives objects."""

    aet: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Peer:
        """Parse ``AET@host:port``.

        >>> Peer.parse("ARCHIVE@pacs.example.org:104").port
        104

        Raises:
            OptionError: the text has another form.
        """
        match = _PEER.fullmatch(text)
        if match is None or not 0 < int(match["port"]) <= MAX_PORT:
            raise _syntax_error(text, "AET@host:port, such as ARCHIVE@192.0.2.7:104")
        return cls(aet=match["aet"], host=match["host"].strip("[]"), port=int(match["port"]))


@dataclass(frozen=True, kw_only=True)
class DicomNodeSettings:
    """What a node receives, and where its results go.

    Attributes:
        data: folder of instances, jobs and results.
        aet, port: under which it receives C-STORE; ``None``: it does not. Port 0 selects a free one.
        host: address to listen at.
        callers: application entity titles that may send.
        send_to: receives the results of series that came by C-STORE.
        dicomweb: address of an archive whose series are segmented, and which receives their results; ``None``: none.
        series: rules that choose the series, as those of ``decathlete predict --series``; empty: by the names of the
            model's channels.
        modalities: of the series that are copied from the archive, if the rules allow any.
        quiet_seconds: a series is complete when its associations are closed and no instance came for this time.
        poll_seconds: between two queries of the archive.
        retry_seconds: before a result that was not accepted is sent again; doubled each time, up to ten minutes.
        job_seconds: longest computation of one job.
        keep_seconds: age at which series and results are deleted.
        max_bytes: greatest size of all stored series.
        image_bytes: greatest size of an image in memory.
    """

    data: Path
    aet: str = "DECATHLETE"
    port: int | None = None
    host: str = "127.0.0.1"
    callers: tuple[str, ...] = ()
    send_to: Peer | None = None
    dicomweb: str | None = None
    series: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ("CT", "MR", "PT")
    quiet_seconds: float = 10.0
    poll_seconds: float = 60.0
    retry_seconds: float = 10.0
    job_seconds: float = 3600.0
    keep_seconds: float = 7 * 86400.0
    max_bytes: int = 50 * 10**9
    image_bytes: int = 8 * 10**9

    def __post_init__(self) -> None:
        if self.port is None and self.dicomweb is None:
            raise OptionError("the DICOM node neither listens nor polls", remedy="add --dicom-node or --dicomweb")
        if self.port is not None and not self.callers:
            raise OptionError(
                "no caller may send to the DICOM node",
                remedy="name the application entity titles that may: --dicom-caller AET",
            )
        if self.port is not None and self.send_to is None:
            raise OptionError(
                "the DICOM node has no receiver for its results", remedy="name one: --send-to AET@host:port"
            )
        if self.dicomweb is not None and not _URL.fullmatch(self.dicomweb):
            raise _syntax_error(self.dicomweb, "an address such as https://archive.example.org/dicom-web")
        for caller in self.callers:
            if not re.fullmatch(_AET, caller):
                raise _syntax_error(caller, "an application entity title of at most 16 characters")


def parse_listen(text: str) -> tuple[str, int]:
    """Parse ``AET:PORT`` to title and port.

    >>> parse_listen("DECATHLETE:11112")
    ('DECATHLETE', 11112)

    Raises:
        OptionError: the text has another form.
    """
    match = _LISTEN.fullmatch(text)
    if match is None or int(match["port"]) > MAX_PORT:
        raise _syntax_error(text, "AET:PORT, such as DECATHLETE:11112")
    return match["aet"], int(match["port"])


def _syntax_error(text: str, form: str) -> OptionError:
    return OptionError(f"{text!r} is not {form}", remedy=f"write {form}", code="E-OPTION-SYNTAX")
