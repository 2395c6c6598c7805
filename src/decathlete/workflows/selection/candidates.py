"""The candidates of a selection: each configuration and each pair, and their Dice on the held-out cases."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median

from decathlete.core.geometry import Unit
from decathlete.core.parallel import Workers
from decathlete.core.progress import CaseProgress
from decathlete.dataset.spec import Case
from decathlete.errors import DecathleteError, ModelError
from decathlete.evaluation.metrics import MetricChoice, make_metrics
from decathlete.evaluation.scores import CaseScores, Scores
from decathlete.inference.batching.case_predictor import make_case_predictor
from decathlete.inference.options import PredictOptions
from decathlete.inference.output.output_kind import OutputKind
from decathlete.inference.output.provenance import PredictionRecord
from decathlete.inference.predict_files import predict_files
from decathlete.io.format_settings import format_settings
from decathlete.workflows.held_out import load_held_out_cases, score_held_out
from decathlete.workflows.selection.configurations import TrainedConfiguration, TrainedFold
from decathlete.workflows.validate import validate

log = logging.getLogger(__name__)

DICE = "dice"


@dataclass(frozen=True, kw_only=True)
class PredictionSetup:
    """How the held-out cases of all candidates are predicted and scored.

    Attributes:
        dataset_root: folder of the raw dataset, if it has moved since training.
        metrics: metrics of the selected model, and of runs without scores.
        workers: number of cases that are scored in parallel, or an executor.
        overwrite_runs: replace predictions and scores of runs that were made with other options.
        progress: called after each predicted case.
    """

    options: PredictOptions
    dataset_root: Path | None
    metrics: Sequence[MetricChoice] | None
    workers: Workers
    overwrite_runs: bool
    progress: CaseProgress | None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A configuration, or a pair of which the probabilities are averaged.

    Attributes:
        folds: folds whose networks the bundle would contain.
    """

    configurations: tuple[TrainedConfiguration, ...]
    folds: tuple[int, ...]

    @property
    def name(self) -> str:
        """Names of the configurations, joined by ``+``."""
        return "+".join(configuration.name for configuration in self.configurations)

    @property
    def runs(self) -> list[TrainedFold]:
        """The runs whose models the bundle would contain."""
        return [configuration.folds[fold] for configuration in self.configurations for fold in self.folds]

    @property
    def n_networks(self) -> int:
        """Number of networks of the bundle."""
        return sum(run.n_networks for run in self.runs)


@dataclass(frozen=True, kw_only=True)
class HeldOutResult:
    """The held-out cases of a candidate, predicted by models that did not see them.

    Attributes:
        scores: Dice of every case.
        predictions: case id -> label map.
        seconds: case id -> time of the prediction by one fold's models.
        device: where they were predicted.
    """

    scores: Scores
    predictions: Mapping[str, Path]
    seconds: Mapping[str, float]
    device: str

    @property
    def median_seconds(self) -> float:
        """Median time of a case by one fold's models."""
        return median(self.seconds.values())


def make_candidates(
    configurations: Sequence[TrainedConfiguration], folds: Sequence[int], *, max_members: int
) -> list[Candidate]:
    """Return each configuration and each pair; a bundle with too many networks gets fewer folds.

    A candidate that is too large even with one fold has no folds. Configurations with different steps of
    post-processing by their plans make no pair.
    """
    sets: list[tuple[TrainedConfiguration, ...]] = [(configuration,) for configuration in configurations]
    for one, other in combinations(configurations, 2):
        if one.folds[folds[0]].postprocessing == other.folds[folds[0]].postprocessing:
            sets.append((one, other))
        else:
            log.warning("%s and %s are no pair: their post-processing differs (keep_largest)", one.name, other.name)
    return [
        Candidate(configurations=chosen, folds=_affordable_folds(chosen, folds, max_members=max_members))
        for chosen in sets
    ]


def _affordable_folds(
    chosen: Sequence[TrainedConfiguration], folds: Sequence[int], *, max_members: int
) -> tuple[int, ...]:
    kept: list[int] = []
    n_networks = 0
    for fold in folds:
        n_networks += sum(configuration.folds[fold].n_networks for configuration in chosen)
        if n_networks > max_members:
            break
        kept.append(fold)
    return tuple(kept)


def load_cases(
    configuration: TrainedConfiguration, folds: Sequence[int], dataset_root: Path | None
) -> dict[int, list[Case]]:
    """Load the held-out cases of each fold.

    Raises:
        DatasetError: the raw dataset is missing or lacks cases.
    """
    return {
        fold: load_held_out_cases(configuration.folds[fold].folder, configuration.folds[fold].record, dataset_root)
        for fold in folds
    }


def score_configuration(
    configuration: TrainedConfiguration, cases: Mapping[int, Sequence[Case]], setup: PredictionSetup
) -> HeldOutResult:
    """Score the held-out predictions of a configuration; those that are missing are made first."""
    scored: list[CaseScores] = []
    records: dict[str, PredictionRecord] = {}
    predictions: dict[str, Path] = {}
    unit: Unit = "mm"
    for fold, held_out in cases.items():
        run = configuration.folds[fold].folder
        scores = validate(
            run,
            dataset_root=setup.dataset_root,
            options=setup.options,
            workers=setup.workers,
            metrics=_existing_metrics(run) or setup.metrics,
            overwrite=setup.overwrite_runs,
            progress=setup.progress,
        )
        unit = scores.unit
        scored += [_dice_only(case) for case in scores.cases]
        for case in held_out:
            record = PredictionRecord.load(run / "validation" / f"{case.id}.json", error=ModelError)
            records[case.id], predictions[case.id] = record, run / "validation" / record.label
    return _result(scored, records, predictions, unit)


def score_pair(
    candidate: Candidate,
    cases: Mapping[int, Sequence[Case]],
    setup: PredictionSetup,
    folder: Path,
) -> HeldOutResult:
    """Predict the held-out cases of a pair into ``folder``, fold by fold, and score them.

    Probabilities are averaged case by case; those of one case at a time are on disk, none stay there.
    """
    scored: list[CaseScores] = []
    records: dict[str, PredictionRecord] = {}
    predictions: dict[str, Path] = {}
    unit: Unit = "mm"
    for fold, held_out in cases.items():
        runs = [configuration.folds[fold] for configuration in candidate.configurations]
        record = runs[0].record
        predicted = predict_files(
            make_case_predictor([run.folder for run in runs], setup.options, setup.workers),
            {case.id: case.images for case in held_out},
            folder,
            spacing=record.spacing,
            kind=OutputKind(image_formats=record.image_formats),
            overwrite=True,  # the folder belongs to the selection; unchanged predictions are kept
            progress=setup.progress,
        )
        records |= {file.case_id: file.record for file in predicted}
        predictions |= {file.case_id: file.path for file in predicted}
        scores = score_held_out(
            held_out,
            predictions,
            runs[0].labels,
            metrics=make_metrics([DICE]),
            spacing=record.spacing,
            formats=format_settings(record.image_formats),
            workers=setup.workers,
        )
        unit = scores.unit
        scored += scores.cases
    return _result(scored, records, predictions, unit)


def _result(
    scored: Sequence[CaseScores],
    records: Mapping[str, PredictionRecord],
    predictions: Mapping[str, Path],
    unit: Unit,
) -> HeldOutResult:
    return HeldOutResult(
        scores=Scores.of(scored, make_metrics([DICE]), unit=unit),
        predictions=predictions,
        seconds={case_id: record.seconds for case_id, record in records.items()},
        device=", ".join(sorted({record.device for record in records.values()})),
    )


def _dice_only(case: CaseScores) -> CaseScores:
    return CaseScores.of(case.case_id, [c.revised(values={DICE: c.values[DICE]}) for c in case.classes])


def _existing_metrics(run: Path) -> list[MetricChoice] | None:
    """Return the metrics of the scores in a run, so that these are reused; ``None``: there are no such scores.

    Without the Dice among them, others are needed: ``validate`` then asks for ``--overwrite``.
    """
    try:
        metrics = Scores.load(run / "scores.json").metrics
        if DICE in [metric.name for metric in metrics]:
            return [{"name": metric.name, **metric.settings} for metric in metrics]
    except DecathleteError:  # absent or damaged
        pass
    return None
