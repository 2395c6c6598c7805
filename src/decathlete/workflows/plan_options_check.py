"""Check the options of a plan against the dataset's manifest, without any training's code."""

from __future__ import annotations

from decathlete.core.labels import LabelSet
from decathlete.dataset.given_splits import find_given_splits
from decathlete.dataset.spec import DatasetSpec
from decathlete.planning.architectures import find_architecture
from decathlete.planning.mirror_pairs import with_swapped_annotations
from decathlete.planning.options import PlanOptions
from decathlete.planning.planner import choose_labels


def check_plan_options(spec: DatasetSpec, options: PlanOptions) -> LabelSet:
    """Check options of the plan and the folds against the manifest; return the labels with the regions to learn.

    Raises:
        OptionError: regions, mirror pairs or an architecture that do not fit.
        ManifestError: the folds of ``--splits`` are not valid.
    """
    find_architecture(options)
    if options.splits is not None:
        find_given_splits(spec, file=options.splits)
    labels, pairs = choose_labels(spec, options)
    with_swapped_annotations(labels, pairs)  # there may be too many sets of annotated classes
    return labels
