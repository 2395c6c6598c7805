"""Receives instances by C-STORE: an instance is on the disk before its sender is told so."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from decathlete.core.lazy_import import lazy_import
from decathlete.errors import OptionError
from decathlete.serving.dicom_node.instance_files import StagedInstance, read_uids
from decathlete.serving.dicom_node.node_store import NodeStore
from decathlete.serving.dicom_node.settings import DicomNodeSettings

pynetdicom = lazy_import("pynetdicom")

_SUCCESS, _NO_RESOURCES, _NOT_UNDERSTOOD = 0x0000, 0xA700, 0xC000
_TIMEOUT_S = 60
_MAX_ASSOCIATIONS = 20
IMAGE_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.2.1",  # enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # legacy converted enhanced CT
    "1.2.840.10008.5.1.4.1.1.4",  # MR
    "1.2.840.10008.5.1.4.1.1.4.1",  # enhanced MR
    "1.2.840.10008.5.1.4.1.1.4.4",  # legacy converted enhanced MR
    "1.2.840.10008.5.1.4.1.1.128",  # PET
    "1.2.840.10008.5.1.4.1.1.130",  # enhanced PET
    "1.2.840.10008.5.1.4.1.1.128.1",  # legacy converted enhanced PET
)
"""SOP classes that a node receives."""
TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # explicit little endian
    "1.2.840.10008.1.2",  # implicit little endian
    "1.2.840.10008.1.2.4.70",  # JPEG lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.5",  # RLE
)
_VERIFICATION = "1.2.840.10008.1.1"

log = logging.getLogger(__name__)


class Receiver:
    """A storage service class provider.

    Args:
        clock: seconds since 1970.

    Raises:
        OptionError: the address cannot be used.
    """

    def __init__(self, settings: DicomNodeSettings, store: NodeStore, *, clock: Callable[[], float]) -> None:
        self._settings, self._store, self._clock = settings, store, clock
        self._open: dict[Any, set[str]] = {}
        self._lock = threading.Lock()
        self._server: Any = None

    def start(self) -> None:
        """Listen in threads of its own."""
        entity = pynetdicom.AE(ae_title=self._settings.aet)
        for sop_class in IMAGE_CLASSES:
            entity.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
        entity.add_supported_context(_VERIFICATION)
        entity.require_calling_aet = list(self._settings.callers)
        entity.require_called_aet = True
        entity.maximum_associations = _MAX_ASSOCIATIONS
        entity.network_timeout = entity.acse_timeout = entity.dimse_timeout = _TIMEOUT_S
        events = pynetdicom.evt
        handlers = [
            (events.EVT_C_STORE, self._receive),
            (events.EVT_RELEASED, self._closed),
            (events.EVT_ABORTED, self._closed),
            (events.EVT_CONN_CLOSE, self._closed),
        ]
        address = (self._settings.host, self._settings.port)
        try:
            self._server = entity.start_server(address, block=False, evt_handlers=handlers)
        except OSError as problem:
            raise OptionError(
                f"cannot listen at {address[0]}:{address[1]} ({problem.strerror or problem})",
                remedy="choose another port in --dicom-node",
            ) from problem

    def stop(self) -> None:
        """Close the port and all associations."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return int(self._server.socket.getsockname()[1])

    def busy_series(self) -> frozenset[str]:
        """Return the series of associations that are open."""
        with self._lock:
            return frozenset(uid for uids in self._open.values() for uid in uids)

    def _receive(self, event: Any) -> int:
        """Store an instance; return the status for its sender."""
        try:
            content = event.encoded_dataset()
        except Exception as problem:  # it has no dataset
            return _reject(problem)
        if not self._store.make_room(len(content), limit_bytes=self._settings.max_bytes):
            log.error("an instance was rejected: there is no room for it (limit of the stored series, or of the disk)")
            return _NO_RESOURCES
        try:
            with self._store.arriving() as folder:
                path = folder / "instance"
                path.write_bytes(content)
                return self._register(path, event)
        except Exception as problem:  # such as a full disk below the files or the database
            log.error("an instance could not be stored: %s", type(problem).__name__)
            return _NO_RESOURCES

    def _register(self, path: Path, event: Any) -> int:
        try:
            uids = read_uids(path)
        except Exception as problem:  # pydicom raises anything for what is not DICOM
            return _reject(problem)
        if not (uids.sop_uid and uids.series_uid and uids.study_uid):
            return _NOT_UNDERSTOOD
        if uids.sop_uid != event.request.AffectedSOPInstanceUID:
            return _NOT_UNDERSTOOD
        with self._lock:
            self._open.setdefault(event.assoc, set()).add(uids.series_uid)
        self._store.register([StagedInstance.of_file(path, uids, origin="store")], now=self._clock())
        return _SUCCESS

    def _closed(self, event: Any) -> None:
        with self._lock:
            self._open.pop(event.assoc, None)


def _reject(problem: Exception) -> int:
    log.warning("an instance could not be read (%s) and was rejected", type(problem).__name__)
    return _NOT_UNDERSTOOD
