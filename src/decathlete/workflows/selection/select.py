"""Select the best configuration or pair of configurations, decide its post-processing, and write one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from decathlete.core.files import check_output_folder, value_digest
from decathlete.core.locks import locked_folder
from decathlete.core.parallel import Workers
from decathlete.dataset.groups import groups_in_force
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import Case
from decathlete.errors import DatasetError, DecathleteError, OptionError, OutputError
from decathlete.evaluation.comparison import Difference
from decathlete.evaluation.scores import Scores
from decathlete.inference.options import PredictOptions
from decathlete.models.bundle import ModelBundle, check_place
from decathlete.models.combine import combine_bundles
from decathlete.workflows.progress import ProgressReporter
from decathlete.workflows.report import write_selection_page
from decathlete.workflows.selection.candidates import (
    Candidate,
    HeldOutResult,
    PredictionSetup,
    load_cases,
    make_candidates,
    score_configuration,
    score_pair,
)
from decathlete.workflows.selection.configurations import TrainedConfiguration, common_folds, find_configurations
from decathlete.workflows.selection.held_out_files import write_held_out_files
from decathlete.workflows.selection.postprocessing import decide_postprocessing
from decathlete.workflows.selection.record import SELECTION, CandidateRecord, PostprocessingDecision, Selection
from decathlete.workflows.selection.step_effects import HeldOutCase
from decathlete.workflows.selection.summary import explain_choice, summarize
from decathlete.workflows.selection.validation import MODEL, VALIDATION, load_fold_cases
from decathlete.workflows.validate import validate

SELECTED = "selected"
"""Name of the default output folder, beside the configurations."""
CANDIDATES = "candidates"
DEFAULT_MAX_MEMBERS = 10
"""A pair of configurations with five folds each."""


@dataclass(frozen=True, kw_only=True)
class SelectResult:
    """The result of a selection.

    Attributes:
        folder: contains ``model``, ``selection.json``, ``selection.html``, ``scores.json`` and ``validation``.
        model: the model, for ``predict``, ``validate`` and ``export``.
        scores: scores of the held-out cases with post-processing, on their original grids.
        selection: comparison and decisions.
        report: ``selection.html``.
    """

    folder: Path
    model: Path
    scores: Scores
    selection: Selection
    report: Path

    def summary(self) -> str:
        """Return the comparison as a table, and the decisions in words."""
        return summarize(self.selection)


def select(
    results: Path | str | Sequence[Path | str],
    *,
    output: Path | str | None = None,
    dataset_root: Path | None = None,
    options: PredictOptions = PredictOptions(),
    max_members: int = DEFAULT_MAX_MEMBERS,
    group_by: str | None = None,
    workers: Workers = 2,
    overwrite: bool = False,
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
            ``None``: by the manifest or the names. Intervals count patients, not cases.
        workers: number of cases that are scored in parallel, or an executor (:func:`decathlete.connect_cluster`).
        overwrite: replace another selection in ``output``, and scores of the runs that were made with other options.
        reporter: receives the progress.

    Raises:
        ModelError: there are no finished folds, or the configurations were trained on different data or folds.
        OptionError: no candidate has so few networks.
        DatasetError: the raw dataset is missing, or no held-out case has any foreground.
        OutputError: ``output`` contains another selection, or cannot be written.
    """
    folders = [Path(results)] if isinstance(results, (str, Path)) else [Path(folder) for folder in results]
    configurations = find_configurations(folders)
    folds = common_folds(configurations)
    candidates = make_candidates(configurations, folds, max_members=max_members)
    if not any(candidate.folds for candidate in candidates):
        raise OptionError(
            f"no configuration has a model of at most {max_members} networks", remedy="use a greater --max-members"
        )
    folder = check_output_folder(output or configurations[0].folder.parent / SELECTED)
    key = _key(configurations, folds, options, max_members, group_by)
    with locked_folder(folder):
        existing = _existing(folder, key, overwrite=overwrite)
        if existing is not None:
            return existing
        check_place(folder / MODEL, overwrite=True)
        setup = PredictionSetup(
            options=options,
            dataset_root=dataset_root,
            workers=workers,
            overwrite_runs=overwrite,
            progress=reporter.cases("predict"),
        )
        return _Work(folder, configurations, folds, candidates, setup, reporter).run(key, max_members, group_by)


def _key(
    configurations: Sequence[TrainedConfiguration],
    folds: Sequence[int],
    options: PredictOptions,
    max_members: int,
    group_by: str | None,
) -> str:
    """Return a digest of everything that a selection depends on."""
    models = {c.name: [c.folds[fold].digest for fold in folds] for c in configurations}
    return value_digest([models, list(folds), options.model_dump(mode="json"), max_members, group_by])


def _existing(folder: Path, key: str, *, overwrite: bool) -> SelectResult | None:
    """Return the finished selection of the same models and options in ``folder``.

    Raises:
        OutputError: it contains another selection, and ``overwrite`` is not set.
    """
    if not (folder / SELECTION).exists():
        return None
    difference = "a selection of other models or options"
    try:
        selection = Selection.load(folder / SELECTION)
    except DecathleteError as problem:
        difference = f"a damaged selection ({problem.problem})"
    else:
        if selection.key == key:
            return _finished(folder, selection)
    if overwrite:
        return None
    raise OutputError(
        f"contains {difference}",
        where=folder,
        remedy="use --overwrite to replace it, or choose another --output",
        code="E-OUTPUT-EXISTS",
    )


def _finished(folder: Path, selection: Selection) -> SelectResult | None:
    """Return a selection whose files are all there; ``None``: it was stopped before its end, or a file is damaged."""
    try:
        ModelBundle.load(folder / MODEL)
        return _result(folder, selection, Scores.load(folder / "scores.json"))
    except DecathleteError:
        return None


def _result(folder: Path, selection: Selection, scores: Scores) -> SelectResult:
    page = write_selection_page(folder)
    return SelectResult(folder=folder, model=folder / MODEL, scores=scores, selection=selection, report=page)


class _Work:
    """The steps of one selection."""

    def __init__(
        self,
        folder: Path,
        configurations: Sequence[TrainedConfiguration],
        folds: Sequence[int],
        candidates: Sequence[Candidate],
        setup: PredictionSetup,
        reporter: ProgressReporter,
    ) -> None:
        self.folder = folder
        self.configurations = configurations
        self.folds = folds
        self.candidates = candidates
        self.setup = setup
        self.reporter = reporter

    def run(self, key: str, max_members: int, group_by: str | None) -> SelectResult:
        """Score, choose, decide on post-processing, and write everything."""
        first = self.configurations[0].folds[self.folds[0]].record
        root = self.setup.dataset_root or Path(first.dataset_root or "")
        cases = load_cases(self.configurations[0], self.folds, self.setup.dataset_root)
        spec = read_dataset(root, group_by=group_by, spacing=first.spacing, annotated=first.annotated or None)
        patients = groups_in_force(spec, len(self.folds))
        results = self._score(cases)
        best = self._best(results)
        result = results[best.name]
        self.reporter.step("Decide on post-processing")
        decision = self._postprocessing(result, cases, patients)
        selection = Selection(
            key=key,
            dataset=first.dataset,
            dataset_root=str(root.resolve()),
            spacing=first.spacing,
            annotated=first.annotated,
            folds=tuple(self.folds),
            held_out={fold: tuple(case.id for case in held_out) for fold, held_out in cases.items()},
            max_members=max_members,
            selected=best.name,
            reason="",
            candidates=self._records(results, best, patients, max_members),
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

    def _best(self, results: Mapping[str, HeldOutResult]) -> Candidate:
        """Return the candidate with the highest mean Dice; of equal ones, that with the fewest networks."""
        scored = [
            (dice, -candidate.n_networks, candidate)
            for candidate in self.candidates
            if candidate.folds and (dice := results[candidate.name].scores.headline.dice) is not None
        ]
        if not scored:
            raise DatasetError(
                "no held-out case has any foreground: there is nothing to compare",
                where=self.folder,
                remedy="use cases whose label maps have a foreground",
                code="E-DATASET-LABELS",
            )
        return max(scored, key=lambda entry: entry[:2])[2]

    def _postprocessing(
        self, result: HeldOutResult, cases: Mapping[int, Sequence[Case]], patients: Mapping[str, str]
    ) -> PostprocessingDecision:
        held_out = {
            case.id: HeldOutCase(
                prediction=result.predictions[case.id],
                truth=case.label,
                spacing=case.spacing,
                structures=case.structures,
                unannotated=case.unannotated,
            )
            for of_fold in cases.values()
            for case in of_fold
            if case.label is not None
        }
        volumes: dict[str, float] = {}
        for scores in (structure for case in result.scores.cases for structure in case.classes):
            if scores.truth_ml > 0:
                volumes[scores.name] = min(scores.truth_ml, volumes.get(scores.name, scores.truth_ml))
        labels = self.configurations[0].labels
        return decide_postprocessing(
            held_out, labels, smallest_truth_ml=volumes, patients=patients, workers=self.setup.workers
        )

    def _records(
        self, results: Mapping[str, HeldOutResult], best: Candidate, patients: Mapping[str, str], max_members: int
    ) -> tuple[CandidateRecord, ...]:
        """Return the records of all candidates, the best first."""
        records = [self._record(candidate, results, best, patients, max_members) for candidate in self.candidates]
        return tuple(sorted(records, key=lambda r: (r.name != best.name, -(r.dice or -1.0), r.networks)))

    def _record(
        self,
        candidate: Candidate,
        results: Mapping[str, HeldOutResult],
        best: Candidate,
        patients: Mapping[str, str],
        max_members: int,
    ) -> CandidateRecord:
        result = results.get(candidate.name)
        alone = [results[configuration.name].median_seconds for configuration in candidate.configurations]
        return CandidateRecord(
            name=candidate.name,
            configurations=tuple(configuration.name for configuration in candidate.configurations),
            folds=candidate.folds,
            networks=candidate.n_networks,
            seconds_per_case=sum(alone) * len(candidate.folds) if candidate.folds else None,
            dice=result.scores.headline.dice if result else None,
            classes={c.name: c.mean("dice") for c in result.scores.classes} if result else {},
            behind=_difference(results[best.name], result, patients) if result and candidate is not best else None,
            scores=f"{CANDIDATES}/{candidate.name}/scores.json" if result else None,
            excluded=None if candidate.folds else f"needs more than {max_members} networks (--max-members)",
        )

    def _write(self, best: Candidate, result: HeldOutResult, selection: Selection) -> SelectResult:
        """Write the model, its held-out predictions and their scores, and the page."""
        bundle = combine_bundles(
            [run.folder for run in best.runs],
            self.folder / MODEL,
            postprocessing=selection.postprocessing.steps,
            provenance={"selection": _provenance(selection)},
            overwrite=True,
        )
        kept = load_fold_cases(selection, self.setup.dataset_root)
        write_held_out_files(bundle, kept, result.predictions, self.folder / VALIDATION, options=self.setup.options)
        selection.save(self.folder / SELECTION)
        self.reporter.step("Score the held-out cases of the selected model")
        scores = validate(
            self.folder,
            dataset_root=self.setup.dataset_root,
            options=self.setup.options,
            workers=self.setup.workers,
            overwrite=True,
            progress=self.setup.progress,
        )
        return _result(self.folder, selection, scores)


def _difference(best: HeldOutResult, other: HeldOutResult, patients: Mapping[str, str]) -> Difference | None:
    """Compare another candidate with the best one."""
    before, after = ({case.case_id: case.dice for case in result.scores.cases} for result in (best, other))
    return Difference.of(before, after, patients=patients)


def _provenance(selection: Selection) -> dict[str, JsonValue]:
    """Return what the model's record keeps of the selection."""
    total = selection.postprocessing.total
    used = [decision for decision in selection.postprocessing.tried if decision.used]
    return {
        "selected": selection.selected,
        "held_out_dice": selection.selected_candidate.dice,
        "held_out_dice_with_postprocessing": None if total is None else total.after,
        "postprocessing": [
            {"step": decision.step.model_dump(mode="json"), "gain": decision.gain.model_dump(mode="json")}
            for decision in used
            if decision.gain is not None
        ],
    }
