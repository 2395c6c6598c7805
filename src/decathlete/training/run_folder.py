"""The folder of a run: its contents, and claiming it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from decathlete.core.files import remove, remove_partials
from decathlete.core.sizes import require_disk_space
from decathlete.errors import OptionError, OutputError, PlanError, StoreError
from decathlete.models.weights import NetworkTensors
from decathlete.planning.architectures import architecture_of
from decathlete.planning.plan import Plan
from decathlete.preprocessing.store import PREPARATION_FIELDS, PreparedStore
from decathlete.training.compatibility import check_batch_norm, check_loss, check_sampler, check_validation
from decathlete.training.config import TrainConfig
from decathlete.training.reporting.records import Fold, RunRecord
from decathlete.version import __version__

RUN = "run.json"
RUN_FILES = (
    RUN,
    "failure.json",
    "logs.json",
    "logs.csv",
    "loggers.json",
    "checkpoints",
    "tensorboard",
    "wandb",
    "mlflow",
    "model",
    "model_best",
)
# What later steps derive from the model: it would be mistaken for the new model's.
DERIVED_FILES = (
    "validation", "scores.json", "scores.csv", "scores_prepared.json", "scores_prepared.csv", "report.html",
    "predictions",
)  # fmt: skip


def now() -> str:
    """Return the time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_plan(plan: Plan, store: PreparedStore) -> None:
    """Check that ``plan`` can be trained on ``store``.

    Raises:
        PlanError: the store was prepared in another way.
    """
    differing = [name for name in PREPARATION_FIELDS if getattr(plan, name) != getattr(store.plan, name)]
    if differing:
        raise PlanError(
            f"the plan's {', '.join(differing)} differ(s) from what the data were prepared with",
            where=store.folder,
            remedy="preprocess with this plan, or change only the network, patch_size and batch_size",
        )
    if plan.coarse_start is None:
        return
    prepared = store.plan.coarse_start
    if prepared is None or prepared.target_spacing != plan.coarse_start.target_spacing:
        raise PlanError(
            f"the training is to begin on a grid of {plan.coarse_start.target_spacing}, and the data were "
            f"{'not prepared on a coarse grid' if prepared is None else f'prepared on {prepared.target_spacing}'}",
            where=store.folder,
            remedy="use `decathlete preprocess` with this coarse_start, or leave it out",
        )
    store.open_coarse_start()


def split(store: PreparedStore, fold: Fold) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return training and held-out cases; ``"all"`` trains on every case and holds none out.

    Raises:
        OptionError: there is no such fold. StoreError: it names cases that are not prepared, or has none to train on.
    """
    if fold == "all":
        return tuple(store.case_ids), ()
    folds = store.splits.folds
    if not 0 <= fold < len(folds):
        raise OptionError(
            f"fold {fold} does not exist: this dataset is split into {len(folds)}",
            where=store.folder,
            remedy=f"use a fold from 0 to {len(folds) - 1}, or all",
            code="E-OPTION-FOLD",
        )
    chosen = folds[fold]
    missing = sorted({*chosen.train, *chosen.val} - set(store.case_ids))
    if missing or not chosen.train:
        problem = f"cases of fold {fold} are not prepared: {', '.join(missing)}" if missing else "nothing to train on"
        raise StoreError(problem, where=store.folder, remedy="run `decathlete preprocess` again")
    return chosen.train, chosen.val


def check_config(config: TrainConfig, plan: Plan, *, has_validation: bool, where: Path) -> None:
    """Check that a plan can be trained with these settings.

    Args:
        has_validation: whether cases are held out.
        where: folder, for the error.

    Raises:
        OptionError: settings that the plan, the fold or the number of devices cannot be trained with.
    """
    check_validation(config, has_validation=has_validation, where=where)
    check_batch_norm(config, has_batch_norm=architecture_of(plan.network).has_batch_norm)
    check_loss(config, plan.labels, where=where)
    check_sampler(config, dims=plan.dims, batch_size=plan.batch_size)


def make_record(
    store: PreparedStore, plan: Plan, fold: Fold, config: TrainConfig, dataset_root: Path | None
) -> RunRecord:
    """Make the record of this run's inputs.

    Raises:
        OptionError: as of :func:`check_config`.
        StoreError: the fold names cases that are not prepared, or has none to train on.
    """
    train, val = split(store, fold)
    check_config(config, plan, has_validation=bool(val), where=store.folder)
    return RunRecord(
        version=__version__,
        dataset=plan.dataset,
        dataset_root=None if dataset_root is None else str(dataset_root),
        dataset_digest=store.fingerprint.dataset_digest,
        prepared=str(store.folder.resolve()),
        dims=plan.dims,
        fold=fold,
        train=train,
        val=val,
        config=config,
        plan_digest=plan.digest,
        started=now(),
        plan=plan,
        store_plan_digest=store.plan.digest,
        spacing=store.source.spacing,
        image_formats=store.source.image_formats,
        annotated=store.source.annotated,
        groups=store.source.groups,
    )


def claim(folder: Path, record: RunRecord, *, resume: bool, overwrite: bool) -> RunRecord:
    """Claim the locked ``folder`` for this run: write ``record``, or return the existing one if the run is resumed.

    Raises:
        OutputError: it holds another run or other files, or this run and neither ``resume`` nor ``overwrite`` is
            given, or it cannot be written.
    """
    remove_partials(folder)
    remove_partials(folder / "checkpoints")
    if overwrite and not resume:
        clear(folder)
    there = record_in(folder)
    if there is None:
        record.save(folder / RUN)
        return record
    if differences := there.differences(record):
        raise _other_run(folder, differences)
    if not resume:
        state = "this run, finished" if there.finished else "this run, not finished"
        raise OutputError(
            f"contains {state}",
            where=folder,
            remedy="use --resume to continue it, or --overwrite to replace it",
            code="E-OUTPUT-EXISTS",
        )
    return there


def _other_run(folder: Path, differences: list[str]) -> OutputError:
    return OutputError(
        f"contains a run that was made with different settings ({'; '.join(differences)})",
        where=folder,
        remedy="use the same options to resume it, --overwrite to replace it, or another results folder",
        code="E-OUTPUT-EXISTS",
    )


def check_claim(folder: Path, config: TrainConfig, *, overwrite: bool) -> None:
    """Check what is known before the dataset is prepared: that :func:`claim` will not reject the folder.

    Raises:
        OutputError: the folder contains another run or files of unknown origin, and ``overwrite`` is not given.
    """
    there = None if overwrite else record_in(folder)
    if there is not None and (differences := there.config.differences(config)):
        raise _other_run(folder, differences)


def require_space(folder: Path, plan: Plan, *, n_checkpoints: int) -> None:
    """Check that the disk has space for checkpoints of the network, before the training.

    Args:
        n_checkpoints: number of checkpoints that are added: two for a new run, since a checkpoint is written beside the
            one before; one for a resumed run.

    Raises:
        OutputError: the weights and averaged weights alone, float32, do not fit.
    """
    n_bytes = n_checkpoints * 2 * 4 * NetworkTensors.of(plan.network).n_parameters
    remedy = "free disk space, or use a results folder on another disk"
    require_disk_space(folder, n_bytes, needed_for="for the checkpoints", remedy=remedy)


def clear(folder: Path) -> None:
    """Remove what a training writes and what was made from its model, and nothing else."""
    for name in (*RUN_FILES, *DERIVED_FILES):
        remove(folder / name)


def record_in(folder: Path) -> RunRecord | None:
    """Return the record of the run in ``folder``, if there is one.

    Raises:
        OutputError: the record is damaged, or it is missing while other parts of a run are there.
    """
    if (folder / RUN).is_file():
        return RunRecord.load(folder / RUN, error=OutputError, remedy="use --overwrite to replace this run")
    existing = sorted(name for name in RUN_FILES if (folder / name).exists())
    if existing:
        raise OutputError(
            f"contains {', '.join(existing)} but no {RUN}: their origin is unknown",
            where=folder,
            remedy="use --overwrite to replace them, or another results folder",
            code="E-OUTPUT-EXISTS",
        )
    return None
