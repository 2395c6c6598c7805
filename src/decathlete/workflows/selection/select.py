"""Select the best configuration or pair of configurations, decide its post-processing, and write one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from decathlete.core.locks import locked_folder
from decathlete.core.output_paths import check_output_folder
from decathlete.core.parallel import Workers
from decathlete.dataset.spec import Case
from decathlete.errors import OptionError
from decathlete.evaluation.metric_info import MetricInfo
from decathlete.evaluation.metrics import MetricChoice, make_metrics
from decathlete.inference.options import PredictOptions
from decathlete.models.bundle import ModelBundle, check_place
from decathlete.models.combine import combine_bundles
from decathlete.workflows.progress import ProgressReporter
from decathlete.workflows.selection.candidates import (
    Candidate,
    HeldOutResult,
    PredictionSetup,
    make_candidates,
    score_configuration,
    score_pair,
)
from decathlete.workflows.selection.compare import CANDIDATES, find_best, make_records
from decathlete.workflows.selection.configurations import common_folds, find_configurations
from decathlete.workflows.selection.held_out_files import remove_predictions_of_others, write_held_out_files
from decathlete.workflows.selection.inputs import SelectionInputs, load_inputs
from decathlete.workflows.selection.postprocessing import decide_postprocessing
from decathlete.workflows.selection.record import SELECTION, PostprocessingDecision, Selection
from decathlete.workflows.selection.result import SelectResult, load_existing, make_result
from decathlete.workflows.selection.step_effects import HeldOutCase
from decathlete.workflows.selection.summary import explain_choice
from decathlete.workflows.selection.validation import MODEL, VALIDATION, load_fold_cases
from decathlete.workflows.validate import validate

SELECTED = "selected"
"""Name of the default output folder, beside the configurations."""
PREDICTIONS = "predictions"
"""Subfolder with the test images that ``run`` has predicted by the selected model."""
DEFAULT_MAX_MEMBERS = 10
"""A pair of configurations with five folds each."""


def select(
    results: Path | str | Sequence[Path | str],
    *,
    output: Path | str | None = None,
    dataset_root: Path | None = None,
    options: PredictOptions = PredictOptions(),
    max_members: int = DEFAULT_MAX_MEMBERS,
    group_by: str | None = None,
    metrics: Sequence[MetricChoice] | None = None,
    workers: Workers = 2,
    overwrite: bool = False,
    keep_same: bool = False,
    reporter: ProgressReporter = ProgressReporter(),
) -> SelectResult:
    """Select the configuration or pair with the highest mean Dice of the held-out cases, on their original grids.

    Each held-out case is predicted by models that did not see it. A pair averages the probabilities of two
    configurations; they are computed case by case and not kept. Post-processing is decided for each class or region.

    Args:
        results: results of a dataset (``results/DATASET``), or of some of its configurations (``results/DATASET/3d``).
        output: folder of the result; ``None``: ``selected`` beside the configurations.
        dataset_root: folder of the raw dataset, if it has moved since training.
        options: options of the prediction.
        max_members: greatest number of networks of the model; each adds its time to a prediction.
        group_by: regular expression that finds the patient in a case's name, see :class:`~decathlete.PlanOptions`;
            ``None``: that of the training, or else by the manifest or the names. Intervals count patients, not cases.
        metrics: metrics of the selected model, and of runs without scores; see :func:`decathlete.validate`. The Dice
            must be among them.
        workers: number of cases that are scored in parallel, or an executor (:func:`decathlete.connect_cluster`).
        overwrite: replace the selection in ``output``, and scores of the runs that were made with other options.
        keep_same: with ``overwrite``, keep a finished selection of the same models, data and options.
        reporter: receives the progress.

    Raises:
        ModelError: there are no finished folds, or the configurations were trained on different data or folds.
        OptionError: no candidate has so few networks, or the Dice is not among the metrics.
        DatasetError: the raw dataset is missing, or no held-out case has any foreground.
        OutputError: ``output`` contains another selection, or cannot be written.
    """
    check_metrics(metrics)
    folders = [Path(results)] if isinstance(results, (str, Path)) else [Path(folder) for folder in results]
    configurations = find_configurations(folders)
    folds = common_folds(configurations)
    candidates = make_candidates(configurations, folds, max_members=max_members)
    if not any(candidate.folds for candidate in candidates):
        raise OptionError(
            f"no configuration has a model of at most {max_members} networks", remedy="use a larger --max-members"
        )
    folder = check_output_folder(output or configurations[0].folder.parent / SELECTED)
    inputs = load_inputs(configurations, folds, dataset_root=dataset_root, group_by=group_by)
    described = [MetricInfo.of(metric).model_dump(mode="json") for metric in make_metrics(metrics)]
    key = inputs.key(options.model_dump(mode="json"), max_members, described)
    with locked_folder(folder):
        may_keep = keep_same or not overwrite
        existing = load_existing(folder, key, overwrite=overwrite) if may_keep else None
        if existing is not None:
            return existing
        check_place(folder / MODEL, overwrite=True)
        setup = PredictionSetup(
            options=options,
            dataset_root=dataset_root,
            metrics=metrics,
            workers=workers,
            overwrite_runs=overwrite,
            progress=reporter.cases("predict"),
        )
        return _SelectionSteps(folder, inputs, candidates, setup, reporter).run(key, max_members)


def check_metrics(metrics: Sequence[MetricChoice] | None) -> None:
    """Check that the Dice is among the metrics, by which configurations are compared.

    Raises:
        OptionError: it is not, or a metric is unknown.
    """
    if "dice" not in [metric.name for metric in make_metrics(metrics)]:
        raise OptionError("configurations are compared by their Dice", remedy="add dice to --metrics")


class _SelectionSteps:
    """The steps of one selection."""

    def __init__(
        self,
        folder: Path,
        inputs: SelectionInputs,
        candidates: Sequence[Candidate],
        setup: PredictionSetup,
        reporter: ProgressReporter,
    ) -> None:
        self.folder = folder
        self.inputs = inputs
        self.candidates = candidates
        self.setup = setup
        self.reporter = reporter

    def run(self, key: str, max_members: int) -> SelectResult:
        """Score, choose, decide on post-processing, and write everything."""
        first, cases, patients = self.inputs.record, self.inputs.cases, self.inputs.patients
        results = self._score(cases)
        best = find_best(self.candidates, results, folder=self.folder)
        result = results[best.name]
        self.reporter.step("Decide on post-processing")
        decision = self._postprocessing(result, cases, patients)
        selection = Selection(
            key=key,
            dataset=first.dataset,
            dataset_root=str(self.inputs.root.resolve()),
            spacing=first.spacing,
            image_formats=first.image_formats,
            unit=result.scores.unit,
            annotated=first.annotated,
            folds=tuple(self.inputs.folds),
            held_out={fold: tuple(case.id for case in held_out) for fold, held_out in cases.items()},
            max_members=max_members,
            selected=best.name,
            reason="",
            candidates=make_records(self.candidates, results, best=best, patients=patients, max_members=max_members),
            postprocessing=decision,
            device=result.device,
        )
        return self._write(best, result, selection.revised(reason=explain_choice(selection)))

    def _score(self, cases: Mapping[int, Sequence[Case]]) -> dict[str, HeldOutResult]:
        """Score every configuration, and every pair that is small enough."""
        results = {}
        for candidate in self.candidates:
            if len(candidate.configurations) == 1:
                self.reporter.step(f"Score the held-out cases of {candidate.name}")
                results[candidate.name] = score_configuration(candidate.configurations[0], cases, self.setup)
            elif candidate.folds:
                self.reporter.step(f"Predict and score the held-out cases of the pair {candidate.name}")
                folder = self.folder / CANDIDATES / candidate.name / VALIDATION
                results[candidate.name] = score_pair(candidate, cases, self.setup, folder)
        for name, result in results.items():
            folder = check_output_folder(self.folder / CANDIDATES / name)
            folder.mkdir(parents=True, exist_ok=True)
            result.scores.save_files(folder)
        return results

    def _postprocessing(
        self, result: HeldOutResult, cases: Mapping[int, Sequence[Case]], patients: Mapping[str, str]
    ) -> PostprocessingDecision:
        held_out = {
            case.id: HeldOutCase(
                prediction=result.predictions[case.id],
                truth=case.label,
                spacing=case.spacing,
                formats=case.formats,
                structures=case.structures,
                unannotated=case.unannotated,
            )
            for of_fold in cases.values()
            for case in of_fold
            if case.label is not None
        }
        volumes: dict[str, float] = {}
        ml_of_size = 0.001 if result.scores.is_in_pixels else 1.0  # as `remove_small` counts a pixel
        for structure in (structure for case in result.scores.cases for structure in case.classes):
            if (truth_ml := ml_of_size * result.scores.sizes(structure)[0]) > 0:
                volumes[structure.name] = min(truth_ml, volumes.get(structure.name, truth_ml))
        labels = self.inputs.configurations[0].labels
        return decide_postprocessing(
            held_out,
            labels,
            smallest_truth_ml=volumes,
            patients=patients,
            unit=result.scores.unit,
            workers=self.setup.workers,
        )

    def _write(self, best: Candidate, result: HeldOutResult, selection: Selection) -> SelectResult:
        """Write the model, its held-out predictions and their scores, and the page."""
        runs = [run.folder for run in best.runs]
        planned = ModelBundle.load(runs[0]).record.postprocessing  # in the held-out predictions, too
        bundle = combine_bundles(
            runs,
            self.folder / MODEL,
            postprocessing=(*planned, *selection.postprocessing.steps),
            provenance={"selection": selection.provenance()},
            overwrite=True,
        )
        for name in (VALIDATION, PREDICTIONS):
            remove_predictions_of_others(self.folder / name, bundle)
        kept = load_fold_cases(selection, self.setup.dataset_root)
        write_held_out_files(bundle, kept, result.predictions, self.folder / VALIDATION, options=self.setup.options)
        selection.save(self.folder / SELECTION)
        self.reporter.step("Score the held-out cases of the selected model")
        scores = validate(
            self.folder,
            dataset_root=self.setup.dataset_root,
            options=self.setup.options,
            workers=self.setup.workers,
            metrics=self.setup.metrics,
            overwrite=True,
            progress=self.setup.progress,
        )
        return make_result(self.folder, selection, scores)
