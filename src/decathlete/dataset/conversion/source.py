"""The dataset to convert: cases and labels, and further content that is kept (folds, licence, ...)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from decathlete.core.documents import read_json
from decathlete.core.geometry import Triple
from decathlete.core.labels import LabelClass, LabelSet
from decathlete.core.parallel import map_cases
from decathlete.core.progress import CaseProgress
from decathlete.core.regions import whole_number
from decathlete.core.schema import describe
from decathlete.dataset.conversion.requirements import limit_label_reading
from decathlete.dataset.find_dataset import MANIFEST
from decathlete.dataset.given_splits import find_given_splits, name_some
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.dataset.splits import Fold
from decathlete.dataset.unused_files import unused_files
from decathlete.errors import DatasetError, DecathleteError, ManifestError, OptionError, problems_found
from decathlete.io.folder_tree import log_unused
from decathlete.io.format_lookup import is_picture
from decathlete.io.format_settings import FormatSettings
from decathlete.io.images import read_label

_TEXTS = ("description", "reference", "licence", "license", "release")
_CLASSES_HELP = "write e.g. --classes liver,tumour (values 1, 2) or --classes liver=1,tumour=4,ignore=9"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset to convert.

    Attributes:
        folds: folds of cross-validation, if the dataset declares them.
        texts: licence, description and similar fields of its manifest.
    """

    spec: DatasetSpec
    folds: tuple[Fold, ...] = ()
    texts: dict[str, str] = field(default_factory=dict)


def read_source(
    root: Path, *, group_by: str | None = None, spacing: Triple | None = None, formats: FormatSettings = ()
) -> Source:
    """Read a dataset with a ``dataset.json``, and its folds: ``splits_final.json``, fold numbers or a validation list.

    Raises:
        ManifestError: the manifest or the folds are not valid; lists every problem.
    """
    spec = read_dataset(root, group_by=group_by, spacing=spacing, formats=formats)
    log_unused(root, unused_files(spec))
    raw = read_json(root / MANIFEST, error=ManifestError)
    texts = {key: raw[key] for key in _TEXTS if isinstance(raw.get(key), str)}
    given = find_given_splits(spec)
    return Source(spec=spec, folds=given.folds if given is not None else (), texts=texts)


def find_labels(
    classes: str | None, cases: Sequence[Case], *, workers: int, where: Path, progress: CaseProgress | None = None
) -> LabelSet:
    """Return the label set of ``--classes``; without it, every value of the label maps is a class.

    Raises:
        OptionError: ``classes`` is not a list of names, or contradicts itself.
        DatasetError: label maps cannot be read (all are listed), or their values cannot be classes (below 0, or too
            many).
    """
    if classes is None:
        values = sorted(_values(cases, workers=workers, where=where, progress=progress) | {0})
        if any(case.label is not None and is_picture(case.label) for case in cases):
            _reject_interpolated(values, where)
        named = {f"label {v}" if v else "background": v for v in values}
        remedy = "fix the label maps, or name their classes: --classes"
        return _label_set(named, where=where, remedy=remedy, kind=DatasetError)
    named = _parse_classes(classes)
    ignore = named.pop("ignore", None)
    return _label_set({"background": 0} | named, ignore, where="--classes", remedy=_CLASSES_HELP, kind=OptionError)


def _reject_interpolated(values: Sequence[int], where: Path) -> None:
    """Reject masks of black and white (0 and 255) whose edges were smoothed: each grey would become a class.

    Raises:
        DatasetError: there are greys between, and they are no numbers of classes (1, 2, ..., as beside an ignored 255).
    """
    greys = [value for value in values if 0 < value < 255]
    if max(values) == 255 and greys and max(greys) > 2 * len(greys):
        raise DatasetError(
            f"the label maps contain 255 and {len(greys)} values below it ({name_some([str(v) for v in greys])}): they "
            "look like masks of black and white with smoothed edges",
            where=where,
            remedy="save the masks without smoothing, or name the values that are classes: --classes NAME=VALUE,...",
        )


def _label_set(
    named: Mapping[str, int],
    ignore: int | None = None,
    *,
    where: Path | str,
    remedy: str,
    kind: type[DecathleteError],
) -> LabelSet:
    ordered = sorted(named.items(), key=lambda item: item[1])
    try:
        return LabelSet(classes=tuple(LabelClass(name=n, value=v) for n, v in ordered), ignore=ignore)
    except ValidationError as problem:
        raise problems_found(describe(problem), where=where, remedy=remedy, kind=kind) from None


def _parse_classes(classes: str) -> dict[str, int]:
    """Parse ``a,b`` (values 1, 2) or ``a=1,b=4``."""
    named: dict[str, int] = {}
    for place, entry in enumerate((part.strip() for part in classes.split(",")), start=1):
        name, equals, number = (part.strip() for part in entry.partition("="))
        value = whole_number(number) if equals else place
        if not name or name in named or value is None or ("=" in classes) != bool(equals):
            raise OptionError(
                f"--classes {classes!r} is not a list of different names", remedy=_CLASSES_HELP, code="E-OPTION-SYNTAX"
            )
        named[name] = value
    return named


def _values(cases: Sequence[Case], *, workers: int, where: Path, progress: CaseProgress | None) -> set[int]:
    labelled = {case.id: case for case in cases if case.label is not None}
    values: set[int] = set()
    problems = []
    at_once = limit_label_reading(workers, labelled)
    for done, outcome in enumerate(map_cases(_label_values, labelled, workers=at_once), start=1):
        values |= outcome.value or set()
        problems += [outcome.error] if outcome.error is not None else []
        if progress:
            progress(done, len(labelled), outcome.case_id)
    if problems:
        raise problems_found(sorted(problems), where=where, remedy="fix these label maps", kind=DatasetError)
    return values


def _label_values(case: Case) -> set[int]:
    assert case.label is not None  # for the type checker: labelled cases were chosen
    return {
        int(value)
        for value in np.unique(
            read_label(case.label, spacing=case.spacing, formats=case.formats, structures=case.structures).array_ZYX
        )
    }
