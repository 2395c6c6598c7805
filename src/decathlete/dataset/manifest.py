"""From ``dataset.json`` to :class:`DatasetSpec`: the Decathlon's layout and nnU-Net v2's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from decathlete.core.files import read_text
from decathlete.core.labels import LabelClass, LabelSet, Region
from decathlete.core.schema import describe
from decathlete.dataset.groups import group_of
from decathlete.dataset.images import strip_suffix
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.errors import DatasetError, ManifestError, problems_found

MANIFEST = "dataset.json"
_REMEDY = "mend these entries of dataset.json (docs/getting-started/first-run.md shows both layouts)"

Json = Mapping[str, Any]


def resolve_task(task: str, data_root: Path) -> Path:
    """The dataset's folder that ``task`` names: a path, a folder under ``data_root``, or a number (``4``, ``04``).

    Raises:
        DatasetError: there is no such dataset, or several.
    """
    for candidate in (Path(task), data_root / task):
        if candidate.is_dir():
            return candidate
    if not task.isdecimal():
        raise DatasetError(
            f"there is no dataset {task!r}",
            where=data_root,
            remedy=f"give a path, a folder's name or a number; --data names the root{_known(data_root)}",
        )
    number = re.compile(rf"^(Task|Dataset)0*{int(task)}_")
    found = sorted(p for p in data_root.glob("*_*") if p.is_dir() and number.match(p.name))
    if len(found) == 1:
        return found[0]
    problem = f"several datasets have number {task}" if found else f"there is no dataset with number {task}"
    raise DatasetError(problem, where=data_root, remedy=f"give its folder's name or a path{_known(data_root)}")


def _known(data_root: Path) -> str:
    names = sorted(p.parent.name for p in data_root.glob(f"*/{MANIFEST}"))
    return f" (there: {', '.join(names[:10])})" if names else ""


def read_dataset(root: Path, *, group_by: str | None = None) -> DatasetSpec:
    """Read a dataset's manifest; no image is opened.

    Args:
        group_by: regular expression whose first group names a case's patient; without it the manifest's ``groups``
            or names like ``patient001_frame01`` tell.

    Raises:
        ManifestError: with every problem of the manifest.
    """
    if not root.is_dir():
        raise ManifestError("there is no such folder", where=root, remedy="check the path of the dataset")
    path = root / MANIFEST
    try:
        manifest = json.loads(
            read_text(path, error=ManifestError, remedy="a dataset needs a dataset.json in its folder")
        )
    except json.JSONDecodeError as problem:
        raise ManifestError(f"is not valid JSON ({problem})", where=path, remedy="mend the file") from None
    if not isinstance(manifest, dict):
        raise ManifestError("is not a JSON object", where=path, remedy=_REMEDY)
    return _Manifest(root, manifest, group_by).spec()


class _Manifest:
    """One manifest being read, its problems collected."""

    def __init__(self, root: Path, content: Json, group_by: str | None) -> None:
        self.root = root
        self.content = content
        self.group_by = group_by
        self.problems: list[str] = []
        self.layout = "nnunet" if "channel_names" in content else "decathlon"

    def spec(self) -> DatasetSpec:
        channels = self._channels()
        labels = self._labels()
        if self.layout == "nnunet":
            cases, test = self._listed_by_folder("Tr", len(channels)), self._listed_by_folder("Ts", len(channels))
        else:
            cases, test = self._listed("training"), self._listed("test")
        self._distinct(cases)
        if not cases and not self.problems:
            self.problems.append("there are no training cases")
        if self.problems or labels is None:
            raise problems_found(
                self.problems, where=self.root / MANIFEST, remedy=_REMEDY, kind=ManifestError
            ) from None
        name = str(self.content.get("name") or self.root.resolve().name)
        return DatasetSpec(
            name=name,
            root=self.root,
            layout="nnunet" if self.layout == "nnunet" else "decathlon",
            channels=channels,
            labels=labels,
            cases=cases,
            test_cases=test,
        )

    def _channels(self) -> tuple[str, ...]:
        key = "channel_names" if self.layout == "nnunet" else "modality"
        named = self.content.get(key)
        if not isinstance(named, dict) or not named:
            self.problems.append(f'{key}: expected {{"0": "CT", ...}}, found {named!r}')
            return ()
        if sorted(named) != sorted(str(i) for i in range(len(named))):
            self.problems.append(f"{key}: channels must be numbered 0, 1, 2, ...; found {', '.join(named)}")
            return ()
        return tuple(str(named[str(i)]) for i in range(len(named)))

    def _labels(self) -> LabelSet | None:
        entries = self.content.get("labels")
        if not isinstance(entries, dict) or not entries:
            self.problems.append("labels: missing or empty")
            return None
        try:
            by_name = _by_name(entries)
        except ValueError as problem:
            self.problems.append(f"labels: {problem}")
            return None
        order = self.content.get("regions_class_order") or ()
        try:
            return _label_set(by_name, tuple(int(v) for v in order))
        except ValidationError as problem:
            self.problems.extend(f"labels: {text}" for text in describe(problem))
        except (TypeError, ValueError) as problem:
            self.problems.append(f"labels or regions_class_order: {problem}")
        return None

    def _listed(self, key: str) -> tuple[Case, ...]:
        """The Decathlon's lists: ``training`` of image and label, ``test`` of images."""
        entries = self.content.get(key, [])
        if not isinstance(entries, list):
            self.problems.append(f"{key}: expected a list, found {type(entries).__name__}")
            return ()
        cases = []
        for number, entry in enumerate(entries):
            image = entry.get("image") if isinstance(entry, dict) else entry
            label = entry.get("label") if isinstance(entry, dict) else None
            if not isinstance(image, str) or (key == "training" and not isinstance(label, str)):
                self.problems.append(f"{key}[{number}]: expected image and label, found {entry!r}")
                continue
            case_id = strip_suffix(Path(image).name)
            label_path = self._inside(label, f"{key}[{number}]") if isinstance(label, str) else None
            images = (self._inside(image, f"{key}[{number}]"),)
            cases.append(Case(id=case_id, images=images, label=label_path, group=self._group(case_id)))
        return tuple(cases)

    def _inside(self, relative: str, where: str) -> Path:
        path = self.root / relative
        if not path.resolve().is_relative_to(self.root.resolve()) and not path.is_symlink():
            self.problems.append(f"{where}: {relative} leads out of the dataset's folder")
        return path

    def _listed_by_folder(self, part: str, n_channels: int) -> tuple[Case, ...]:
        """nnU-Net v2's folders: ``imagesTr/ID_0000.nii.gz``, one file per channel."""
        ending = self.content.get("file_ending", ".nii.gz")
        folder = self.root / f"images{part}"
        suffix = re.compile(rf"^(.+)_(\d{{4}}){re.escape(str(ending))}$")
        if part == "Tr" and not folder.is_dir():
            self.problems.append("imagesTr: the folder is missing")
        found: dict[str, set[int]] = {}
        for path in folder.iterdir() if folder.is_dir() else ():
            match = suffix.match(path.name)
            if match:
                found.setdefault(match[1], set()).add(int(match[2]))
        if part == "Tr" and folder.is_dir() and not found:
            self.problems.append(f"imagesTr: no file is named ID_0000{ending}")
        wanted = set(range(n_channels))
        for case_id, channels in sorted(found.items()):
            if n_channels and channels != wanted:
                self.problems.append(f"images{part}: {case_id} has channels {sorted(channels)}, not {sorted(wanted)}")
        return tuple(
            Case(
                id=case_id,
                images=tuple(folder / f"{case_id}_{c:04d}{ending}" for c in range(n_channels)),
                label=self.root / "labelsTr" / f"{case_id}{ending}" if part == "Tr" else None,
                group=self._group(case_id),
            )
            for case_id in sorted(found)
        )

    def _group(self, case_id: str) -> str | None:
        declared = self.content.get("groups")
        if isinstance(declared, dict) and self.group_by is None:
            return str(declared[case_id]) if case_id in declared else None
        return group_of(case_id, self.group_by)

    def _distinct(self, cases: tuple[Case, ...]) -> None:
        seen: set[str] = set()
        for case in cases:
            if case.id in seen:
                self.problems.append(f"training: the id {case.id} occurs twice")
            seen.add(case.id)


def _by_name(entries: Json) -> dict[str, tuple[int, ...]]:
    """Name -> values, from ``{"1": "liver"}`` (Decathlon) or ``{"liver": 1, "whole": [1, 2]}`` (nnU-Net v2)."""
    by_name: dict[str, tuple[int, ...]] = {}
    for key, value in entries.items():
        name, number = (value, key) if isinstance(value, str) and key.lstrip("-").isdecimal() else (key, value)
        if str(name) in by_name:
            raise ValueError(f"the name {name!r} occurs twice")
        values = number if isinstance(number, list) else [number]
        if not values or not all(str(v).isdecimal() for v in values):
            raise ValueError(f"{name!r} needs a value of 0 or more, found {number!r}")
        by_name[str(name)] = tuple(int(v) for v in values)
    return by_name


def _label_set(by_name: Mapping[str, tuple[int, ...]], region_order: tuple[int, ...]) -> LabelSet:
    ignore = by_name.get("ignore", (None,))[0]
    named = {name: values for name, values in by_name.items() if name != "ignore"}
    regions = {name: values for name, values in named.items() if values != (0,)}
    if not region_order and any(len(values) > 1 for values in named.values()):
        raise ValueError("regions (lists of values) need regions_class_order")
    if not region_order:
        classes = sorted((values[0], name) for name, values in named.items())
        return LabelSet(classes=tuple(LabelClass(name=n, value=v) for v, n in classes), ignore=ignore)
    single = {values[0]: name for name, values in named.items() if len(values) == 1}
    values_used = sorted({0, *(v for values in named.values() for v in values)})
    return LabelSet(
        classes=tuple(
            LabelClass(name=single.get(v, "background" if v == 0 else f"label {v}"), value=v) for v in values_used
        ),
        regions=tuple(Region(name=n, values=v) for n, v in regions.items()),
        region_order=region_order,
        ignore=ignore,
    )
