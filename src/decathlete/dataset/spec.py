"""What a raw dataset declares, without a pixel read: its cases, channels and labels. ``manifest`` makes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from decathlete.core.files import value_digest
from decathlete.core.labels import LabelSet


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image (one file per channel, or one file with the channels last) and its label map.

    Attributes:
        images: one path per channel, or a single path that holds all channels.
        label: ``None`` for test cases.
        group: cases of one group (a patient) never fall on both sides of a split; ``None``: a group of its own.
    """

    id: str
    images: tuple[Path, ...]
    label: Path | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A dataset as its manifest declares it.

    Attributes:
        channels: their names; ``"CT"`` (any case) asks for CT normalisation.
        layout: which manifest form was read.
    """

    name: str
    root: Path
    layout: Literal["decathlon", "nnunet"]
    channels: tuple[str, ...]
    labels: LabelSet
    cases: tuple[Case, ...]
    test_cases: tuple[Case, ...] = ()

    def digest(self) -> str:
        """Of the manifest's content and every file's path, size and modification time.

        Cheap (no file is read) and changes when the data do.
        """

        def stamp(path: Path) -> tuple[str, int, int]:
            name = str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)
            if not path.exists():  # reported by ``check`` and by whoever reads it; a digest must not stop them
                return (name, -1, -1)
            info = path.stat()
            return (name, info.st_size, info.st_mtime_ns)

        files = [stamp(p) for c in self.cases for p in (*c.images, *([c.label] if c.label else []))]
        return value_digest([self.name, self.channels, self.labels.model_dump(), files])
