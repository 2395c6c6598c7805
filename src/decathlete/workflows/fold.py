"""One fold of a prepared dataset: trained, scored on the cases it holds out, reported; and test images predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from decathlete.dataset.manifest import read_dataset
from decathlete.errors import CasesFailed, OptionError
from decathlete.evaluation.scores import Scores
from decathlete.inference.predict_files import predict_files
from decathlete.planning.network_spec import Dims
from decathlete.planning.options import PlanOptions
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.config import TrainConfig
from decathlete.training.distributed.devices import launcher
from decathlete.training.loop.batches import check_loader
from decathlete.training.reporting.curves import check_loggers
from decathlete.workflows.preprocess import preprocess_task
from decathlete.workflows.progress import ProgressReporter
from decathlete.workflows.report import make_report
from decathlete.workflows.train import check_batch_size, train_task
from decathlete.workflows.validate import PredictOptions, load_predictor, validate
from decathlete.workflows.workspace import FoldName, Workspace


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """What one fold leaves.

    Attributes:
        folder: of the run; ``model`` in it is the trained model.
        scores: of the held-out cases; ``None`` where none is held out (``"all"``).
    """

    folder: Path
    scores: Scores | None
    report: Path


class PipelineOptions(TypedDict, total=False):
    """The options of ``decathlete.run`` and ``decathlete.cross_validate``; defaults: see :class:`FoldPipeline`."""

    dims: Dims
    workspace: Workspace
    plan_options: PlanOptions
    config: TrainConfig
    fit: bool
    predict_options: PredictOptions
    workers: int
    overwrite: bool
    listener: ProgressReporter


@dataclass(frozen=True, kw_only=True)
class FoldPipeline:
    """How a dataset is prepared and each fold of it done.

    Attributes:
        task: a folder with ``dataset.json``, or its name or number under ``workspace.data``.
        dims: of the model: 2 (slices) or 3.
        config: of each fold's training; its ``max_time_s`` is the time of *each*.
        fit: let a CPU or a short budget narrow the plan's network, batch and patch.
        workers: cases worked on at once.
        overwrite: replace results of other inputs or settings.
        listener: hears how the work goes.
    """

    task: str | Path
    dims: Dims = 3
    workspace: Workspace = Workspace()
    plan_options: PlanOptions = PlanOptions()
    config: TrainConfig = TrainConfig()
    fit: bool = True
    predict_options: PredictOptions = PredictOptions()
    workers: int = 2
    overwrite: bool = False
    listener: ProgressReporter = ProgressReporter()

    def prepare(self) -> PreparedStore:
        """Check, plan and prepare the dataset; what is finished is kept.

        Raises:
            OptionError: several machines, one of several processes of a launcher, two batch sizes, or a logger or
                loader that is not installed.
            DecathleteError: the dataset has problems, or other data are in the way.
        """
        launched = launcher()
        if self.config.nodes > 1 or (launched is not None and launched.world_size() > 1):
            others = f", and torchrun or srun has started {launched.world_size()} of it" if launched else ""
            raise OptionError(
                f"run is one process, which starts those that train on its machine itself{others}",
                remedy="start it once, without torchrun (and with one SLURM task); or `decathlete preprocess`, then "
                "`train` under torchrun or srun, then `validate`",
            )
        check_loggers(self.config)
        check_batch_size(self.config, self.plan_options.overrides)
        check_loader(self.config)
        self.listener.step("Check, plan and prepare the dataset")
        return preprocess_task(
            self.task,
            dims=self.dims,
            workspace=self.workspace,
            options=self.plan_options,
            workers=self.workers,
            overwrite=self.overwrite,
            reuse=self.plan_options == PlanOptions(),
            on_plan=self.listener.plan,
            checking=self.listener.cases("check"),
            progress=self.listener.cases("prepare"),
        )

    def fold(self, fold: FoldName) -> FoldResult:
        """Train, score and report one fold of the prepared dataset; what is finished is kept.

        Raises:
            DecathleteError: whatever a step finds wrong; what was finished before it is kept.
        """
        self.listener.step("Train on every case" if fold == "all" else f"Train fold {fold}")
        folder = train_task(
            self.task,
            dims=self.dims,
            fold=fold,
            workspace=self.workspace,
            config=self.config,
            fit=self.fit,
            resume=not self.overwrite,
            overwrite=self.overwrite,
            progress=self.listener.training(),
        ).folder
        scores = None if fold == "all" else self._score(folder)
        self.listener.step("Write the report")
        return FoldResult(
            folder=folder, scores=scores, report=make_report(folder, dataset_root=self.workspace.dataset(self.task))
        )

    def _score(self, folder: Path) -> Scores:
        self.listener.step("Predict and score the held-out cases on their original grids")
        return validate(
            folder,
            dataset_root=self.workspace.dataset(self.task),
            options=self.predict_options,
            workers=self.workers,
            overwrite=self.overwrite,
            progress=self.listener.cases("predict"),
        )

    def predict_tests(self, runs: Sequence[Path], output: Path) -> tuple[Path | None, CasesFailed | None]:
        """Predict the dataset's test images, if it has any; ``output``, and which of them failed.

        To be done last: a test image that cannot be read costs neither scores nor report.

        Args:
            runs: folders; the models of several are averaged.
        """
        cases = read_dataset(self.workspace.dataset(self.task)).test_cases
        if not cases:
            return None, None
        by = f" with the {len(runs)} models together" if len(runs) > 1 else ""
        self.listener.step(f"Predict {len(cases)} test images{by}")
        try:
            predict_files(
                load_predictor([run / "model" for run in runs], self.predict_options),
                {c.id: c.images for c in cases},
                output,
                overwrite=self.overwrite,
                progress=self.listener.cases("predict"),
            )
        except CasesFailed as problem:
            return output, problem
        return output, None
