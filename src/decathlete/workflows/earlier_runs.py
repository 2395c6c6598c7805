"""Check that the runs of earlier commands can be kept or resumed, before several trainings begin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from decathlete.errors import OutputError
from decathlete.training.config import TrainConfig
from decathlete.training.run_folder import record_in
from decathlete.workflows.checked_dataset import CheckedDataset
from decathlete.workflows.training_jobs import Job, describe_jobs


def check_runs(
    folders: Mapping[Job, Path], configs: Mapping[Job, TrainConfig], dataset: CheckedDataset, *, where: Path
) -> None:
    """Check that existing runs have the settings, data and folds of the trainings.

    Args:
        folders: folder of each training.
        where: folder of all results, for the error.

    Raises:
        OutputError: some were made with others; the error lists all of them.
    """
    different: dict[str, list[Job]] = {}
    for job, folder in folders.items():
        if found := _differences(job, folder, configs[job], dataset):
            different.setdefault("; ".join(found), []).append(job)
    if different:
        runs = ". ".join(f"{describe_jobs(jobs)}: {differences}" for differences, jobs in different.items())
        raise OutputError(
            f"contains runs that were made with different settings or data: {runs}",
            where=where,
            remedy="use the same options to keep them, or --overwrite to train everything again; to compare what is "
            f"trained, run `decathlete select {where}`",
            code="E-OUTPUT-EXISTS",
        )


def _differences(job: Job, folder: Path, config: TrainConfig, dataset: CheckedDataset) -> list[str]:
    record = record_in(folder)
    if record is None:
        return []
    found = record.config.differences(config)
    if record.dataset_digest != dataset.fingerprint.dataset_digest:
        found.append("another dataset")
    if set(record.val) != set(dataset.splits.folds[job.fold].val):
        found.append("other held-out cases")
    return found
