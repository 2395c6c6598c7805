"""Check the options of a training against the dataset's manifest, so that nothing is prepared in vain."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from decathlete.core.choices import Configuration
from decathlete.dataset.given_splits import find_given_splits
from decathlete.dataset.spec import DatasetSpec
from decathlete.dataset.split_options import SplitOptions
from decathlete.dataset.splits import Splits
from decathlete.errors import DecathleteError
from decathlete.io.images import read_grid
from decathlete.planning.architectures import architecture_name, find_architecture, network_options_set
from decathlete.planning.configurations import dims_of
from decathlete.planning.options import PlanOptions
from decathlete.planning.planner import slices_error
from decathlete.training.compatibility import check_batch_norm, check_loss, check_sampler, check_validation
from decathlete.training.config import TrainConfig
from decathlete.training.pretrained import check_pretrained
from decathlete.training.weight_matching import FOREGROUND
from decathlete.workflows.cascade import require_held_out
from decathlete.workflows.folds import FoldSelection
from decathlete.workflows.plan_options_check import check_plan_options
from decathlete.workflows.workspace import FoldName


def check_manifest(
    spec: DatasetSpec,
    configuration: Configuration,
    *,
    options: PlanOptions,
    config: TrainConfig,
    folds: Sequence[FoldName],
) -> None:
    """Check what the manifest alone tells about a training. Only the headers of some images are read.

    Args:
        folds: the folds that the user named.

    Raises:
        OptionError: regions, mirror pairs, architecture, loss, sampler or folds that do not fit the dataset; or stages
            that are not to be trained, and that do not fit the model to start from.
        ManifestError: the given folds are not valid.
        ModelError: the model to start from has no network of this kind; or a cascade, and the given folds do not hold
            out every case.
        PlanError: a 3D configuration for single slices.
    """
    labels = check_plan_options(spec, options)
    check_loss(config, labels, where=spec.root)
    check_sampler(config, dims=dims_of(configuration), batch_size=None)
    check_batch_norm(config)
    check_validation(config, has_validation="all" not in folds, where=spec.root)
    given = None if options.split.is_random_split else find_given_splits(spec, file=options.split.file)
    if numbers := [fold for fold in folds if fold != "all"]:
        FoldSelection.parse(numbers).resolve(options.n_folds if given is None else len(given.folds))
    if configuration == "3d_cascade" and given is not None:
        require_held_out(given, [case.id for case in spec.cases], where=spec.root)
    check_pretrained(
        config,
        configuration=configuration,
        dims=dims_of(configuration),
        architecture=architecture_name(options),
        inputs=(*spec.channels, *([FOREGROUND] if options.foreground_channel else [])),
        has_own_network=bool(network_options_set(options, find_architecture(options)))
        or any(text.startswith("network") for text in options.overrides),
    )
    if dims_of(configuration) == 3 and _has_slices_only(spec):
        raise slices_error(spec.name)


def check_recorded_folds(path: Path, options: SplitOptions, folds: Sequence[FoldName]) -> None:
    """Check the folds that the user named against those of prepared data.

    Args:
        path: ``splits.json`` of the prepared data.
        options: options of the split; a list of folds (``options.file``) is checked when the data are prepared.

    Raises:
        OptionError: there is no such fold.
    """
    numbers = [fold for fold in folds if fold != "all"]
    if not numbers or options.file is not None:
        return
    n_folds = options.n_folds
    if not options.is_random_split:
        try:
            n_folds = len(Splits.load(path).folds)
        except DecathleteError:
            return  # damaged: it is repaired or rejected when the prepared data are opened
    FoldSelection.parse(numbers).resolve(n_folds)


def _has_slices_only(spec: DatasetSpec) -> bool:
    """Return whether every training image is a single slice; unknown where a header cannot be read."""
    with suppress(DecathleteError, OSError):  # the check of the dataset names the files that cannot be read
        grids = (read_grid(case.images[0], spacing=case.spacing, formats=case.formats)[1] for case in spec.cases)
        return bool(spec.cases) and all(min(grid.shape_ZYX) <= 1 for grid in grids)
    return False
