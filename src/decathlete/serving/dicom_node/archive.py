"""Finds series in a DICOMweb archive that were not segmented by this model yet, and copies them."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from decathlete.core.extras import import_optional
from decathlete.core.lazy_import import lazy_import
from decathlete.serving.dicom_node.node_store import NodeStore

pydicom = lazy_import("pydicom")

_PAGE = 100
_STUDY, _SERIES, _N_INSTANCES, _DEVICE, _PARAMETERS = "0020000D", "0020000E", "00201209", "00181000", "00660032"
_REFERENCED, _INSTANCES = "00081115", "0008114A"

log = logging.getLogger(__name__)


class Archive:
    """A DICOMweb archive.

    Args:
        url: address of its services.
        modalities: of the series that are segmented.
        digests: of the models; a series with a SEG that names one of them was segmented before.

    Raises:
        MissingPackageError: the package dicomweb-client is not installed.
    """

    def __init__(self, url: str, *, modalities: Sequence[str], digests: Sequence[str]) -> None:
        api = import_optional("dicomweb_client.api", title="dicomweb-client", extra="serve")
        self.client: Any = api.DICOMwebClient(url)
        self._modalities, self._digests = tuple(modalities), frozenset(digests)
        self._sizes: dict[str, int] = {}
        self._finished: set[str] = set()

    def fetch_new(self, store: NodeStore, *, now: float) -> int:
        """Copy series that are new and did not grow since the last call into the store; return their number."""
        n_new = 0
        for study_uid, series_uid, n_instances in self._search():
            if series_uid in self._finished or store.count_instances(series_uid) >= n_instances:
                continue
            if self._sizes.get(series_uid) != n_instances:  # it may still be growing
                self._sizes[series_uid] = n_instances
                continue
            if self._is_segmented(study_uid, series_uid, n_instances):
                self._finished.add(series_uid)
                continue
            self._copy(study_uid, series_uid, store, now)
            n_new += 1
        return n_new

    def _search(self) -> Iterator[tuple[str, str, int]]:
        for modality in self._modalities:
            offset = 0
            while True:
                found = self.client.search_for_series(
                    search_filters={"Modality": modality},
                    fields=["NumberOfSeriesRelatedInstances"],
                    limit=_PAGE,
                    offset=offset,
                )
                yield from (
                    (_value(one, _STUDY), _value(one, _SERIES), int(_value(one, _N_INSTANCES) or 0)) for one in found
                )
                if len(found) < _PAGE:
                    break
                offset += len(found)

    def _is_segmented(self, study_uid: str, series_uid: str, n_instances: int) -> bool:
        """Return whether the study has a SEG of all instances of this series by one of the models."""
        for one in self.client.search_for_series(study_uid, search_filters={"Modality": "SEG"}):
            for instance in self.client.retrieve_series_metadata(study_uid, _value(one, _SERIES)):
                referenced = instance.get(_REFERENCED, {}).get("Value", [])
                is_of_series = any(
                    _value(item, _SERIES) == series_uid
                    and len(item.get(_INSTANCES, {}).get("Value", [])) >= n_instances
                    for item in referenced
                )
                if is_of_series and (_value(instance, _DEVICE) in self._digests or self._names_digest(instance)):
                    return True
        return False

    def _names_digest(self, content: Any) -> bool:
        """Return whether the parameters of an algorithm, at any depth, contain a digest of the models."""
        if isinstance(content, list):
            return any(self._names_digest(item) for item in content)
        if not isinstance(content, dict):
            return False
        text = str(content.get(_PARAMETERS, {}).get("Value", ""))
        return any(digest in text for digest in self._digests) or any(
            self._names_digest(element.get("Value")) for element in content.values() if element.get("vr") == "SQ"
        )

    def _copy(self, study_uid: str, series_uid: str, store: NodeStore, now: float) -> None:
        instances = self.client.retrieve_series(study_uid, series_uid, media_types=(("application/dicom", "*"),))
        for dataset in instances:
            buffer = io.BytesIO()
            pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
            store.add_instance(
                buffer.getvalue(),
                sop_uid=str(dataset.SOPInstanceUID),
                series_uid=series_uid,
                study_uid=study_uid,
                origin="web",
                now=now,
            )
        log.info("copied a series of %d instances from the archive", len(instances))


def _value(element_set: Any, tag: str) -> str:
    values = element_set.get(tag, {}).get("Value") or [""]
    return str(values[0])
