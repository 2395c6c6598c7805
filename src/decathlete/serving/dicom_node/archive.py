"""Finds series in a DICOMweb archive that were not segmented by this model yet, and copies them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

from decathlete.core.sizes import format_bytes
from decathlete.errors import ServiceError
from decathlete.serving.dicom_node.archive_search import N_INSTANCES, SERIES, STUDY, first_value, search_series
from decathlete.serving.dicom_node.archive_segmentations import ArchiveSegmentations
from decathlete.serving.dicom_node.choice import SeriesChoice
from decathlete.serving.dicom_node.failures import FailedCopies, NodeStoppedError
from decathlete.serving.dicom_node.instance_files import StagedInstance, read_uids
from decathlete.serving.dicom_node.node_store import NodeStore
from decathlete.serving.dicomweb import DicomWebServer

MAX_COPY_STARTS = 3
"""How many copies of a series may end the program, so that a crash does not repeat without end."""

log = logging.getLogger(__name__)


class Archive:
    """A DICOMweb archive.

    Args:
        url: address of its services.
        modalities: of the series that are segmented.
        choice: of these series.
        digests: of the models; series that were segmented by one of them are not copied.
        max_bytes: greatest size of all stored series.
        image_bytes: greatest size of one of them.
        first_wait_s: time before the second attempt to copy a series.
        should_stop: whether to end between two series.
        clock: seconds since 1970.

    Attributes:
        failed: series that could not be copied.

    Raises:
        MissingPackageError: the package dicomweb-client is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        modalities: Sequence[str],
        choice: SeriesChoice,
        digests: Sequence[str],
        max_bytes: int,
        image_bytes: int,
        first_wait_s: float,
        should_stop: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        server = DicomWebServer(url)
        self.client, self.download = server.client, server.download
        self._modalities, self._unit = tuple(modalities), choice.unit
        self._clock, self._should_stop = clock, should_stop
        self._segmentations = ArchiveSegmentations(choice=choice, digests=digests, should_stop=should_stop)
        self._max_bytes, self._image_bytes = max_bytes, image_bytes
        self.failed = FailedCopies(first_wait_s=first_wait_s, clock=clock)
        self._is_listed = False
        self._busy: frozenset[str] = frozenset()
        self._sizes: dict[str, int] = {}
        self._finished: set[Hashable] = set()

    def busy_studies(self, store: NodeStore) -> frozenset[str]:
        """Return the studies of which some series are not copied yet; none, if each series is segmented by itself.

        After a restart, all stored studies of the archive count until the archive has listed their series.
        """
        if self._unit == "series":
            return frozenset()
        return self._busy if self._is_listed else store.studies_of_archive()

    def fetch_new(self, store: NodeStore) -> int:
        """Copy series that are new and did not grow since the last call into the store; return their number.

        A series that cannot be copied does not stop the others. It is tried again later, see :class:`FailedCopies`.

        Raises:
            NodeStoppedError: the node ends.
            Exception: the archive cannot be queried; of requests, in many kinds.
        """
        studies = self._list_studies()
        new = {study_uid: self._find_new(sizes, store) for study_uid, sizes in studies.items()}
        self._busy = frozenset(study_uid for study_uid, sizes in new.items() if sizes)
        self._is_listed = True
        self.failed.keep_only({uid for sizes in new.values() for uid in sizes})
        n_copied = 0
        for study_uid, sizes in studies.items():
            if new[study_uid] and not self._should_stop():
                n_copied += self._fetch_study(study_uid, sizes, new[study_uid], store)
        return n_copied

    def _find_new(self, sizes: Mapping[str, int], store: NodeStore) -> dict[str, int]:
        """Return the series of a study that are neither stored nor known to be segmented."""
        return {
            uid: n
            for uid, n in sizes.items()
            if self._state(uid, sizes) not in self._finished and store.count_instances(uid) < n
        }

    def _state(self, series_uid: str, sizes: Mapping[str, int]) -> Hashable:
        """Return what decides whether a series was segmented: its size, or the sizes of all series of its study."""
        return (series_uid, sizes[series_uid]) if self._unit == "series" else frozenset(sizes.items())

    def _fetch_study(self, study_uid: str, sizes: Mapping[str, int], new: Mapping[str, int], store: NodeStore) -> int:
        """Copy the series of a study (identifier -> number of instances) that are to be segmented."""
        ready = {uid: n for uid, n in new.items() if self._sizes.get(uid) == n and self.failed.is_due(uid, n)}
        self._sizes.update(new)  # others may still be growing
        if not ready:
            return 0
        try:
            in_question = sizes if self._unit == "study" else ready
            segmented = self._segmentations.find_segmented(self.client, study_uid, in_question)
        except NodeStoppedError:
            raise
        except Exception as problem:  # such as a SEG object that the archive cannot describe
            for uid, n in ready.items():
                self.failed.add(uid, n, problem)
            return 0
        finished = ready.keys() & segmented
        if finished:
            log.info("series of the archive that were segmented before: %d", len(finished))
        self._finished |= {self._state(uid, sizes) for uid in finished}
        to_copy = {uid: n for uid, n in ready.items() if uid not in segmented}
        copied = [uid for uid, n in to_copy.items() if not self._should_stop() and self._copy(study_uid, uid, n, store)]
        if new.keys() <= {*copied, *finished}:
            self._busy -= {study_uid}
        return len(copied)

    def _list_studies(self) -> dict[str, dict[str, int]]:
        """Return study -> series -> number of instances; entries without these are left out."""
        studies: dict[str, dict[str, int]] = defaultdict(dict)
        for modality in self._modalities:
            for entry in search_series(self.client, modality, should_stop=self._should_stop):
                study_uid, series_uid, n_instances = (first_value(entry, tag) for tag in (STUDY, SERIES, N_INSTANCES))
                if study_uid and series_uid and n_instances.isdecimal():
                    studies[study_uid][series_uid] = int(n_instances)
        return studies

    def _copy(self, study_uid: str, series_uid: str, n_instances: int, store: NodeStore) -> bool:
        """Copy a series, and return whether that succeeded."""
        try:
            self._require_no_crash(series_uid, n_instances, store)
            self._store(study_uid, series_uid, n_instances, store)
        except NodeStoppedError:
            return False
        except Exception as problem:  # of requests, of pydicom, of the disk
            self.failed.add(series_uid, n_instances, problem)
            return False
        self.failed.remove(series_uid)
        log.info("copied a series of %d instances from the archive", n_instances)
        return True

    @staticmethod
    def _require_no_crash(series_uid: str, n_instances: int, store: NodeStore) -> None:
        """Count that a copy begins.

        Raises:
            ServiceError: it ended the program several times, such as by a lack of memory.
        """
        if store.begin_copy(series_uid, n_instances) > MAX_COPY_STARTS:
            raise ServiceError(
                f"its copy ended the program {MAX_COPY_STARTS} times", remedy="segment it with `decathlete predict`"
            )

    def _store(self, study_uid: str, series_uid: str, n_instances: int, store: NodeStore) -> None:
        """Store a series when it was received as a whole, since parts of it would be segmented."""
        try:
            with store.arriving() as folder:
                room = _Room(store, image_bytes=self._image_bytes, max_bytes=self._max_bytes, stop=self._should_stop)
                staged = []
                for path in self.download(study_uid, series_uid, folder, check=room.take):
                    uids = replace(read_uids(path), series_uid=series_uid, study_uid=study_uid)
                    staged.append(StagedInstance.of_file(path, uids, origin="web"))
                if len(staged) < n_instances:
                    raise ServiceError(
                        f"the archive sent {len(staged)} of {n_instances} instances",
                        remedy="check the log of the archive",
                    )
                store.register(staged, now=self._clock())
        finally:
            store.end_copy(series_uid)


class _Room:
    """The room for a series that arrives.

    Args:
        image_bytes: greatest size of the series; in memory, it is at least as large.
        max_bytes: greatest size of all stored series.
        stop: whether the node ends.
    """

    def __init__(self, store: NodeStore, *, image_bytes: int, max_bytes: int, stop: Callable[[], bool]) -> None:
        self._store, self._image_bytes, self._max_bytes, self._stop = store, image_bytes, max_bytes, stop
        self._n_bytes = 0

    def take(self, n_bytes: int) -> None:
        """Check that there is room for the next bytes, before they are written.

        Raises:
            ServiceError: there is none.
            NodeStoppedError: the node ends.
        """
        if self._stop():
            raise NodeStoppedError
        if self._n_bytes + n_bytes > self._image_bytes:
            raise ServiceError(
                f"it is larger than {format_bytes(self._image_bytes)}",
                remedy="start the service with a larger --max-image",
                code="E-SERVICE-SIZE",
            )
        if not self._store.make_room(n_bytes, limit_bytes=self._max_bytes, n_staged=self._n_bytes):
            raise ServiceError(
                "there is no room for it: limit of the stored series, or of the disk",
                remedy="free disk space, or start the service with a larger --dicom-max-storage",
            )
        self._n_bytes += n_bytes
