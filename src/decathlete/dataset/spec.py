"""What a raw dataset declares, without a pixel read: its cases, channels and labels. ``manifest`` makes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from decathlete.core.choices import DatasetLayout
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
        layout: which manifest form was read; or that files were found in plain folders, or listed in a table.
    """

    name: str
    root: Path
    layout: DatasetLayout | Literal["folders", "table"]
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


def id_problems(cases: Iterable[Case], part: str) -> list[str]:
    """What is wrong with the names of ``part``'s cases: repeated, or not fit to name files and folders."""
    counts = Counter(case.id for case in cases)
    found = [f"{n} {part} cases are called {case_id!r}" for case_id, n in counts.items() if n > 1]
    for case_id in counts:  # none may lead anywhere else
        if not case_id or case_id.startswith(".") or any(c in case_id for c in "/\\\0"):
            found.append(f"{case_id!r} cannot be a case's name: it would not be the name of a file")
    return found
