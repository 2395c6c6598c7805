"""Unite datasets with different classes: classes by name, cases with what was annotated in their dataset."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from decathlete.core.labels import LabelClass, LabelSet
from decathlete.dataset.annotated import annotated_of
from decathlete.dataset.conversion.source import Source
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.dataset.splits import Fold
from decathlete.errors import DatasetError, problems_found

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MergedPart:
    """One dataset of several that are merged.

    Attributes:
        spec: its cases, with their new names.
        values: its label values -> those of the merged dataset, for values that change.
        known: all label values that its files may contain.
    """

    spec: DatasetSpec
    values: Mapping[int, int]
    known: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class MergedDatasets:
    """The united dataset.

    Attributes:
        annotated: case id -> annotated classes, for cases in which not all classes were annotated.
        groups: case id -> patient, where the datasets declare it.
        folds: the united folds, if all datasets declare the same number of folds.
    """

    labels: LabelSet
    channels: tuple[str, ...]
    parts: tuple[MergedPart, ...]
    annotated: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, str]
    texts: Mapping[str, str]
    folds: tuple[Fold, ...] = ()


def merge_sources(sources: Sequence[Source]) -> MergedDatasets:
    """Unite datasets: classes with the same name become one class, whatever their values are.

    Values are renumbered in the order in which the names appear. A class that a dataset does not declare is listed
    as not annotated in its cases. If two datasets have a case of the same name, all cases get the name of their dataset
    as a prefix. Patients of different datasets are different.

    Raises:
        DatasetError: the channels differ, a dataset has overlapping regions, names of classes differ only in spelling,
            or two datasets have the same name; lists every problem.
    """
    specs = [source.spec for source in sources]
    if problems := [*_source_problems(specs), *_name_problems(specs)]:
        raise problems_found(
            problems,
            where=" + ".join(str(spec.root) for spec in specs),
            remedy="give the same structures and channels the same names in each dataset.json; images with other "
            "channels cannot be merged",
            kind=DatasetError,
        )
    labels = _unite_labels(specs)
    renamed = [_renamed(spec, prefix=_have_equal_ids(specs)) for spec in specs]
    return MergedDatasets(
        labels=labels,
        channels=specs[0].channels,
        parts=tuple(_part(spec, labels) for spec in renamed),
        annotated={i: names for spec in renamed for i, names in _annotated(spec, labels).items()},
        groups=_groups(specs, renamed),
        texts=_common_texts(sources),
        folds=_unite_folds(sources, renamed),
    )


def _source_problems(specs: Sequence[DatasetSpec]) -> list[str]:
    first = specs[0]
    problems = [f"{n} datasets are called {name}" for name, n in Counter(s.name for s in specs).items() if n > 1]
    problems += [
        f"{spec.name} has the channels {', '.join(spec.channels)}; {first.name} has {', '.join(first.channels)}"
        for spec in specs[1:]
        if spec.channels != first.channels
    ]
    return problems + [
        f"{spec.name} declares overlapping regions: declare classes, and choose the regions when the merged dataset is "
        "planned (--regions)"
        for spec in specs
        if spec.labels.regions
    ]


def _name_problems(specs: Sequence[DatasetSpec]) -> list[str]:
    """Return the names of classes that are equal but for case, spaces and punctuation."""
    spellings: dict[str, dict[str, str]] = {}
    for spec in specs:
        for label in spec.labels.foreground:
            plain = re.sub(r"[\W_]+", "", label.name).casefold()
            spellings.setdefault(plain, {}).setdefault(label.name, spec.name)
    return [
        "one class may have several spellings: " + ", ".join(f"{name!r} in {of}" for name, of in names.items())
        for names in spellings.values()
        if len(names) > 1
    ]


def _unite_labels(specs: Sequence[DatasetSpec]) -> LabelSet:
    names = dict.fromkeys(label.name for spec in specs for label in spec.labels.foreground)
    classes = [specs[0].labels.classes[0], *(LabelClass(name=name, value=v) for v, name in enumerate(names, start=1))]
    has_ignore = any(spec.labels.ignore is not None for spec in specs)
    return LabelSet(classes=tuple(classes), ignore=len(classes) if has_ignore else None)


def _have_equal_ids(specs: Sequence[DatasetSpec]) -> bool:
    counts = Counter(case.id for spec in specs for part in (spec.cases, spec.test_cases) for case in part)
    return any(n > 1 for n in counts.values())


def _renamed(spec: DatasetSpec, *, prefix: bool) -> DatasetSpec:
    def rename(case: Case) -> Case:
        return replace(case, id=f"{spec.name}_{case.id}") if prefix else case

    return replace(spec, cases=tuple(map(rename, spec.cases)), test_cases=tuple(map(rename, spec.test_cases)))


def _part(spec: DatasetSpec, labels: LabelSet) -> MergedPart:
    new_value = {c.name: c.value for c in labels.foreground}
    values = {c.value: new_value[c.name] for c in spec.labels.foreground}
    if spec.labels.ignore is not None and labels.ignore is not None:
        values[spec.labels.ignore] = labels.ignore
    changed = {old: new for old, new in values.items() if old != new}
    return MergedPart(spec=spec, values=changed, known=(0, *values))


def _annotated(spec: DatasetSpec, labels: LabelSet) -> dict[str, tuple[str, ...]]:
    declared = tuple(c.name for c in spec.labels.foreground)
    own = annotated_of(spec)
    names = {case.id: own.get(case.id, declared) for case in spec.cases}
    return {case_id: found for case_id, found in names.items() if len(found) < len(labels.foreground)}


def _groups(specs: Sequence[DatasetSpec], renamed: Sequence[DatasetSpec]) -> dict[str, str]:
    """Return the declared patients; a guess from names must not become a fact of the new dataset."""
    return {
        case.id: f"{spec.name}_{case.group}"
        for spec, new in zip(specs, renamed, strict=True)
        if spec.groups_from != "names"
        for case in new.cases
        if case.group is not None
    }


def _unite_folds(sources: Sequence[Source], renamed: Sequence[DatasetSpec]) -> tuple[Fold, ...]:
    """Return the folds of all datasets together, with the new names of the cases."""
    counts = {source.spec.name: len(source.folds) for source in sources}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} has {n or 'none'}" for name, n in counts.items())
        log.warning("the folds of the datasets are not kept, because their numbers differ: %s", listed)
        return ()
    new_ids = [
        {old.id: new.id for old, new in zip(source.spec.cases, spec.cases, strict=True)}
        for source, spec in zip(sources, renamed, strict=True)
    ]
    return tuple(
        Fold(
            train=tuple(new[i] for source, new in zip(sources, new_ids, strict=True) for i in source.folds[k].train),
            val=tuple(new[i] for source, new in zip(sources, new_ids, strict=True) for i in source.folds[k].val),
        )
        for k in range(len(sources[0].folds))
    )


def _common_texts(sources: Sequence[Source]) -> dict[str, str]:
    """Return licences and descriptions, each with the dataset it is of."""
    names = dict.fromkeys(name for source in sources for name in source.texts)
    return {name: "; ".join(f"{s.spec.name}: {s.texts[name]}" for s in sources if name in s.texts) for name in names}
