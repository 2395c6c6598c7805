"""Sends results: by C-STORE to a peer, or by STOW-RS to an archive.

The answer to a delivery may be lost, so a receiver may already have an object that is sent again. That is a success,
since the identifier of an object is made of its content.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from decathlete.core.lazy_import import lazy_import
from decathlete.errors import ServiceError
from decathlete.serving.dicom_node.settings import Peer

pydicom = lazy_import("pydicom")
pynetdicom = lazy_import("pynetdicom")

_TIMEOUT_S = 60
_WARNINGS = range(0xB000, 0xC000)
"""Statuses of objects that were stored, with remarks."""
_DUPLICATE = 0x0111
"""Status of an object that the receiver has already."""
_SOP_UID = "00080018"


def send_by_store(files: Sequence[Path], peer: Peer, aet: str) -> None:
    """Send objects in one association.

    Raises:
        ServiceError: the peer cannot be reached, or does not accept an object.
    """
    datasets = [pydicom.dcmread(file) for file in files]
    entity = pynetdicom.AE(ae_title=aet)
    for sop_class, syntax in {(str(d.SOPClassUID), str(d.file_meta.TransferSyntaxUID)) for d in datasets}:
        entity.add_requested_context(sop_class, syntax)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = _TIMEOUT_S
    try:
        association = entity.associate(peer.host, peer.port, ae_title=peer.aet)
    except OSError as problem:  # such as a name that cannot be resolved
        raise _not_delivered(f"{peer.aet} cannot be reached ({type(problem).__name__})") from problem
    if not association.is_established:
        raise _not_delivered(f"{peer.aet} does not answer, or rejects the association")
    try:
        for dataset in datasets:
            _check_status(association.send_c_store(dataset), peer)
    except (ValueError, RuntimeError) as problem:  # no presentation context; connection lost
        raise _not_delivered(f"{peer.aet} does not accept the object ({type(problem).__name__})") from problem
    finally:
        if association.is_established:
            association.release()


def send_by_web(files: Sequence[Path], client: Any) -> None:
    """Send objects by STOW-RS. An archive that rejects some of them is asked whether it has them already.

    Args:
        client: of the package dicomweb_client.

    Raises:
        ServiceError: the archive cannot be reached, or does not accept an object.
    """
    datasets = [pydicom.dcmread(file) for file in files]
    try:
        answer = client.store_instances(datasets)
        is_unreadable = not len(answer)  # the client ignores what it cannot parse, such as a type with a charset
        if (is_unreadable or answer.get("FailedSOPSequence")) and not _has_all(client, datasets, unknown=is_unreadable):
            raise _not_delivered("the archive does not accept the object")
    except ServiceError:
        raise
    except Exception as problem:  # of requests, in many kinds
        status = getattr(getattr(problem, "response", None), "status_code", None)
        if status != HTTPStatus.CONFLICT or not _has_all(client, datasets, unknown=False):
            reason = type(problem).__name__ if status is None else f"HTTP status {status}"
            raise _not_delivered(f"the archive does not accept the object ({reason})") from problem


def _has_all(client: Any, datasets: Sequence[Any], *, unknown: bool) -> bool:
    """Return whether an archive has all of the objects; ``unknown``, if it does not answer."""
    try:
        return all(_has(client, dataset) for dataset in datasets)
    except Exception:  # of requests, in many kinds
        return unknown


def _has(client: Any, dataset: Any) -> bool:
    uid = str(dataset.SOPInstanceUID)
    found = client.search_for_instances(dataset.StudyInstanceUID, search_filters={"SOPInstanceUID": uid})
    return any(uid in entry.get(_SOP_UID, {}).get("Value", []) for entry in found)


def _check_status(status: Any, peer: Peer) -> None:
    code = status.get("Status") if status else None
    if code is None or (code not in (0, _DUPLICATE) and code not in _WARNINGS):
        said = "the connection was lost" if code is None else f"status 0x{code:04X}"
        raise _not_delivered(f"{peer.aet} does not accept the object ({said})")


def _not_delivered(problem: str) -> ServiceError:
    return ServiceError(problem, remedy="check the address and the log of the receiver; it is sent again later")
