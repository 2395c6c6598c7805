"""Choose the DICOM series to segment: sort mixed folders, and combine series that are channels of one case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from decathlete.errors import ImageError
from decathlete.io.dicom_series import DicomSeries, are_parts, lies_alone, sort_series, stage_series
from decathlete.io.folder_tree import ReportUnused, describe_unused, is_slice, log_unused, name_some
from decathlete.io.format_lookup import files_of
from decathlete.io.image_files import Failures, strip_suffix
from decathlete.io.series_rules import SeriesRule, choose_channels, default_rules, parse_series_rules

Inputs = Mapping[str, tuple[Path, ...]]
_REMEDY = "choose series with --series (modality, description, orientation, slices), or name the folder of one series"


@dataclass(kw_only=True)
class _CaseSeries:
    """The series of all cases.

    Attributes:
        series: id of the case it was found in, and the series.
        skipped: file -> why it is not used.
        damaged: files that should be slices and cannot be read.
        others: cases that are no DICOM.
    """

    series: list[tuple[str, DicomSeries]] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)
    damaged: set[Path] = field(default_factory=set)
    others: dict[str, tuple[Path, ...]] = field(default_factory=dict)


def choose_series(
    cases: Inputs,
    channels: Sequence[str],
    root: Path,
    *,
    rules: Sequence[str] = (),
    make_folder: Callable[[str], Path],
    failures: Failures | None = None,
    report_unused: ReportUnused = log_unused,
) -> dict[str, tuple[Path, ...]]:
    """Return the cases with the DICOM series that a model segments; what is skipped is reported.

    A folder with several series becomes one case for each. Of several series, those are skipped whose modality is not
    that of the model's channel. A model of several channels takes one series for each from each study: of several that
    fit a channel, the one with the most slices.

    Args:
        cases: of :func:`~decathlete.io.images.find_inputs`.
        root: the input, for messages.
        rules: of ``--series``; empty: by the names of the channels.
        make_folder: returns the path of a folder, which does not exist yet, for the links to the slices of a case.
        failures: cases that are parts of one series, and studies that lack a channel or in which it is not clear, are
            added to it; ``None``: the first one is raised.
        report_unused: called with what is skipped.

    Raises:
        OptionError: a rule is not valid.
        ImageError: no series is left, several fit one channel equally, a study lacks a channel, or the slices of a
            series lie in several folders.
    """
    wanted = parse_series_rules(rules, channels) if rules else default_rules(channels)
    inputs = _find(cases)
    if not rules and _is_plain(inputs, cases):
        return dict(cases)
    _reject_parts(inputs, root, failures)
    if rules and not inputs.series and not failures:
        raise ImageError("contains no DICOM series, which --series chooses from", where=root, remedy=_REMEDY)
    if len(channels) == 1:
        chosen = _choose_single(inputs, wanted[0], must_fit=bool(rules))
    else:
        chosen = _choose_channels(inputs, wanted, channels, root, failures)
    report_unused(root, inputs.skipped)
    if not chosen and not inputs.others and not failures:
        raise ImageError(
            f"contains no DICOM series to segment{describe_unused(root, inputs.skipped)}",
            where=root,
            remedy=_REMEDY,
            code="E-IMAGE-NOT-FOUND",
        )
    return dict(sorted((inputs.others | _place(chosen, inputs.damaged, make_folder)).items()))


def _find(cases: Inputs) -> _CaseSeries:
    inputs = _CaseSeries()
    for case_id, paths in cases.items():
        files = _dicom_files(paths)
        if not files:
            inputs.others[case_id] = paths
            continue
        scan = sort_series(files)
        if scan.damaged and len(scan.series) <= 1:  # the reader of the folder reports them
            inputs.others[case_id] = paths
            continue
        inputs.series += [(case_id, series) for series in scan.series]
        inputs.skipped |= scan.skipped
        inputs.damaged |= scan.damaged
    return inputs


def _reject_parts(inputs: _CaseSeries, root: Path, failures: Failures | None) -> None:
    """Take out series whose slices lie in several folders: each part would be segmented as an image of its own.

    Folders with equal slices are copies, which are images.
    """
    of_series: dict[str, list[tuple[str, DicomSeries]]] = defaultdict(list)
    for case_id, series in inputs.series:
        if series.series_uid and series.n_slices == len(series.files):
            of_series[series.series_uid].append((case_id, series))
    for parts in of_series.values():
        if len(parts) < 2 or not are_parts([series for _, series in parts]):
            continue
        listed = ", ".join(f"{name_some(root, [one.folder])} ({one.n_slices} slices)" for _, one in parts)
        problem = ImageError(
            f"the slices of one series lie in several folders: {listed}",
            where=root,
            remedy="put them into one folder; if they are different images, predict each folder by itself",
            code="E-IMAGE-DICOM",
        )
        if failures is None:
            raise problem
        failures.update({case_id: problem for case_id, _ in parts})
        inputs.series = [one for one in inputs.series if one not in parts]


def _dicom_files(paths: Sequence[Path]) -> list[Path]:
    """Return the DICOM files of a case that is a folder; a file that was named itself is not compared with others."""
    if len(paths) != 1 or not paths[0].is_dir():
        return []
    return list(files_of(paths[0])) if is_slice(paths[0]) else []


def _is_plain(inputs: _CaseSeries, cases: Inputs) -> bool:
    """Return whether there is nothing to choose: at most one series, which the reader checks itself."""
    return not inputs.series or (
        len(inputs.series) == 1 and len(cases) == 1 and not _needs_staging(inputs.series[0][1])
    )


def _needs_staging(series: DicomSeries) -> bool:
    return not lies_alone(series) or (len(series.files) == 1 and series.n_slices > 1)


def _choose_single(inputs: _CaseSeries, rule: SeriesRule, *, must_fit: bool) -> dict[str, tuple[DicomSeries, ...]]:
    fitting = [(case_id, series) for case_id, series in inputs.series if rule.fits(series)]
    if not fitting and not must_fit:
        fitting = inputs.series  # a modality that the channel's name does not tell
    for _, series in inputs.series:
        if all(series is not one for _, one in fitting):
            inputs.skipped.update({path: f"{series.summary()}: not what the model segments" for path in series.files})
    n_of_case = {case_id: sum(one == case_id for one, _ in fitting) for case_id, _ in fitting}
    chosen: dict[str, tuple[DicomSeries, ...]] = {}
    for case_id, series in fitting:
        name = case_id if n_of_case[case_id] == 1 else f"{case_id}_{_series_name(series)}"
        chosen[_unused_name(name, chosen)] = (series,)
    return chosen


def _series_name(series: DicomSeries) -> str:
    """Return the number of a series; without one, the name of its only file."""
    if series.number is not None:
        return str(series.number)
    return strip_suffix(series.files[0].name) if len(series.files) == 1 else "x"


def _choose_channels(
    inputs: _CaseSeries, rules: Sequence[SeriesRule], channels: Sequence[str], root: Path, failures: Failures | None
) -> dict[str, tuple[DicomSeries, ...]]:
    studies: dict[str, list[DicomSeries]] = defaultdict(list)
    for _, series in inputs.series:
        studies[series.study_uid].append(series)
    chosen: dict[str, tuple[DicomSeries, ...]] = {}
    for of_study in studies.values():
        folder = _study_folder(of_study)
        name = _unused_name(_study_name(folder, root), {**chosen, **(failures or {})})
        try:
            parts = choose_channels(of_study, rules, channels, where=folder)
        except ImageError as problem:
            if failures is None:
                raise
            failures[name] = problem
            continue
        for series in of_study:
            if series not in parts:
                reason = f"{series.summary()}: no channel of the model"
                inputs.skipped.update(dict.fromkeys(series.files, reason))
        chosen[name] = parts
    return chosen


def _study_folder(of_study: Sequence[DicomSeries]) -> Path:
    """Return the folder that contains all series of a study."""
    common = of_study[0].folder
    while not all(series.folder.is_relative_to(common) for series in of_study):
        common = common.parent
    return common


def _study_name(folder: Path, root: Path) -> str:
    """Return the path of the folder of a study, from the input on."""
    parts = folder.relative_to(root).parts if folder.is_relative_to(root) else ()
    return "_".join(parts) or root.resolve().name


def _unused_name(name: str, used: Mapping[str, object]) -> str:
    return next(n for n in (name, *(f"{name}_{k}" for k in range(2, len(used) + 3))) if n not in used)


def _place(
    chosen: Mapping[str, tuple[DicomSeries, ...]], damaged: Iterable[Path], make_folder: Callable[[str], Path]
) -> dict[str, tuple[Path, ...]]:
    damaged_in: dict[Path, list[Path]] = defaultdict(list)
    for path in sorted(damaged):
        damaged_in[path.parent].append(path)

    def place(series: DicomSeries, name: str) -> Path:
        if not _needs_staging(series):
            return series.folder
        return stage_series(series, make_folder(name), damaged=damaged_in[series.folder])

    return {
        case_id: tuple(
            place(series, case_id if len(parts) == 1 else f"{case_id}_{channel:04d}")
            for channel, series in enumerate(parts)
        )
        for case_id, parts in chosen.items()
    }
