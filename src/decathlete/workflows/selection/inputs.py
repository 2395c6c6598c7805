"""What a selection depends on: the models, the held-out cases and their patients, and the options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decathlete.core.files import value_digest
from decathlete.dataset.groups import groups_in_force, with_groups
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import Case
from decathlete.dataset.splits import Splits
from decathlete.errors import DecathleteError
from decathlete.io.format_settings import format_settings
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.scores_reuse import digest_of_images, digest_of_truths
from decathlete.workflows.selection.candidates import load_cases
from decathlete.workflows.selection.configurations import TrainedConfiguration


@dataclass(frozen=True, kw_only=True)
class SelectionInputs:
    """Configurations and the held-out cases by which they are compared.

    Attributes:
        folds: folds that are compared.
        dataset_root: folder of the raw dataset, if it has moved since training.
        cases: held-out cases of each fold.
        patients: case id -> patient, as the split knew them; intervals count patients.
    """

    configurations: Sequence[TrainedConfiguration]
    folds: Sequence[int]
    dataset_root: Path | None
    cases: Mapping[int, Sequence[Case]]
    patients: Mapping[str, str]

    @property
    def record(self) -> RunRecord:
        """The record of the first run; all runs were trained on the same data."""
        return self.configurations[0].folds[self.folds[0]].record

    @property
    def root(self) -> Path:
        """Folder of the raw dataset."""
        return self.dataset_root or Path(self.record.dataset_root or "")

    def key(self, *options: Any) -> str:
        """Return a digest of everything that a selection depends on, so that equal digests mean the same result.

        Raises:
            DatasetError: an image or a label map cannot be read.
        """
        cases = [case for held_out in self.cases.values() for case in held_out]
        labels = self.configurations[0].labels
        return value_digest(
            [
                {c.name: [c.folds[fold].digest for fold in self.folds] for c in self.configurations},
                list(self.folds),
                digest_of_truths(cases, labels),
                digest_of_images(cases),
                [self.patients[case.id] for case in cases],
                list(options),
            ]
        )


def load_inputs(
    configurations: Sequence[TrainedConfiguration],
    folds: Sequence[int],
    *,
    dataset_root: Path | None,
    group_by: str | None,
) -> SelectionInputs:
    """Load the held-out cases of the configurations.

    Args:
        group_by: regular expression that finds the patient in a case's name; ``None``: that of the training, or else by
            the manifest or the names.

    Raises:
        DatasetError: the raw dataset is missing or lacks cases.
    """
    cases = load_cases(configurations[0], folds, dataset_root)
    record = configurations[0].folds[folds[0]].record
    spec = read_dataset(
        dataset_root or Path(record.dataset_root or ""),
        group_by=group_by,
        spacing=record.spacing,
        formats=format_settings(record.image_formats),
        annotated=record.annotated,
    )
    if group_by is None and record.groups:
        spec = with_groups(spec, record.groups)
    return SelectionInputs(
        configurations=configurations,
        folds=folds,
        dataset_root=dataset_root,
        cases=cases,
        patients=groups_in_force(spec, _n_folds(configurations)),
    )


def _n_folds(configurations: Sequence[TrainedConfiguration]) -> int:
    """Return the number of folds of the split, also if some were not trained: patients are recognised by it."""
    for configuration in configurations:
        prepared = Path(next(iter(configuration.folds.values())).record.prepared)
        with suppress(DecathleteError):  # the prepared data were removed
            return len(Splits.load(prepared / "splits.json").folds)
    return 1 + max(fold for configuration in configurations for fold in configuration.folds)
