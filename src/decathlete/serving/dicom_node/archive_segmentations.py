"""Finds the series of an archive that were segmented before, by the SEG objects of their study.

A SEG object refers to the slices of the image that was segmented. Their series may contain more: a scout, slices of
another size, further multi-frame files. So the references are compared with the images that the node would choose now,
by the metadata of the series. This needs no record of the node: another one with the same model has the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from decathlete.core.lazy_import import lazy_import
from decathlete.errors import ImageError
from decathlete.io.dicom_reading import quiet_pydicom
from decathlete.io.dicom_series import HEADER_FIELDS, DicomSeries, SeriesScan, sort_series
from decathlete.serving.dicom_node.archive_search import SERIES, first_value, search_series
from decathlete.serving.dicom_node.choice import SeriesChoice
from decathlete.serving.dicom_node.failures import NodeStoppedError

pydicom = lazy_import("pydicom")

_SOP, _DEVICE, _PARAMETERS = "00080018", "00181000", "00660032"
_SERIES_ITEMS, _INSTANCE_ITEMS, _REFERENCED_SOP = "00081115", "0008114A", "00081155"

References = Mapping[str, frozenset[str]]
"""Series -> those of its instances that one SEG object refers to."""


class ArchiveSegmentations:
    """The SEG objects that the models of a node have made, in an archive.

    Args:
        choice: of the series that are segmented.
        digests: of the models.
        should_stop: whether to end between two requests.
    """

    def __init__(self, *, choice: SeriesChoice, digests: Iterable[str], should_stop: Callable[[], bool]) -> None:
        self._choice, self._digests, self._should_stop = choice, frozenset(digests), should_stop

    def find_segmented(self, client: Any, study_uid: str, sizes: Mapping[str, int]) -> frozenset[str]:
        """Return the series of a study that need no segmentation; all or none, if the study is segmented as a whole.

        Args:
            client: of the package dicomweb_client.
            sizes: number of instances of each series.

        Raises:
            NodeStoppedError: the node ends.
            Exception: the archive cannot be queried; of requests, in many kinds.
        """
        objects = list(self._objects(client, study_uid))
        units = [sizes] if self._choice.unit == "study" else [{uid: n} for uid, n in sizes.items()]
        return frozenset(uid for unit in units if self._is_segmented(client, study_uid, unit, objects) for uid in unit)

    def _objects(self, client: Any, study_uid: str) -> Iterator[References]:
        """Yield what each SEG object of the models refers to."""
        found = search_series(client, "SEG", study_uid=study_uid, should_stop=self._should_stop)
        for series_uid in dict.fromkeys(first_value(one, SERIES) for one in found):
            for instance in client.retrieve_series_metadata(study_uid, series_uid):
                if first_value(instance, _DEVICE) in self._digests or self._names_digest(instance):
                    yield _references(instance)

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

    def _is_segmented(
        self, client: Any, study_uid: str, sizes: Mapping[str, int], objects: Sequence[References]
    ) -> bool:
        """Return whether some object refers to all slices of each image that would be chosen among some series."""
        if not any(uid in references for references in objects for uid in sizes):
            return False
        is_whole = any(len(references.get(uid, ())) >= n for references in objects for uid, n in sizes.items())
        if is_whole and len(sizes) == 1:
            return True
        try:
            images = self._choice.choose(self._scan(client, study_uid, sizes))
        except ImageError:  # nothing would be segmented, or the archive describes the series with too few attributes
            return is_whole
        return all(any(_contains(references, image[0]) for references in objects) for image in images)

    def _scan(self, client: Any, study_uid: str, sizes: Mapping[str, int]) -> SeriesScan:
        """Sort the instances of series by their metadata; their files have the names of the instances.

        Raises:
            ImageError: the archive does not describe all of them.
            NodeStoppedError: the node ends.
        """
        headers: dict[Path, dict[str, Any]] = {}
        for series_uid, n_instances in sizes.items():
            if self._should_stop():
                raise NodeStoppedError
            described = client.retrieve_series_metadata(study_uid, series_uid)
            if len(described) < n_instances:
                raise ImageError(f"{len(described)} of {n_instances} instances are described")
            for instance in described:
                attributes = {tag: instance[tag] for tag in _sorting_tags() if tag in instance}
                headers[Path(first_value(instance, _SOP))] = attributes
        return sort_series(headers, read=lambda path: _parse(headers[path]))


def _references(instance: Any) -> References:
    items = instance.get(_SERIES_ITEMS, {}).get("Value", [])
    return {
        first_value(item, SERIES): frozenset(
            first_value(reference, _REFERENCED_SOP) for reference in item.get(_INSTANCE_ITEMS, {}).get("Value", [])
        )
        for item in items
    }


def _contains(references: References, series: DicomSeries) -> bool:
    return references.get(series.series_uid, frozenset()) >= {file.name for file in series.files}


@cache
def _sorting_tags() -> tuple[str, ...]:
    """Return the tags that series are sorted by, as they are written in DICOM JSON."""
    return tuple(f"{pydicom.datadict.tag_for_keyword(name):08X}" for name in HEADER_FIELDS)


def _parse(attributes: dict[str, Any]) -> Any:
    with quiet_pydicom():
        return pydicom.Dataset.from_json(attributes, lambda _address: None)
