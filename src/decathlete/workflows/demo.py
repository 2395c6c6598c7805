"""The demo: run everything on a synthetic brain cohort, and compare with thresholding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.extras import import_optional
from decathlete.core.locks import locked_folder
from decathlete.core.output_paths import check_output_folder
from decathlete.dataset.manifest import read_dataset
from decathlete.io.images import read_image, read_label
from decathlete.synthetic.brain_cohort import CohortOptions, make_brain_cohort
from decathlete.training.config import TrainConfig
from decathlete.workflows.progress import ProgressReporter
from decathlete.workflows.run import RunResult, run
from decathlete.workflows.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """The result of the run, and the mean Dice of multi-level Otsu thresholding on the same held-out cases."""

    run: RunResult
    thresholding_dice: float


def demo(
    folder: Path,
    *,
    max_time_s: float = 270.0,
    cohort: CohortOptions = CohortOptions(),
    workers: int = 2,
    overwrite: bool = False,
    reporter: ProgressReporter = ProgressReporter(),
) -> DemoResult:
    """Generate the cohort, run everything on it in 3D, and compare with thresholding. Nothing is downloaded.

    Args:
        folder: parent of the folders ``data``, ``prepared`` and ``results``.
        max_time_s: training time, seconds.

    Raises:
        OutputError: ``folder`` cannot be written, or another process works in it.
    """
    _import_multi_otsu()  # a missing package must be reported before minutes of work
    check_output_folder(folder)
    with locked_folder(folder):
        workspace = Workspace(data=folder / "data", prepared=folder / "prepared", results=folder / "results")
        reporter.step("Make a brain cohort from the MNI152 template")
        dataset = make_brain_cohort(workspace.data / "BrainDemo", cohort, progress=reporter.cases("make"))
        result = run(
            dataset,
            dims=3,
            workspace=workspace,
            config=TrainConfig(max_time_s=max_time_s),
            workers=workers,
            overwrite=overwrite,
            reporter=reporter,
        )
        held_out = [case.case_id for case in result.scores.cases] if result.scores else []
        return DemoResult(run=result, thresholding_dice=thresholding_dice(dataset, held_out))


def thresholding_dice(dataset: Path, case_ids: list[str]) -> float:
    """Return the mean Dice of multi-level Otsu thresholding (Otsu 1979) with the best assignment of levels to classes.

    There are as many levels as classes. For each case, the assignment with the highest Dice against the reference is
    used, so that the comparison favours thresholding.
    """
    threshold_multiotsu = _import_multi_otsu()
    spec = read_dataset(dataset)
    cases = {c.id: c for c in spec.cases}
    scores = []
    for case_id in case_ids:
        case = cases[case_id]
        if case.label is None:
            continue
        image_ZYX = read_image(case.images[0]).array_CZYX[0]
        truth_ZYX = spec.labels.to_indices(read_label(case.label, structures=case.structures).array_ZYX)
        levels_ZYX = np.digitize(image_ZYX, threshold_multiotsu(image_ZYX, classes=spec.labels.n_classes))
        scores.append(_best_dice(levels_ZYX, truth_ZYX, spec.labels.n_classes))
    return float(np.mean(scores))


def _import_multi_otsu() -> Callable[..., NDArray[Any]]:
    filters = import_optional("skimage.filters", title="scikit-image", extra="demo")
    function: Callable[..., NDArray[Any]] = filters.threshold_multiotsu
    return function


def _best_dice(levels_ZYX: NDArray[np.intp], truth_ZYX: NDArray[np.uint8], n_classes: int) -> float:
    """Return the greatest mean foreground Dice over all assignments of levels to classes."""
    joint = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(joint, (levels_ZYX.ravel(), truth_ZYX.ravel()), 1)
    dice = 2 * joint / (joint.sum(axis=1, keepdims=True) + joint.sum(axis=0, keepdims=True))
    return max(
        float(np.mean([dice[level, k] for k, level in enumerate(order) if k > 0]))
        for order in permutations(range(n_classes))
    )
