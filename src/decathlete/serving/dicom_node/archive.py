"""Finds series in a DICOMweb archive that were not segmented by this model yet, and copies them."""

from __future__ import annotations

import io
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from decathlete.core.extras import import_optional
from decathlete.core.lazy_import import lazy_import
from decathlete.serving.dicom_node.choice import Unit
from decathlete.serving.dicom_node.node_job import Instance
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
        unit: with ``study``, a SEG of one series counts for the whole study.
        clock: seconds since 1970.

    Raises:
        MissingPackageError: the package dicomweb-client is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        modalities: Sequence[str],
        digests: Sequence[str],
        unit: Unit = "series",
        clock: Callable[[], float],
    ) -> None:
        api = import_optional("dicomweb_client.api", title="dicomweb-client", extra="serve")
        self.client: Any = api.DICOMwebClient(url)
        self._modalities, self._digests = tuple(modalities), frozenset(digests)
        self._unit, self._clock = unit, clock
        self._busy: frozenset[str] = frozenset()
        self._sizes: dict[str, int] = {}
        self._finished: set[tuple[str, int]] = set()

    def busy_studies(self) -> frozenset[str]:
        """Return the studies of which some series are not copied yet; none, if each series is segmented by itself."""
        return self._busy if self._unit == "study" else frozenset()

    def fetch_new(self, store: NodeStore) -> int:
        """Copy series that are new and did not grow since the last call into the store; return their number."""
        studies: dict[str, dict[str, int]] = defaultdict(dict)
        for study_uid, series_uid, n_instances in self._search():
            studies[study_uid][series_uid] = n_instances
        self._busy &= studies.keys()
        return sum(self._fetch_study(study_uid, sizes, store) for study_uid, sizes in studies.items())

    def _fetch_study(self, study_uid: str, sizes: Mapping[str, int], store: NodeStore) -> int:
        """Copy the series of a study (identifier -> number of instances) that are to be segmented."""
        new = {uid: n for uid, n in sizes.items() if (uid, n) not in self._finished and store.count_instances(uid) < n}
        ready = {uid: n for uid, n in new.items() if self._sizes.get(uid) == n}  # others may still be growing
        self._sizes.update(new)
        segmented = self._segmented(study_uid, sizes) if ready else frozenset()
        if segmented and self._unit == "study":
            segmented = frozenset(sizes)
        finished = {(uid, n) for uid, n in ready.items() if uid in segmented}
        if finished:
            log.info("series of the archive that were segmented before: %d", len(finished))
        self._finished |= finished
        to_copy = [uid for uid in ready if uid not in segmented]
        self._busy |= {study_uid} if to_copy else set()
        for uid in to_copy:
            self._copy(study_uid, uid, store)
        self._busy -= {study_uid}  # not after an error: the next call copies the other series
        return len(to_copy)

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

    def _segmented(self, study_uid: str, sizes: Mapping[str, int]) -> frozenset[str]:
        """Return the series of a study of which a SEG by one of the models refers to all instances."""
        found: set[str] = set()
        for one in self.client.search_for_series(study_uid, search_filters={"Modality": "SEG"}):
            for instance in self.client.retrieve_series_metadata(study_uid, _value(one, _SERIES)):
                if _value(instance, _DEVICE) in self._digests or self._names_digest(instance):
                    found |= _referenced(instance, sizes)
        return frozenset(found)

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

    def _copy(self, study_uid: str, series_uid: str, store: NodeStore) -> None:
        """Copy a series; it is stored when it was received as a whole, since parts of it would be segmented."""
        datasets = self.client.retrieve_series(study_uid, series_uid, media_types=(("application/dicom", "*"),))
        instances = (
            Instance(
                content=_encode(dataset),
                sop_uid=str(dataset.SOPInstanceUID),
                series_uid=series_uid,
                study_uid=study_uid,
                origin="web",
            )
            for dataset in datasets
        )
        store.add_instances(instances, now=self._clock())
        log.info("copied a series of %d instances from the archive", len(datasets))


def _encode(dataset: Any) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _referenced(instance: Any, sizes: Mapping[str, int]) -> set[str]:
    """Return the series of which an object refers to all instances."""
    items = instance.get(_REFERENCED, {}).get("Value", [])
    counts = {_value(item, _SERIES): len(item.get(_INSTANCES, {}).get("Value", [])) for item in items}
    return {uid for uid, n_instances in sizes.items() if counts.get(uid, -1) >= n_instances}


def _value(element_set: Any, tag: str) -> str:
    values = element_set.get(tag, {}).get("Value") or [""]
    return str(values[0])
