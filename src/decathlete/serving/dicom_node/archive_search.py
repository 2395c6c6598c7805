"""Searches for series in a DICOMweb archive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from decathlete.serving.dicom_node.failures import NodeStoppedError

STUDY, SERIES, N_INSTANCES = "0020000D", "0020000E", "00201209"
_PAGE = 100


def search_series(
    client: Any, modality: str, *, study_uid: str | None = None, should_stop: Callable[[], bool]
) -> Iterator[Any]:
    """Yield the attributes of all series of a modality, in the archive or in one study; some of them several times.

    A page may be shorter than it was asked for, since archives have limits of their own, or the same as before, since
    some ignore the offset. So the last page is the one without another series.

    Args:
        client: of the package dicomweb_client.
        should_stop: whether to end between two pages.

    Raises:
        NodeStoppedError: the node ends.
        Exception: the archive cannot be queried; of requests, in many kinds.
    """
    seen: set[str] = set()
    offset = 0
    while not should_stop():
        found = client.search_for_series(
            *([study_uid] if study_uid is not None else []),
            search_filters={"Modality": modality},
            fields=["NumberOfSeriesRelatedInstances"],
            limit=_PAGE,
            offset=offset,
        )
        yield from found
        offset += len(found)
        n_before = len(seen)
        seen |= {first_value(entry, SERIES) for entry in found}
        if len(seen) == n_before:
            return
    raise NodeStoppedError


def first_value(attributes: Any, tag: str) -> str:
    """Return the first value of an attribute in DICOM JSON as text; empty, if there is none."""
    values = attributes.get(tag, {}).get("Value") or [""]
    return str(values[0])
