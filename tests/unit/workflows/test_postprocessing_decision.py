"""Decisions on post-processing: only what held-out cases say helps, for each structure by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decathlete.core.geometry import Geometry
from decathlete.core.labels import LabelSet
from decathlete.errors import CasesFailedError
from decathlete.evaluation.case import score_case
from decathlete.evaluation.metrics import make_metrics
from decathlete.inference.output.apply_postprocessing import build_steps, postprocess
from decathlete.io.images import read_label, write_label
from decathlete.workflows.selection.postprocessing import decide_postprocessing
from decathlete.workflows.selection.step_effects import HeldOutCase, candidate_steps, measure_steps

LABELS = LabelSet.from_names(["organ", "lesions"])
REGIONS = LabelSet.model_validate(
    {
        "classes": [{"name": "background", "value": 0}, {"name": "edema", "value": 1}, {"name": "core", "value": 2}],
        "regions": [{"name": "whole", "values": [1, 2]}, {"name": "core", "values": [2]}],
        "region_order": [1, 2],
    }
)
SPACING = (2.0, 1.0, 1.0)
N_CASES = 8


def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
    """One organ with two lesions of different sizes; the prediction has islands of the organ beside it."""
    truth = np.zeros((12, 24, 24), np.uint8)
    truth[3:9, 4:14, 4:14] = 1
    truth[4:6, 6:8, 6:8] = 2
    truth[5:8, 9:13, 9:13] = 2
    prediction = truth.copy()
    prediction[1:3, 17 : 19 + number % 2, 18:20] = 1
    prediction[8:10, 19:21, 2:5] = 1
    prediction[3:4, 4:14, 4 : 5 + number % 3] = 0
    return prediction, truth


def write_cases(folder: Path, n: int = N_CASES, drawn=draw) -> dict[str, HeldOutCase]:
    cases = {}
    for number in range(n):
        prediction, truth = drawn(number)
        paths = folder / f"p{number}.nii.gz", folder / f"t{number}.nii.gz"
        for path, label_ZYX in zip(paths, (prediction, truth), strict=True):
            write_label(path, label_ZYX, Geometry.plain(label_ZYX.shape, spacing_ZYX=SPACING))
        cases[f"case{number}"] = HeldOutCase(prediction=paths[0], truth=paths[1])
    return cases


def decide(cases, labels=LABELS, **options):
    given = {"smallest_truth_ml": {"organ": 0.5, "lesions": 0.05}, "patients": {}, "workers": 1}
    return decide_postprocessing(cases, labels, **(given | options))


def test_a_step_that_helps_one_class_and_hurts_another_is_used_for_the_one(tmp_path):
    found = decide(write_cases(tmp_path))
    (step,) = found.steps
    assert step.name in ("keep_largest_component", "remove_small")
    assert step.settings["structures"] == ["organ"]
    by_step = {(d.structure, d.step.name): d for d in found.tried if d.step.name != "remove_small"}
    largest = by_step["lesions", "keep_largest_component"]
    assert largest.gain.high < 0
    assert (largest.helps, largest.used, largest.reason) == (False, False, "lowers the Dice")
    holes = by_step["organ", "fill_holes"]
    assert (holes.gain, holes.reason) == (None, "changes nothing in the held-out cases")
    assert found.total.gain > 0
    assert found.total.low > 0


def test_gains_are_those_of_scores_of_post_processed_files(tmp_path):
    """Each gain can be recomputed: post-process the label maps, and score them as `decathlete evaluate` does."""
    cases = write_cases(tmp_path)
    dice = make_metrics(["dice"])

    def mean_dice(structure: int, step=None) -> float:
        values = []
        for case in cases.values():
            prediction, truth = read_label(case.prediction), read_label(case.truth)
            label_ZYX = prediction.array_ZYX
            if step is not None:
                label_ZYX = postprocess(label_ZYX, truth.geometry, LABELS, build_steps([step], LABELS))
            scores = score_case(label_ZYX, truth.array_ZYX, truth.geometry, LABELS, metrics=dice)
            values.append(scores.classes[structure].dice)
        return float(np.mean(values))

    decided = [d for d in decide(cases).tried if d.gain is not None]
    assert len(decided) >= 3
    for decision in decided:
        structure = ["organ", "lesions"].index(decision.structure)
        assert decision.gain.before == pytest.approx(mean_dice(structure), abs=1e-12)
        assert decision.gain.after == pytest.approx(mean_dice(structure, decision.step), abs=1e-12)


def test_intervals_are_corrected_for_the_number_of_steps_that_change_the_structure(tmp_path):
    tried = [d for d in decide(write_cases(tmp_path)).tried if d.structure == "organ" and d.gain]
    assert len(tried) >= 2
    assert [d.gain.confidence for d in tried] == [pytest.approx(1 - 0.05 / len(tried))] * len(tried)


def test_few_patients_decide_nothing(tmp_path):
    cases = write_cases(tmp_path)
    of_two = {case: f"patient{i % 2}" for i, case in enumerate(cases)}
    found = decide(cases, patients=of_two)
    assert found.steps == ()
    assert "fewer than 5" in found.note


@pytest.mark.parametrize("is_predicted", [False, True])
def test_few_patients_with_a_structure_decide_nothing_on_it(tmp_path, is_predicted):
    """An interval over one patient has no width; a patient with a false positive only does not have the structure."""

    def drawn(number):
        prediction, truth = draw(number)
        if number:
            prediction[prediction == 1] = int(is_predicted)
            truth[truth == 1] = 0
        return prediction, truth

    found = decide(write_cases(tmp_path, drawn=drawn))
    assert found.steps == ()
    assert {d.reason for d in found.tried if d.structure == "organ" and d.gain} == {
        "only 1 held-out patient(s) have the structure"
    }


def test_a_gain_in_few_cases_is_no_clear_gain(tmp_path):
    """Islands in one case of eight may be chance."""

    def drawn(number):
        prediction, truth = draw(number)
        return (prediction if number == 0 else truth), truth

    found = decide(write_cases(tmp_path, drawn=drawn))
    assert found.steps == ()
    assert {d.reason for d in found.tried if d.gain and d.gain.gain > 0} == {"no clear gain: the interval contains 0"}


def test_of_regions_no_other_may_get_worse(tmp_path):
    """Removing small parts of the whole removes true cores in them: the core would pay for the whole's gain."""

    def drawn(number):
        truth = np.zeros((10, 30, 30), np.uint8)
        truth[2:8, 2:14, 2:14] = 1
        truth[4:6, 20:23, 20:23] = 2  # a core far from the rest
        prediction = truth.copy()
        prediction[3:9, 22:29, 2:9] = 1  # false, and larger than the far core
        return prediction, truth

    found = decide(write_cases(tmp_path, drawn=drawn), REGIONS, smallest_truth_ml={"whole": 1.0, "core": 0.05})
    largest = next(d for d in found.tried if d.structure == "whole" and d.step.name == "keep_largest_component")
    assert largest.gain.low > 0
    assert (largest.used, largest.reason) == (False, "lowers the Dice of core")
    assert all(
        step.settings["structures"] != ["whole"] or step.name != "keep_largest_component" for step in found.steps
    )


def test_volumes_that_are_tried_stay_below_the_smallest_true_one():
    volumes = [s.settings["min_volume_ml"] for s in candidate_steps("a", 3.0) if s.name == "remove_small"]
    assert volumes == [0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    assert [s.name for s in candidate_steps("a", None)] == ["keep_largest_component", "fill_holes"]


def test_voxels_that_the_truth_ignores_do_not_count(tmp_path):
    labels = LABELS.revised(ignore=9)

    def drawn(number):
        prediction, truth = draw(number)
        truth[1:3, 16:22, 16:22] = truth[8:10, 19:21, 2:5] = 9
        return prediction, truth

    case = write_cases(tmp_path, 1, drawn)["case0"]
    effects = measure_steps(case, labels=labels, steps=candidate_steps("organ", None))
    assert effects.after[0] == effects.before, "the islands lie where nobody knows"


def test_an_empty_prediction_has_nothing_to_change(tmp_path):
    def drawn(number):
        return np.zeros((4, 6, 6), np.uint8), draw(number)[1][3:7, 4:10, 4:10]

    effects = measure_steps(
        write_cases(tmp_path, 1, drawn)["case0"], labels=LABELS, steps=candidate_steps("organ", 1.0)
    )
    assert (effects.before, effects.after, effects.in_truth) == ((0.0, 0.0), {}, (True, True))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    cases = write_cases(tmp_path)
    cases["case3"].prediction.write_bytes(b"damaged")
    with pytest.raises(CasesFailedError, match="case3"):
        decide(cases)
