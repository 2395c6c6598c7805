"""What a service offers, where it listens, and what it allows."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decathlete.core.files import read_text
from decathlete.core.geometry import Triple
from decathlete.core.structure_codes import StructureCode
from decathlete.errors import OptionError
from decathlete.inference.options import PredictOptions
from decathlete.io.reading import Reading

MIN_TOKEN_CHARACTERS = 16
"""Least length of a token: a shorter one can be guessed."""

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+")


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model that a service offers.

    Attributes:
        folder: of a run, a model or an exported program.
        name: in the API; ``None``: the name of the dataset that it was trained on.
    """

    folder: Path
    name: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelSource:
        """Parse ``DIR`` or ``NAME=DIR``.

        >>> ModelSource.parse("liver=results/Task03_Liver/3d/fold_0").name
        'liver'

        Raises:
            OptionError: the name has characters that an address cannot have, or a part is empty.
        """
        name, separator, folder = text.partition("=")
        if not separator or "/" in name:
            name, folder = "", text
        if not folder or (separator and name and not _MODEL_NAME.fullmatch(name)):
            raise OptionError(
                f"--model {text!r} is not DIR or NAME=DIR",
                remedy="name the folder of a model; NAME may have letters, digits, '.', '_' and '-'",
                code="E-OPTION-SYNTAX",
            )
        return cls(folder=Path(folder), name=name or None)


@dataclass(frozen=True, kw_only=True)
class ServiceLimits:
    """What a service allows.

    Attributes:
        upload_bytes: greatest size of one upload.
        image_bytes: greatest size of an image in memory (all channels, 4 bytes for each voxel), and of an archive when
            it is unpacked.
        waiting_jobs: greatest number of jobs in the queue.
        uploads_at_once: greatest number of uploads under way.
        job_seconds: longest computation of one job.
        upload_seconds: longest duration of one upload.
        keep_seconds: age at which a job and all its files are deleted.
    """

    upload_bytes: int = 2 * 10**9
    image_bytes: int = 8 * 10**9
    waiting_jobs: int = 1000
    uploads_at_once: int = 64
    job_seconds: float = 3600.0
    upload_seconds: float = 3600.0
    keep_seconds: float = 7 * 86400.0


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Settings of :func:`decathlete.serve`.

    Attributes:
        models: models that are offered, at least one.
        data: folder of the queue, the uploads and the results; one service at a time uses it.
        studies: images that viewers name by an id: a folder, which is only read, or the address of a DICOMweb server.
        host: address to listen at.
        port: 0 selects a free one.
        token: required of every request; ``None`` only for addresses of this computer.
        allow_origins: other sites whose pages may use the API, e.g. ``"https://viewer.example.org"``.
        allow_hosts: further names or addresses under which the service is reached, e.g. behind a proxy, without ports.
        model_memory_bytes: memory for loaded models, by the size of their files; ``None``: all stay loaded.
        options: how the models predict.
        spacing: z, y, x in mm, for uploads, studies and series of the DICOM node whose files do not contain it.
        image_formats: settings of image formats that change how these files are read, by the name of the format.
        dicom_codes: structure -> its code in DICOM objects, which precedes that of the model.

    Raises:
        OptionError: no model, an address that others can reach without a token, a value out of range, a setting of an
            image format without effect, or ``data`` in ``studies``.
    """

    models: tuple[ModelSource, ...]
    data: Path
    studies: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = field(default=None, repr=False)
    allow_origins: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    model_memory_bytes: int | None = None
    limits: ServiceLimits = ServiceLimits()
    options: PredictOptions = PredictOptions()
    spacing: Triple | None = None
    image_formats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dicom_codes: Mapping[str, StructureCode] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.models:
            raise OptionError("no model is named", remedy="name the folder of a run or a model with --model")
        if self.token is not None:
            check_token(self.token)
        elif not is_loopback(self.host):
            raise OptionError(
                f"other computers can reach {self.host}, and no token protects the service",
                remedy="write a token to a file and name it with --token-file, or leave --host out",
            )
        if self._is_data_in_studies():
            raise OptionError(
                "lies in the folder of --studies, where uploads would be listed as studies",
                where=self.data,
                remedy="use a --data folder outside it",
                code="E-OPTION-CONFLICT",
            )
        self.reading.require_reading_settings()
        for host in self.allow_hosts:
            if host_name(host) is None:
                raise OptionError(
                    f"--allow-host {host!r} is not the name of a computer",
                    remedy="write it as seg.example.org, without a port: every port of the name is allowed",
                    code="E-OPTION-SYNTAX",
                )
        for origin in self.allow_origins:
            if not _ORIGIN.fullmatch(origin):
                raise OptionError(
                    f"--allow-origin {origin!r} is not the address of a site",
                    remedy="write it as https://viewer.example.org, without a path",
                    code="E-OPTION-SYNTAX",
                )

    def _is_data_in_studies(self) -> bool:
        if self.studies is None or "://" in self.studies:
            return False
        return self.data.resolve().is_relative_to(Path(self.studies).resolve())

    @property
    def reading(self) -> Reading:
        """The settings for reading uploads and studies."""
        return Reading().revised(self.spacing, self.image_formats)


def is_loopback(host: str) -> bool:
    """Return whether only this computer can reach an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_name(text: str) -> str | None:
    """Return the name or address of a computer as a Host header has it, without brackets; ``None``: it is neither.

    >>> [host_name(text) for text in ("Seg.example.org", "[2001:DB8:0::1]", "seg.example.org:8443", "*.example.org")]
    ['seg.example.org', '2001:db8::1', None, None]
    """
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        return text.lower() if _HOST_NAME.fullmatch(text) else None


def read_token(path: Path) -> str:
    """Read the token from a file; white space around it is no part of it.

    Raises:
        OptionError: the file cannot be read, or the token is too short or not printable ASCII.
    """
    return check_token(read_text(path, error=OptionError, remedy="check --token-file", limit_bytes=4096).strip())


def check_token(token: str) -> str:
    """Return ``token`` if it is safe to use.

    Raises:
        OptionError: it is shorter than :data:`MIN_TOKEN_CHARACTERS`, or not printable ASCII without spaces.
    """
    if len(token) < MIN_TOKEN_CHARACTERS or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise OptionError(
            f"the token must have at least {MIN_TOKEN_CHARACTERS} characters, all of them printable ASCII, no spaces",
            remedy="create one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return token
