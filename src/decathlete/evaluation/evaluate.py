"""Score predicted label maps against the truth, on the grid of the files, several cases at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from decathlete.core.estimates import score_bytes
from decathlete.core.geometry import PIXEL, Triple, Unit
from decathlete.core.labels import LabelSet
from decathlete.core.limits import limit_workers
from decathlete.core.locks import locked_folder
from decathlete.core.nearest_files import nearest_files
from decathlete.core.output_paths import check_output_folder
from decathlete.core.parallel import Workers, attempt, map_cases, require_shared
from decathlete.core.regions import GivenRegions
from decathlete.dataset.annotated import AnnotatedFile, read_annotated, unannotated_values
from decathlete.dataset.manifest import DeclaredLabels
from decathlete.dataset.regions import resolve_labels
from decathlete.errors import DatasetError, GridMismatchError, ImageError, problems_found
from decathlete.evaluation.case import score_case
from decathlete.evaluation.folders import declared_labels, label_files, labels_of_values
from decathlete.evaluation.metrics import Metric, MetricChoice, make_metrics
from decathlete.evaluation.saved import check_scores, save_scores
from decathlete.evaluation.scores import CaseScores, Scores
from decathlete.io.dicom_label import LabelStructures
from decathlete.io.folder_tree import log_unused
from decathlete.io.format_settings import FormatSettings, check_effect, format_settings
from decathlete.io.image_files import PROBABILITIES
from decathlete.io.images import read_grid, read_label
from decathlete.io.largest_images import sizes_of_largest
from decathlete.io.volumes import LabelMap

Pair = tuple[Path, Path]
"""Prediction, truth."""


def evaluate(
    predictions: Path,
    labels_folder: Path,
    *,
    output: Path | None = None,
    overwrite: bool = False,
    labels: LabelSet | None = None,
    regions: GivenRegions | None = None,
    regions_order: Sequence[int] = (),
    brats: bool = False,
    annotated: Path | None = None,
    metrics: Sequence[MetricChoice] | None = None,
    tolerance_mm: float | None = None,
    spacing: Triple | None = None,
    image_formats: Mapping[str, Mapping[str, Any]] | None = None,
    workers: Workers = 2,
) -> Scores:
    """Score every label map of a folder against the prediction of the same id (file name without its suffix).

    Args:
        output: folder for ``scores.json`` and ``scores.csv``.
        overwrite: replace other scores in ``output``; equal ones are always replaced.
        labels: the classes. ``None``: those of a ``dataset.json`` in or above ``labels_folder``; without one, one
            class per value found in the files.
        regions, regions_order, brats: score these regions instead of classes, see :class:`~decathlete.PlanOptions`.
        annotated: CSV file with the annotated classes of partially annotated cases, see
            :class:`~decathlete.PlanOptions`. The others are not scored. ``None``: the ``annotated`` of the
            ``dataset.json`` that declares the classes.
        metrics, tolerance_mm: see :func:`~decathlete.evaluation.metrics.make_metrics`.
        spacing: z, y, x in mm, for files that do not contain their spacing.
        image_formats: settings of image formats that change how files are read, by the name of the format.
        workers: number of cases that are scored in parallel, or an executor (:func:`decathlete.connect_cluster`).

    Raises:
        DatasetError: a folder that is missing or without label maps; predictions that are missing; files that cannot
            be read; values that are not integers or not declared.
        ManifestError: the list of annotated classes is not valid or names unknown classes.
        GridMismatchError: some pairs do not share a grid; all of them are named.
        OptionError: regions that do not fit the labels, or that their names do not decide; unknown metrics.
        OutputError: ``output`` cannot be written or another process works in it (checked before any work is done), or
            it holds other scores.
    """
    used = make_metrics(metrics, tolerance_mm=tolerance_mm)
    listed = None if annotated is None else read_annotated(annotated)
    if output is not None:
        check_output_folder(output)
    with locked_folder(output) if output is not None else nullcontext():
        pairs = _pairs(predictions, labels_folder)
        formats = format_settings(image_formats or {})
        check_effect(formats, read=(path for pair in pairs.values() for path in pair))
        if output is not None and not overwrite:
            check_scores(output, case_ids=list(pairs), metrics=used)
        require_shared(workers, reads=[predictions, labels_folder])
        declared = declared_labels(labels_folder) if labels is None else DeclaredLabels(labels=labels)
        if declared is None:
            declared = DeclaredLabels(labels=_labels_seen(pairs, spacing, formats, workers=workers))
        scores = evaluate_pairs(
            pairs,
            resolve_labels(declared.labels, regions=regions, order=regions_order, brats=brats),
            metrics=used,
            spacing=spacing,
            formats=formats,
            unannotated=_unannotated(pairs, declared, listed),
            workers=workers,
        )
        if output is not None:
            save_scores(scores, output, overwrite=overwrite)
        return scores


def _pairs(predictions: Path, labels_folder: Path) -> dict[str, Pair]:
    truths = label_files(labels_folder)
    found = label_files(predictions)
    if missing := [case_id for case_id in truths if case_id not in found]:
        raise problems_found(
            [
                f"no prediction for {(name := truths[case_id].name)}{nearest_files(predictions / name)}"
                for case_id in missing
            ],
            where=predictions,
            remedy="predict these cases too, or rename the files: they are matched by their names without suffix",
        )
    log_unused(
        predictions,
        {
            path: f"no label map of this name in {labels_folder}"
            for case_id, path in found.items()
            if case_id not in truths and not _has_probabilities(case_id, found)
        },
    )
    return {case_id: (found[case_id], truth) for case_id, truth in truths.items()}


def _unannotated(
    names: Iterable[str], declared: DeclaredLabels, listed: AnnotatedFile | None
) -> dict[str, tuple[int, ...]]:
    """Return the values of the classes that were not annotated, by the name of the label map.

    Args:
        listed: annotated classes by case, instead of those in ``declared``; cases without a label map are logged.
    """
    annotated = declared.annotated if listed is None else listed
    if annotated is None:
        return {}
    values = unannotated_values(annotated, declared.labels, list(annotated), where=annotated.path)
    case_ids = {name: declared.case_ids.get(name, name) for name in names}
    if listed is not None:
        unknown = sorted(set(listed) - set(case_ids.values()))
        log_unused(listed.path, {Path(case_id): "no label map of this name is scored" for case_id in unknown})
    return {name: values[case_id] for name, case_id in case_ids.items() if case_id in values}


def _has_probabilities(case_id: str, found: Mapping[str, Path]) -> bool:
    """Return whether a file holds the probabilities of another one, as ``predict --save-probabilities`` writes them."""
    return case_id.endswith(PROBABILITIES) and case_id.removesuffix(PROBABILITIES) in found


def _labels_seen(
    pairs: dict[str, Pair], spacing: Triple | None, formats: FormatSettings, *, workers: Workers
) -> LabelSet:
    seen: set[int] = set()
    problems = []
    workers = _limit_workers(workers, pairs, spacing, formats)
    for outcome in map_cases(partial(_values, spacing=spacing, formats=formats), pairs, workers=workers):
        seen |= outcome.value or set()
        if outcome.error is not None:
            problems.append(f"case {outcome.case_id}: {outcome.error}")
    if problems:
        where = next(iter(pairs.values()))[0].parent
        raise problems_found(sorted(problems), where=where, remedy="fix these files; nothing was scored")
    return labels_of_values(seen)


def _limit_workers(
    workers: Workers, pairs: Mapping[str, Pair], spacing: Triple | None, formats: FormatSettings
) -> Workers:
    """Lower ``workers`` to the number of pairs that fit into memory; an executor is returned as it is."""
    if not isinstance(workers, int):
        return workers
    truths = {case_id: (truth,) for case_id, (_, truth) in pairs.items()}
    sizes = sizes_of_largest(truths, workers, spacing=spacing, formats=formats)
    return limit_workers(workers, {case_id: score_bytes(size) for case_id, size in sizes.items()}, doing="score")


def _values(pair: Pair, *, spacing: Triple | None, formats: FormatSettings) -> set[int]:
    values: set[int] = set()
    for path in pair:
        found = np.unique(read_label(path, spacing=spacing, formats=formats).array_ZYX)
        if found[0] < 0:
            raise ImageError(
                f"contains the negative label {found[0]}",
                where=path,
                remedy="use label maps whose classes have the values 1, 2, ...",
                code="E-IMAGE-VALUES",
            )
        values |= set(found.tolist())
    return values


def evaluate_pairs(
    pairs: Mapping[str, Pair],
    labels: LabelSet,
    *,
    metrics: Sequence[Metric] | None = None,
    spacing: Triple | None = None,
    formats: FormatSettings = (),
    structures: Mapping[str, LabelStructures] | None = None,
    unannotated: Mapping[str, Sequence[int]] | None = None,
    workers: Workers = 2,
) -> Scores:
    """Score files: case id -> (prediction, truth).

    Args:
        metrics: ``None``: the default ones, see :func:`~decathlete.evaluation.metrics.make_metrics`.
        spacing, formats: see :mod:`decathlete.io.images`.
        structures: case id -> how its truth is read, for those that are DICOM SEG objects or RT structure sets.
        unannotated: case id -> values of the classes that were not annotated in it, which are not scored.

    Raises:
        GridMismatchError: some pairs do not share a grid; all of them are named.
        DatasetError: no pairs, files without a spacing beside others with one, unreadable files, values that are not
            integers or not declared; all together.
    """
    used = make_metrics() if metrics is None else tuple(metrics)
    if not pairs:
        raise DatasetError(
            "there is nothing to evaluate",
            remedy="use at least one prediction and its label map",
            code="E-DATASET-LABELS",
        )
    structures = structures or {}
    with_grid = {i: (prediction, structures[i].image if i in structures else t) for i, (prediction, t) in pairs.items()}
    unit = _check_grids(with_grid, spacing, formats)
    scored: list[CaseScores] = []
    problems: list[str] = []
    work = {
        case_id: (case_id, *pair, structures.get(case_id), tuple((unannotated or {}).get(case_id, ())))
        for case_id, pair in pairs.items()
    }
    workers = _limit_workers(workers, with_grid, spacing, formats)
    score = partial(_score_files, labels=labels, metrics=used, spacing=spacing, formats=formats)
    for outcome in map_cases(score, work, workers=workers):
        if outcome.value is not None:
            scored.append(outcome.value)
        else:
            problems.append(f"case {outcome.case_id}: {outcome.error}")
    if problems:
        raise problems_found(
            sorted(problems), where=_folder(pairs), remedy="fix these files; nothing was scored", kind=DatasetError
        )
    return Scores.of(scored, used, unit=unit)


def _folder(pairs: Mapping[str, Pair]) -> Path:
    return next(iter(pairs.values()))[0].parent


def _check_grids(pairs: Mapping[str, Pair], spacing: Triple | None, formats: FormatSettings) -> Unit:
    """Check that the files of each pair share a grid, and return the unit of lengths of all truths."""
    unreadable, mismatches = [], []
    with_unit: dict[Unit, list[str]] = {}
    for case_id, pair in pairs.items():
        compared = attempt(case_id, partial(_compare_grids, spacing=spacing, formats=formats), pair)
        if compared.value is None:
            unreadable.append(f"case {case_id}: {compared.error}")
            continue
        differences, unit = compared.value
        with_unit.setdefault(unit, []).append(case_id)
        if differences:
            mismatches.append(f"case {case_id}, label against prediction: {'; '.join(differences)}")
    if mismatches:
        raise problems_found(
            [*unreadable, *mismatches],
            where=_folder(pairs),
            remedy="predict on the grid of the image that the label map belongs to, and compare files of one case",
            kind=GridMismatchError,
        )
    if unreadable:
        raise problems_found(
            unreadable, where=_folder(pairs), remedy="fix these files; nothing was scored", kind=DatasetError
        )
    if len(with_unit) > 1:
        raise DatasetError(
            f"the label maps of {len(with_unit[PIXEL])} of {len(pairs)} cases have no spacing, the others are in mm "
            f"({', '.join(with_unit[PIXEL][:5])}{', ...' if len(with_unit[PIXEL]) > 5 else ''})",
            where=_folder(pairs),
            remedy="add --spacing Z,Y,X (mm) for those without, or score them in a command of their own",
            code="E-IMAGE-SPACING",
        )
    return next(iter(with_unit))


def _compare_grids(pair: Pair, spacing: Triple | None, formats: FormatSettings) -> tuple[list[str], Unit]:
    prediction, truth = (read_grid(path, spacing=spacing, formats=formats)[1] for path in pair)
    return truth.differences(prediction), truth.unit


def _score_files(
    item: tuple[str, Path, Path, LabelStructures | None, tuple[int, ...]],
    *,
    labels: LabelSet,
    metrics: Sequence[Metric],
    spacing: Triple | None,
    formats: FormatSettings,
) -> CaseScores:
    case_id, prediction_path, truth_path, structures, unannotated = item
    read = partial(_read_declared, labels=labels, spacing=spacing, formats=formats)
    truth, prediction = read(truth_path, structures=structures), read(prediction_path)
    return score_case(
        prediction.array_ZYX,
        truth.array_ZYX,
        truth.geometry,
        labels,
        metrics=metrics,
        unannotated=unannotated,
        case_id=case_id,
    )


def _read_declared(
    path: Path,
    *,
    labels: LabelSet,
    spacing: Triple | None,
    formats: FormatSettings,
    structures: LabelStructures | None = None,
) -> LabelMap:
    label = read_label(path, spacing=spacing, formats=formats, structures=structures)
    if undeclared := labels.find_undeclared_values(label.array_ZYX):
        raise ImageError(
            f"values {_some(undeclared)} are not declared (declared: {_some(labels.values)})",
            where=path,
            remedy="declare them in dataset.json or correct the label map",
            code="E-IMAGE-VALUES",
        )
    return label


def _some(values: Sequence[float], limit: int = 10) -> str:
    shown = ", ".join(f"{v:g}" for v in values[:limit])
    return shown + (f", ... ({len(values)} in all)" if len(values) > limit else "")
