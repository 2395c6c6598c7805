"""Find the trained configurations of a dataset, and the folds that all of them have."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from decathlete.core.labels import LabelSet
from decathlete.dataset.given_splits import name_some
from decathlete.errors import ModelError
from decathlete.models.bundle import ModelBundle
from decathlete.models.record import PostprocessingStep
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.folds import format_folds

log = logging.getLogger(__name__)

_FOLD = re.compile(r"fold_(0|[1-9][0-9]*)")
"""Name of the folder of a fold's run."""


@dataclass(frozen=True, kw_only=True)
class TrainedFold:
    """A finished run.

    Attributes:
        digest: of its model.
        n_networks: networks of its model; a cascade has those of its first stage, too.
        postprocessing: steps that its plan has given to its model.
    """

    folder: Path
    record: RunRecord
    labels: LabelSet
    digest: str
    n_networks: int
    postprocessing: tuple[PostprocessingStep, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrainedConfiguration:
    """The finished folds of one configuration, by number.

    Attributes:
        name: name of its folder, such as ``3d``.
    """

    name: str
    folder: Path
    folds: Mapping[int, TrainedFold]

    @property
    def labels(self) -> LabelSet:
        """The classes or regions that are segmented."""
        return next(iter(self.folds.values())).labels

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return next(iter(self.folds.values())).record.dataset


def find_configurations(results: Sequence[Path]) -> list[TrainedConfiguration]:
    """Find every configuration with a finished fold.

    Args:
        results: folders of datasets (``results/DATASET``) or of configurations (``results/DATASET/3d``).

    Raises:
        ModelError: a folder has no finished fold, or a model is damaged.
    """
    folders = [folder for root in results for folder in _configuration_folders(root)]
    names = _unique_names(folders)
    found = [_read(name, folder) for name, folder in zip(names, folders, strict=True)]
    finished = [configuration for configuration in found if configuration.folds]
    if not finished:
        raise _nothing_there(results[0])
    return finished


def common_folds(configurations: Sequence[TrainedConfiguration]) -> tuple[int, ...]:
    """Return the folds that every configuration has finished, and log those that are left out.

    A fold that holds out cases of another one is left out, so that each case counts once: it may be of an older split.

    Raises:
        ModelError: there are none, or the configurations were trained on other data, labels or splits.
    """
    first = configurations[0]
    common = sorted(set.intersection(*(set(c.folds) for c in configurations)))
    if not common:
        has = "; ".join(f"{c.name}: {format_folds(sorted(c.folds))}" for c in configurations)
        raise ModelError(
            f"no fold is finished in every configuration ({has})",
            where=first.folder,
            remedy="train the same folds of each, or name only the configurations to compare",
            code="E-MODEL-AGREEMENT",
        )
    for configuration in configurations:
        _check_same_data(first, configuration, common)
        _check_same_postprocessing(configuration, common)
        if rest := sorted(set(configuration.folds) - set(common)):
            log.warning(
                "%s: folds %s are left out, since not every configuration has them",
                configuration.name,
                format_folds(rest),
            )
    return _distinct_folds(first, common)


def _distinct_folds(configuration: TrainedConfiguration, folds: Sequence[int]) -> tuple[int, ...]:
    """Return the folds without those that hold out cases which a fold before them holds out."""
    distinct: list[int] = []
    seen: set[str] = set()
    for fold in folds:
        val = set(configuration.folds[fold].record.val)
        if seen & val:
            log.warning("fold %d is left out: other folds hold out %s, too", fold, name_some(sorted(seen & val)))
        else:
            distinct.append(fold)
            seen |= val
    return tuple(distinct)


def _check_same_data(first: TrainedConfiguration, other: TrainedConfiguration, folds: Sequence[int]) -> None:
    for fold in folds:
        record, other_record = first.folds[fold].record, other.folds[fold].record
        differences = {
            "another dataset": record.dataset_digest != other_record.dataset_digest,
            "other held-out cases": set(record.val) != set(other_record.val),
            "other classes or regions": first.labels != other.folds[fold].labels,
        }
        if names := [words for words, differs in differences.items() if differs]:
            raise ModelError(
                f"fold {fold} has {' and '.join(names)} than {first.folds[fold].folder}",
                where=other.folds[fold].folder,
                remedy="compare configurations of one dataset with the same folds; train the others again with "
                "--overwrite",
                code="E-MODEL-AGREEMENT",
            )


def _check_same_postprocessing(configuration: TrainedConfiguration, folds: Sequence[int]) -> None:
    first, *others = (configuration.folds[fold] for fold in folds)
    for other in others:
        if other.postprocessing != first.postprocessing:
            raise ModelError(
                f"has another post-processing than {first.folder}",
                where=other.folder,
                remedy="train all folds of a configuration with the same --set keep_largest=true or false",
                code="E-MODEL-AGREEMENT",
            )


def _configuration_folders(root: Path) -> list[Path]:
    if _run_folders(root):
        return [root]
    below = sorted(folder for folder in root.iterdir() if folder.is_dir()) if root.is_dir() else []
    folders = [folder for folder in below if _run_folders(folder)]
    if not folders:
        raise _nothing_there(root)
    return folders


def _run_folders(folder: Path) -> list[Path]:
    """Return the folders of runs in a folder, except that of a model trained on every case."""
    return sorted(run.parent for run in folder.glob("fold_*/run.json") if run.parent.name != "fold_all")


def _nothing_there(root: Path) -> ModelError:
    return ModelError(
        "contains no finished fold",
        where=root,
        remedy="name the results of a dataset (results/DATASET), or of one of its configurations "
        "(results/DATASET/3d), after `decathlete run DATASET --folds 0-4`",
        code="E-MODEL-NOT-FOUND",
    )


def _unique_names(folders: Sequence[Path]) -> list[str]:
    names: list[str] = []
    for folder in folders:
        name, number = folder.resolve().name, 1
        while name in names:
            number += 1
            name = f"{folder.resolve().name}-{number}"
        names.append(name)
    return names


def _read(name: str, folder: Path) -> TrainedConfiguration:
    folds = {}
    for run in _run_folders(folder):
        named = _FOLD.fullmatch(run.name)
        if named is None:
            log.warning("%s is left out: the folder of a fold is called fold_0, fold_1, ...", run)
            continue
        number, record = int(named[1]), RunRecord.load(run / "run.json", error=ModelError)
        if record.fold != number:
            log.warning("%s is left out: it contains a run of fold %s", run, record.fold)
        elif record.finished is None:
            log.warning("%s is not finished and is left out", run)
        elif not record.val:
            log.warning("%s holds out no case and is left out", run)
        else:
            bundle = ModelBundle.load(run)
            folds[number] = TrainedFold(
                folder=run,
                record=record,
                labels=bundle.record.labels,
                digest=bundle.digest,
                n_networks=bundle.record.n_networks,
                postprocessing=bundle.record.postprocessing,
            )
    return TrainedConfiguration(name=name, folder=folder, folds=folds)
