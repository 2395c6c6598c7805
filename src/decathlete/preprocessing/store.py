"""Prepared data on disk, read in parts: a patch costs the blocks it touches.

FOLDER/plan.json, fingerprint.json, splits.json, source.json
FOLDER/cases/ID/image.b2nd        float32 CZYX, chunked and compressed (blosc2)
                label.b2nd        uint8 ZYX class indices
                foreground.npz    class index -> flat places in the label
                case.json         the way back, what made it, size and CRC-32 of each file
FOLDER/coarse_start/...           the same cases on the coarser grid on which the training begins, if the plan has one

A file is compared with its CRC-32 before its first read in a process, and when `decathlete preprocess` runs again. The
JSON files contain the CRC-32 of their own text.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from decathlete.core.geometry import Box, Shape, Triple
from decathlete.core.schema import Schema
from decathlete.dataset.splits import Splits
from decathlete.errors import StoreError
from decathlete.io.format_settings import ImageFormats
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.plan import Plan
from decathlete.preprocessing.prepared import Restoration
from decathlete.preprocessing.stored_arrays import AGAIN, ForegroundOnDisk, read_array, translate_damage, verify_file

STORE_VERSION = 1
"""Of what the arrays contain: it is a part of the digest of every case."""
CASE_VERSION: Literal[2] = 2
"""Of ``case.json``."""
IMAGE, LABEL, FOREGROUND = "image.b2nd", "label.b2nd", "foreground.npz"
COARSE_START = "coarse_start"
"""Subfolder with the store of the coarse grid on which a training begins."""
PREPARATION_FIELDS = (
    "dims", "channels", "labels", "orientation", "axis_order", "preprocessing_order", "target_spacing", "normalization",
    "foreground_channel", "foreground_rule", "fill_slice_holes", "resampling", "previous_stage",
)  # fmt: skip
"""Fields of the plan that the prepared arrays depend on. A plan that is trained on a store must share them with it; the
others (patch, network, ...) may differ."""


class StoreSource(Schema):
    """What the store was made from.

    Attributes:
        root: folder of the raw dataset.
        dataset_digest: of its manifest and files.
        case_ids: all cases that the store must hold.
        splits_digest: of ``splits.json``, to write it again if it is damaged; ``None``: written by an older release.
        spacing: that raw files without a spacing were read with (z, y, x, mm).
        image_formats: settings of image formats that raw files were read with, by the format's name.
        annotated: case id -> annotated classes, of cases in which not all classes were annotated.
        groups: case id -> patient, if ``--group-by`` has given them.
    """

    has_checksum = True

    version: int = STORE_VERSION
    dataset: str
    root: str
    dataset_digest: str
    case_ids: tuple[str, ...]
    splits_digest: str | None = None
    spacing: Triple | None = None
    image_formats: ImageFormats = Field(default={}, exclude_if=operator.not_)
    annotated: dict[str, tuple[str, ...]] = Field(default={}, exclude_if=lambda cases: not cases)
    groups: dict[str, str] = Field(default={}, exclude_if=operator.not_)


class RawImage(Schema):
    """The raw image of a case that was prepared to be predicted, as the record of a prediction describes it.

    Attributes:
        files: their names. digest: of their bytes.
        channel_means: mean intensity of each channel inside the crop box.
    """

    files: tuple[str, ...]
    digest: str
    channel_means: tuple[float, ...]


class CaseRecord(Schema):
    """``case.json``.

    Attributes:
        digest: of the plan's preprocessing and the raw files; equal digest, equal arrays.
        sizes: bytes of each file beside this one.
        crc32: checksum of each file beside this one; empty in version 1, which had none.
        raw: of cases that were prepared to be predicted.
    """

    has_checksum = True

    version: Literal[1, 2] = CASE_VERSION
    case_id: str
    n_channels: int
    has_label: bool
    restoration: Restoration
    digest: str
    sizes: dict[str, int]
    crc32: dict[str, int] = {}
    raw: RawImage | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = {IMAGE, FOREGROUND} | ({LABEL} if self.has_label else set())
        if set(self.sizes) != names or (self.version > 1 and set(self.crc32) != names):
            raise ValueError(f"sizes and crc32 must name {', '.join(sorted(names))}")
        return self

    def missing_files(self, folder: Path) -> list[str]:
        """Files that are not there or not as long as when they were written."""
        paths = {name: folder / name for name in self.sizes}
        return [n for n, p in paths.items() if not p.is_file() or p.stat().st_size != self.sizes[n]]


@dataclass(frozen=True, kw_only=True)
class StoredCase:
    """One prepared case; only ``case.json`` is read before the first access. Safe to read from many threads.

    Attributes:
        shape: Z, Y, X, working order.
        n_channels: of the image.
        has_label: whether :meth:`read_label` works.
        packed: ``case.json``, compact: the record's many small objects would take 7 kB of each case's memory.
        verified: files that were compared with their checksums.
    """

    folder: Path
    case_id: str
    shape: Shape
    n_channels: int
    has_label: bool
    packed: bytes
    verified: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, folder: Path, record: CaseRecord) -> StoredCase:
        """Return the case in ``folder`` that ``record`` describes."""
        return cls(
            folder=folder,
            case_id=record.case_id,
            shape=record.restoration.shape,
            n_channels=record.n_channels,
            has_label=record.has_label,
            packed=record.model_dump_json().encode(),
        )

    @property
    def record(self) -> CaseRecord:
        """The content of ``case.json`` when the case was opened; unpacked again at each access (about 0.15 ms)."""
        return CaseRecord.model_validate_json(self.packed)

    @property
    def restoration(self) -> Restoration:
        """The way back to the raw image's grid."""
        return self.record.restoration

    @property
    def foreground(self) -> Mapping[int, NDArray[np.int64]]:
        """Class index -> flat places (ascending) of a sample of its voxels; absent classes have no entry.

        If some voxels are ignored, ``IGNORE_INDEX`` has places of voxels that are not ignored. Stores of early
        versions do not have this entry.
        """
        return ForegroundOnDisk(self._verify(FOREGROUND))

    @property
    def n_bytes(self) -> int:
        """Bytes of image, label and foreground, when they are all in memory."""
        return prod(self.shape) * (4 * self.n_channels + 1) + self.record.sizes[FOREGROUND]

    def read_image(self, *, box: Box | None = None) -> NDArray[np.float32]:
        """Read the image CZYX in ``box`` (inside the volume), or all of it."""
        where = (slice(None), *box.slices) if box else ()
        return read_array(self._verify(IMAGE), where, shape=(self.n_channels, *self.shape), dtype=np.float32)

    def read_label(self, *, box: Box | None = None) -> NDArray[np.uint8]:
        """Read the class indices ZYX in ``box`` (inside the volume), or all of them.

        Raises:
            StoreError: the case has no label.
        """
        if not self.has_label:
            raise StoreError("has no label", where=self.folder, remedy="train and validate on labelled cases only")
        return read_array(self._verify(LABEL), box.slices if box else (), shape=self.shape, dtype=np.uint8)

    def verify(self) -> None:
        """Compare every file with its checksum, or decompress it whole if it was written without one.

        Raises:
            StoreError: a file is damaged, missing or cannot be read.
        """
        for name in self.record.sizes:
            self._verify(name)
        if not self.record.crc32:
            self.read_image()
            if self.has_label:
                self.read_label()
            dict(self.foreground)

    def _verify(self, name: str) -> Path:
        """Return the path of a file; before its first read, it is compared with its checksum, if it has one."""
        path = self.folder / name
        if name not in self.verified:
            crc32 = self.record.crc32
            if crc32:
                verify_file(path, crc32[name])
            self.verified[name] = True
        return path


class PreparedStore:
    """All cases of one dataset, prepared by one plan."""

    def __init__(
        self,
        folder: Path,
        *,
        plan: Plan,
        fingerprint: Fingerprint,
        splits: Splits,
        source: StoreSource,
        cases: Mapping[str, StoredCase],
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.fingerprint = fingerprint
        self.splits = splits
        self.source = source
        self._cases = dict(cases)

    @classmethod
    def open(cls, folder: Path) -> PreparedStore:
        """Open a finished store and check that every case is whole (by the sizes of its files).

        Raises:
            StoreError: it is not a store, or cases are missing or damaged (all are named).
        """
        if not (folder / "plan.json").is_file():
            raise StoreError(
                "contains no prepared data" if folder.is_dir() else "does not exist",
                where=folder,
                remedy="run `decathlete preprocess` first, or check the path",
                code="E-STORE-MISSING",
            )
        source = StoreSource.load(folder / "source.json", error=StoreError, remedy=AGAIN)
        cases, problems = {}, []
        for case_id in source.case_ids:
            try:
                cases[case_id] = open_case(folder / "cases" / case_id)
            except StoreError as problem:
                problems.append(f"{case_id}: {problem.problem}")
        if problems:
            listed = "; ".join(problems[:10]) + ("; ..." if len(problems) > 10 else "")
            raise StoreError(
                f"{len(problems)} of {len(source.case_ids)} cases are missing or damaged: {listed}",
                where=folder,
                remedy=AGAIN,
                code="E-STORE-DAMAGED",
            )
        return cls(
            folder,
            plan=Plan.load(folder / "plan.json", error=StoreError, remedy=AGAIN),
            fingerprint=Fingerprint.load(folder / "fingerprint.json", error=StoreError, remedy=AGAIN),
            splits=Splits.load(folder / "splits.json", error=StoreError, remedy=AGAIN),
            source=source,
            cases=cases,
        )

    def open_coarse_start(self) -> PreparedStore:
        """Open the same cases on the coarse grid on which a training begins.

        Raises:
            StoreError: they were not prepared, are damaged, or were made from other files or by another plan.
        """
        coarse = PreparedStore.open(self.folder / COARSE_START)
        made_from = [(store.source.dataset_digest, store.case_ids, store.splits) for store in (self, coarse)]
        if made_from[0] != made_from[1] or coarse.plan.digest != self.plan.on_coarse_grid().digest:
            raise StoreError(
                "was not prepared together with the data of the folder around it",
                where=coarse.folder,
                remedy=AGAIN,
                code="E-STORE-DAMAGED",
            )
        return coarse

    @property
    def case_ids(self) -> tuple[str, ...]:
        """All cases, in the manifest's order."""
        return tuple(self._cases)

    def case(self, case_id: str) -> StoredCase:
        """Open one case.

        Raises:
            StoreError: it is not in this store.
        """
        if case_id not in self._cases:
            raise StoreError(f"has no case {case_id!r}", where=self.folder, remedy="check the case's name")
        return self._cases[case_id]


def open_case(folder: Path) -> StoredCase:
    """Open one case, and check that it is whole.

    Raises:
        StoreError: it is missing or damaged.
    """
    return StoredCase.of(folder, read_finished_record(folder))


def read_finished_record(folder: Path) -> CaseRecord:
    """Return the record of a case whose files are all present.

    Raises:
        StoreError: it is missing or damaged.
    """
    with translate_damage(folder):
        if not (folder / "case.json").is_file():
            raise StoreError("not prepared yet", where=folder, remedy=AGAIN, code="E-STORE-MISSING")
        record = CaseRecord.load(folder / "case.json", error=StoreError, remedy=AGAIN)
        missing = record.missing_files(folder)
    if missing:
        raise StoreError(
            f"{', '.join(missing)} missing or truncated", where=folder, remedy=AGAIN, code="E-STORE-DAMAGED"
        )
    return record
