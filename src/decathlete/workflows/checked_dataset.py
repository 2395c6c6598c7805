"""A dataset that was checked before several configurations are trained, with the folds of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from decathlete.core.choices import Configuration
from decathlete.core.locks import locked_folder
from decathlete.dataset.given_splits import count_cases
from decathlete.dataset.spec import DatasetSpec
from decathlete.dataset.splits import Splits
from decathlete.planning.configurations import ConfigurationOffer, offered_configurations
from decathlete.planning.fingerprint import Fingerprint
from decathlete.workflows.fold import FoldPipeline
from decathlete.workflows.prepared_configurations import CommonFolds, choose_common_folds
from decathlete.workflows.raw_dataset import load_or_make_fingerprint, read_task
from decathlete.workflows.training_jobs import FIRST_STAGE, leave_out


@dataclass(frozen=True, kw_only=True)
class CheckedDataset:
    """A dataset that was checked, and its folds.

    Attributes:
        offers: which configurations the images justify; empty: the user names them.
    """

    spec: DatasetSpec
    fingerprint: Fingerprint
    folds: CommonFolds
    offers: tuple[ConfigurationOffer, ...] = ()

    @property
    def splits(self) -> Splits:
        """The folds of every configuration."""
        return self.folds.splits

    @property
    def n_folds(self) -> int:
        """Number of folds."""
        return len(self.splits.folds)

    @property
    def case_ids(self) -> list[str]:
        """All cases."""
        return [case.id for case in self.spec.cases]

    def held_out_per_fold(self, folds: Sequence[int]) -> float:
        """Return the mean number of held-out cases of ``folds``."""
        return sum(len(self.splits.folds[fold].val) for fold in folds) / max(len(folds), 1)

    def offers_with_predictions(self) -> tuple[ConfigurationOffer, ...]:
        """Return the offers, without the cascade if its first stage could not predict every case unseen."""
        missing = self.splits.never_held_out(self.case_ids)
        if not missing:
            return self.offers
        reason = f"no fold holds out {count_cases(missing)}, so that a first stage has no prediction of them"
        return leave_out(self.offers, dict.fromkeys(FIRST_STAGE, reason))


def check_and_split(pipeline: FoldPipeline, named: Sequence[Configuration]) -> CheckedDataset:
    """Check the dataset, and return it with its folds.

    Args:
        named: configurations that the user named; empty: those that the images justify.

    Raises:
        DatasetError: the check found errors.
        OutputError: configurations were prepared with different folds.
    """
    options = pipeline.plan_options
    spec = read_task(
        pipeline.task,
        workspace=pipeline.workspace,
        options=options,
        spacing=pipeline.spacing,
        image_formats=pipeline.image_formats,
    )
    pipeline.reporter.step("Check the dataset")
    folder = pipeline.workspace.prepared_folder(pipeline.task, 3).parent
    with locked_folder(folder, wait_for="checked the dataset of"):
        fingerprint = load_or_make_fingerprint(
            spec, folder, options.orientation, workers=pipeline.workers, progress=pipeline.reporter.cases("check")
        )
    offers = () if named else offered_configurations(spec, fingerprint, options=options)
    names = named or [offer.name for offer in offers if offer.offered]
    folds = choose_common_folds(pipeline, names, spec, fingerprint.presence(spec.labels))
    return CheckedDataset(spec=spec, fingerprint=fingerprint, folds=folds, offers=offers)
