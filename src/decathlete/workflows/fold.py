"""The steps of one fold: prepare the dataset, train, score the held-out cases, report, predict test images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from decathlete.core.choices import Configuration
from decathlete.core.geometry import Triple
from decathlete.core.locks import locked_folder, locked_output, reading
from decathlete.core.output_paths import check_output_folder, check_outside
from decathlete.core.parallel import Workers
from decathlete.dataset.manifest import read_dataset
from decathlete.errors import CasesFailedError, OptionError, OutputError
from decathlete.evaluation.metrics import MetricChoice, make_metrics
from decathlete.evaluation.scores import Scores
from decathlete.inference.options import PredictOptions
from decathlete.models.bundle import ModelBundle
from decathlete.planning.network_spec import Dims
from decathlete.planning.options import PlanOptions
from decathlete.planning.plan import Plan
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.config import TrainConfig
from decathlete.training.distributed.devices import launcher
from decathlete.training.loop.batches import check_loader
from decathlete.training.reporting.curves import check_loggers
from decathlete.training.reporting.records import RunRecord
from decathlete.training.run_folder import RUN, check_claim
from decathlete.workflows.cascade import require_begun_first_stage
from decathlete.workflows.manifest_check import check_manifest, check_recorded_folds
from decathlete.workflows.predict_tests import check_predictions, predict_tests
from decathlete.workflows.preparation_plan import check_share
from decathlete.workflows.preprocess import preprocess
from decathlete.workflows.progress import ProgressReporter
from decathlete.workflows.raw_dataset import read_task
from decathlete.workflows.report import report
from decathlete.workflows.train import check_batch_size, train
from decathlete.workflows.validate import validate
from decathlete.workflows.workspace import FoldName, Workspace, folder_name


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """The results of one fold.

    Attributes:
        folder: folder of the run; its subfolder ``model`` is the trained model.
        scores: scores of the held-out cases; ``None`` for ``"all"``, and for a given fold that holds out no case.
        report: path of the HTML report.
    """

    folder: Path
    scores: Scores | None
    report: Path


class PipelineOptions(TypedDict, total=False):
    """The options of ``decathlete.run`` and ``decathlete.cross_validate``; defaults: see :class:`FoldPipeline`."""

    dims: Dims
    configuration: Configuration | None
    workspace: Workspace
    plan_options: PlanOptions
    spacing: Triple | None
    image_formats: Mapping[str, Mapping[str, Any]] | None
    config: TrainConfig
    adapt: bool
    predict_options: PredictOptions
    metrics: Sequence[MetricChoice] | None
    workers: Workers
    fold_resources: Mapping[str, float] | None
    overwrite: bool
    reporter: ProgressReporter


@dataclass(frozen=True, kw_only=True)
class FoldPipeline:
    """The steps of one or more folds, with their options.

    Attributes:
        task: a folder with ``dataset.json``, or its name or number under ``workspace.data``.
        dims: dimensions of the model: 2 (slices) or 3.
        configuration: name of the configuration, instead of ``dims``: 2d, 3d, 3d_lowres or 3d_cascade.
        workspace: root folders of data, prepared data and results.
        plan_options: options of the plan.
        spacing: z, y, x in mm, for files that do not contain their spacing.
        image_formats: settings of image formats that change how files are read, by the name of the format.
        config: configuration of each fold's training; its ``max_time_s`` applies to *each* fold.
        adapt: narrow the plan's network, batch and patch for a CPU or a short training time.
        predict_options: options of prediction.
        metrics: metrics of the held-out cases, see :func:`decathlete.validate`.
        workers: number of cases that are processed in parallel, or an executor (:func:`decathlete.connect_cluster`),
            which also runs folds at the same time.
        fold_resources: with an executor, what a worker must offer for one fold, e.g. ``{"MEMORY": 64e9}``.
        overwrite: replace results of other inputs or settings.
        reporter: receives the progress.
    """

    task: str | Path
    dims: Dims = 3
    configuration: Configuration | None = None
    workspace: Workspace = Workspace()
    plan_options: PlanOptions = PlanOptions()
    spacing: Triple | None = None
    image_formats: Mapping[str, Mapping[str, Any]] | None = None
    config: TrainConfig = TrainConfig()
    adapt: bool = True
    predict_options: PredictOptions = PredictOptions()
    metrics: Sequence[MetricChoice] | None = None
    workers: Workers = 2
    fold_resources: Mapping[str, float] | None = None
    overwrite: bool = False
    reporter: ProgressReporter = ProgressReporter()

    @property
    def which(self) -> Configuration:
        """Name of the configuration."""
        return self.configuration or folder_name(self.dims)

    @property
    def planned_training(self) -> TrainConfig | None:
        """Settings of the training that the resolution is planned for; ``None``: full resolution."""
        return self.config if self.adapt else None

    @property
    def prepared(self) -> Path:
        """Folder of the prepared data."""
        return self.workspace.prepared_folder(self.task, self.which)

    @property
    def results(self) -> Path:
        """Folder with the runs of the configuration."""
        return self.workspace.results_folder(self.task, self.which)

    @property
    def may_reuse(self) -> bool:
        """Whether prepared data are used as they are, since no option requests others."""
        return self.plan_options == PlanOptions() and not self.overwrite

    def check(self, folds: Sequence[FoldName] = ()) -> None:
        """Check options and folders, as far as that is possible before any work.

        Args:
            folds: the folds that will be run, as far as they are known.

        Raises:
            OptionError: several nodes, several processes started by a launcher, two batch sizes, a share of no coarse
                start, a logger or loader that is not installed, or an unknown metric.
            ModelError: the model to start from does not exist, or is damaged.
            OutputError: a folder cannot be written, lies in a raw dataset, or contains other results.
        """
        launched = launcher()
        if self.config.nodes > 1 or (launched is not None and launched.world_size() > 1):
            started = f", but torchrun or srun started {launched.world_size()} processes" if launched else ""
            raise OptionError(
                f"run is a single process that starts the training processes of its machine{started}",
                remedy="start it once, without torchrun (and with one SLURM task); or use `decathlete preprocess`, "
                "then `train` with torchrun or srun, then `validate`",
            )
        make_metrics(self.metrics)
        check_loggers(self.config)
        check_batch_size(self.config, self.plan_options.overrides)
        check_share(self.plan_options, timed=self.adapt and self.config.max_time_s is not None)
        check_loader(self.config)
        begun = [fold for fold in folds if (self.run_folder(fold) / "run.json").is_file()]
        if self.config.pretrained is not None and (self.overwrite or len(begun) < max(len(folds), 1)):
            ModelBundle.load(Path(self.config.pretrained))
        dataset = self.workspace.dataset(self.task)
        check_outside(self.workspace.prepared, dataset)
        check_outside(self.workspace.results, dataset)
        check_output_folder(self.prepared)
        check_output_folder(self.results)
        for fold in folds:
            folder = check_output_folder(self.run_folder(fold))
            check_claim(folder, self.config, overwrite=self.overwrite)

    def check_manifest(self, folds: Sequence[FoldName] = ()) -> None:
        """Check options against the manifest of a dataset, before any work.

        Of a dataset that is prepared already only the folds are checked: the prepared data have labels and a network of
        their own, which are checked before the training.

        Args:
            folds: the folds that the user named.

        Raises:
            DecathleteError: as of :func:`~decathlete.workflows.manifest_check.check_manifest`.
        """
        splits = self.prepared / "splits.json"
        if not self.overwrite and splits.is_file():
            check_recorded_folds(splits, self.plan_options.split, folds)
            return
        spec = read_task(
            self.task,
            workspace=self.workspace,
            options=self.plan_options,
            spacing=self.spacing,
            image_formats=self.image_formats,
        )
        check_manifest(spec, self.which, options=self.plan_options, config=self.config, folds=folds)

    def require_first_stage(self) -> None:
        """Check that a cascade has a first stage, before its dataset is checked and prepared.

        Raises:
            ModelError: it was not trained.
        """
        if self.which == "3d_cascade":
            require_begun_first_stage(self.workspace, self.task)

    def prepare(self, check_plan: Callable[[Plan], None] = lambda _: None) -> PreparedStore:
        """Check, plan and prepare the dataset; finished results are kept.

        Args:
            check_plan: called with the plan before anything is prepared; an error stops the preparation.

        Raises:
            DecathleteError: the dataset has errors, or the folder contains other data.
        """
        self.reporter.step("Check, plan and prepare the dataset")

        def on_plan(plan: Plan) -> None:
            check_plan(plan)
            self.reporter.plan(plan)

        return preprocess(
            self.task,
            configuration=self.which,
            workspace=self.workspace,
            options=self.plan_options,
            spacing=self.spacing,
            image_formats=self.image_formats,
            training=self.planned_training,
            workers=self.workers,
            fold_resources=self.fold_resources,
            overwrite=self.overwrite,
            reuse=self.may_reuse,
            on_plan=on_plan,
            checking=self.reporter.cases("check"),
            progress=self.reporter.cases("prepare"),
        )

    @contextmanager
    def locked_store(self, check_plan: Callable[[Plan], None] = lambda _: None) -> Iterator[PreparedStore]:
        """Prepare the dataset, and keep other processes from replacing the prepared data.

        Processes that need the same data wait for the one that prepares them, then read them side by side.

        Args:
            check_plan: see :meth:`prepare`.

        Raises:
            DecathleteError: as :meth:`prepare`.
        """
        with ExitStack() as locks:
            with locked_output(self.prepared, wait_for="prepared"):
                store = self.prepare(check_plan)
                locks.enter_context(reading(self.prepared))
            yield store

    @contextmanager
    def locked_folds(self, folds: Sequence[FoldName]) -> Iterator[None]:
        """Lock the folders of folds. With an executor only check them: the processes that run the folds lock them.

        Raises:
            OutputError: another process works in one of them, or it cannot be written.
        """
        with ExitStack() as locks:
            for fold in folds:
                locks.enter_context(locked_folder(self.run_folder(fold)))
            if not isinstance(self.workers, int):
                locks.close()
            yield

    def run_folder(self, fold: FoldName) -> Path:
        """Return the folder of a fold's run."""
        return self.workspace.run_folder(self.task, self.which, fold)

    def run_fold(self, fold: FoldName, *, plan_time_s: float | None = None) -> FoldResult:
        """Train, score and report one fold of the prepared dataset; finished results are kept.

        Args:
            plan_time_s: see :func:`decathlete.workflows.train.train`.

        Raises:
            DecathleteError: a step failed; results of earlier steps are kept.
        """
        with self.locked_folds([fold]):
            return self._run_locked_fold(fold, plan_time_s)

    def _run_locked_fold(self, fold: FoldName, plan_time_s: float | None) -> FoldResult:
        self.reporter.step("Train on every case" if fold == "all" else f"Train fold {fold}")
        folder = train(
            self.task,
            configuration=self.which,
            fold=fold,
            workspace=self.workspace,
            config=self.config,
            adapt=self.adapt,
            plan_time_s=plan_time_s,
            resume=not self.overwrite,
            overwrite=self.overwrite,
            progress=self.reporter.training(),
        ).folder
        dataset_root = self.workspace.dataset(self.task)
        scores = None
        if RunRecord.load(folder / RUN, error=OutputError).val:
            self.reporter.step("Predict and score the held-out cases on their original grids")
            scores = validate(
                folder,
                dataset_root=dataset_root,
                options=self.predict_options,
                metrics=self.metrics,
                workers=self.workers,
                overwrite=self.overwrite,
                progress=self.reporter.cases("predict"),
            )
        self.reporter.step("Write the report")
        return FoldResult(folder=folder, scores=scores, report=report(folder, dataset_root=dataset_root))

    def check_predictions(self, output: Path) -> None:
        """Check that predictions of the test images in ``output`` may be replaced, before any training.

        Raises:
            OutputError: files in it were changed, or are no predictions, and ``overwrite`` is not set.
        """
        if not self.overwrite:
            check_predictions(read_dataset(self.workspace.dataset(self.task)).test_cases, output)

    def predict_tests(self, runs: Sequence[Path], output: Path) -> tuple[Path | None, CasesFailedError | None]:
        """Predict the dataset's test images, if it has any. Predictions by other models or settings are replaced.

        Call this last, so that an unreadable test image prevents neither scores nor report.

        Args:
            runs: folders of runs; the predictions of several models are averaged.

        Returns:
            ``output``, or ``None`` without test images; and the error that lists the images that failed, if any.
        """
        cases = read_dataset(self.workspace.dataset(self.task)).test_cases
        if not cases:
            return None, None
        by = f" with the {len(runs)} models together" if len(runs) > 1 else ""
        self.reporter.step(f"Predict {len(cases)} test images{by}")
        failed = predict_tests(
            cases,
            [run / "model" for run in runs],
            output,
            options=self.predict_options,
            workers=self.workers,
            spacing=self.spacing,
            image_formats=self.image_formats,
            progress=self.reporter.cases("predict"),
        )
        return output, failed
