"""Choosing metrics, and a metric from elsewhere: one module, and every result has it."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.core.geometry import Geometry
from decathlete.core.labels import LabelSet
from decathlete.errors import OptionError, OutputError
from decathlete.evaluation.case import score_case
from decathlete.evaluation.cross_validation import CrossValidation
from decathlete.evaluation.evaluate import evaluate
from decathlete.evaluation.mask_pair import MaskPair
from decathlete.evaluation.metric_info import MetricInfo
from decathlete.evaluation.metrics import METRICS, make_metrics
from decathlete.evaluation.scores import Scores
from decathlete.io.images import write_label
from decathlete.workflows.report import render_cross_validation, report
from decathlete.workflows.report_charts import draw_distribution
from decathlete.workflows.validate import PredictOptions, validate

MODULE = '''
"""How far volumes differ."""

from pydantic import Field

from decathlete.core.registry import ComponentSettings
from decathlete.evaluation.metrics import METRICS, Metric


@METRICS.register("volume_error_ml")
class VolumeError(Metric):
    """Absolute difference of the volumes, mL."""

    class Settings(ComponentSettings):
        factor: float = Field(default=1.0, gt=0)
        """Multiplies the difference."""

    title = "Volume error"
    unit = "mL"
    direction = "lower"
    perfect = 0.0
    limits = (0.0, float("inf"))
    digits = 1
    absent_value = 0.0
    headline_mean = "pairs"

    def __call__(self, pair):
        counts = pair.overlap
        return self.settings.factor * abs(counts.n_prediction - counts.n_truth) * pair.voxel_volume_mm3 / 1000
'''
LABELS = LabelSet.from_names(["organ", "tumour"])
GEOMETRY = Geometry.plain((6, 20, 20), spacing_ZYX=(10.0, 5.0, 5.0))
PLUGIN = "volume_plugin:VolumeError"


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "volume_plugin.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "plugin")
    with METRICS.isolated():
        yield
    sys.modules.pop("volume_plugin", None)


def label(organ: int, tumour: int) -> np.ndarray:
    """So many planes of an organ, and voxels of a tumour in its last column."""
    array = np.zeros(GEOMETRY.shape_ZYX, np.uint8)
    array[:organ, 2:8, 2:8] = 1
    array[0, 19, :tumour] = 2
    return array


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    predictions, truths = tmp_path / "predictions", tmp_path / "truths"
    for case, (predicted, true) in {"a": ((2, 4), (3, 4)), "b": ((3, 0), (3, 0)), "c": ((1, 2), (3, 0))}.items():
        write_label(predictions / f"{case}.nii.gz", label(*predicted), GEOMETRY)
        write_label(truths / f"{case}.nii.gz", label(*true), GEOMETRY)
    return predictions, truths


def test_a_metric_of_one_module_is_in_every_result(folders: tuple[Path, Path], tmp_path: Path) -> None:
    scores = evaluate(*folders, labels=LABELS, output=tmp_path, metrics=["dice", PLUGIN])
    name, ml = "volume_error_ml", 36 * 250 / 1000
    # the tumour of b is on neither side, that of c only in the prediction
    found = [c.values[name] for case in scores.cases for c in case.classes]
    assert found == [pytest.approx(ml), 0, 0, None, pytest.approx(2 * ml), None]
    assert scores.headline.values[name] == pytest.approx((ml + 0 + 0 + 2 * ml) / 4), "over pairs, not over cases"
    assert scores.headline.with_absent[name] == pytest.approx((ml / 2 + 0 + 2 * ml) / 3)
    assert scores.headline.n_undefined == {"dice": 0, name: 1}
    assert Scores.load(tmp_path / "scores.json") == scores
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert [row[name] for row in rows] == ["9", "0", "0", "", "18", ""]
    assert scores.table().splitlines()[0].split() == [
        *("class", "Dice", "Volume", "error", "mL", "missed", "invented", "absent"),
    ]
    assert "Volume error 6.8 mL (undefined 1x)" in scores.headline_line()


def test_and_in_a_cross_validation_and_its_page(folders: tuple[Path, Path], tmp_path: Path) -> None:
    scores = evaluate(*folders, labels=LABELS, metrics=["dice", PLUGIN])
    folds = {
        fold: Scores.of([case for case in scores.cases if case.case_id in ids], scores.metrics)
        for fold, ids in enumerate(["ab", "c"])
    }
    found = CrossValidation.of(folds, dataset="Test", dims=3, n_folds=2)
    assert "Volume error mL" in found.table()
    found.save_csv(tmp_path / "cross_validation.csv")
    rows = list(csv.DictReader((tmp_path / "cross_validation.csv").read_text().splitlines()))
    assert next(r["volume_error_ml"] for r in rows if (r["class"], r["of"]) == ("organ", "fold 1")) == "18"
    assert ">Volume error mL<" in render_cross_validation(found)


def test_scores_are_shown_where_the_metric_is_not_installed(folders: tuple[Path, Path], tmp_path: Path) -> None:
    before = evaluate(*folders, labels=LABELS, output=tmp_path, metrics=[PLUGIN])
    with METRICS.isolated(without=["volume_error_ml"]):
        scores = Scores.load(tmp_path / "scores.json")
        assert scores.table() == before.table()
        assert [c.case_id for c in scores.ranked()] == ["c", "a", "b"], "the greatest error first"
        assert "Volume error of a case (mL)" in draw_distribution(scores)


def test_a_class_whose_name_looks_like_a_formula_is_drawn(folders: tuple[Path, Path]) -> None:
    labels = LabelSet.from_names([r"$\alpha_$ cell", "other"])
    scores = evaluate(*folders, labels=labels, metrics=["dice"])
    assert draw_distribution(scores).startswith("<svg")


def test_a_run_is_scored_with_it_and_its_report_shows_it(tmp_path: Path) -> None:
    golden = Path(__file__).parents[2] / "reference" / "golden" / "v1"
    data = golden / "data" / "Task07_Blobs"
    run = tmp_path / "fold_0"
    shutil.copytree(golden / "results" / "classes" / "Task07_Blobs" / "3d" / "fold_0", run)
    options = PredictOptions(device="cpu", precision="fp32", engine="torch")
    chosen = ["dice", PLUGIN]
    with pytest.raises(OutputError, match=r"other metrics: iou, nsd .tolerance_mm 1., hd95_mm, no volume_error_ml"):
        validate(run, dataset_root=data, options=options, metrics=chosen)
    before = Scores.load(run / "scores.json")
    scores = validate(run, dataset_root=data, options=options, metrics=chosen, overwrite=True, workers=1)
    assert scores.headline.dice == pytest.approx(before.headline.dice, abs=1e-4)
    assert Scores.load(run / "scores.json") == scores
    written = (run / "scores.json").stat().st_mtime_ns
    assert validate(run, dataset_root=data, options=options, metrics=chosen) == scores
    assert (run / "scores.json").stat().st_mtime_ns == written, "kept"
    page = report(run, dataset_root=data).read_text()
    assert page.count('<th class="number">Volume error mL</th>') == 2, "classes and cases"
    assert "Volume error is the mean over all pairs" in page
    assert ">NSD<" not in page


def test_the_command_line_takes_it(folders: tuple[Path, Path]) -> None:
    command = ["evaluate", "--preds", folders[0], "--lbls", folders[1], "--json", "--metrics", f"nsd,{PLUGIN}"]
    settings = ["--tolerance", 2, "--set", "volume-error-ml.factor=2"]
    done = CliRunner().invoke(app, [str(word) for word in [*command, *settings]])
    assert done.exit_code == 0, done.output
    scores = json.loads(done.output)
    assert [(m["name"], m["settings"]) for m in scores["metrics"]] == [
        ("nsd", {"tolerance_mm": 2}),
        ("volume_error_ml", {"factor": 2}),
    ]
    assert scores["cases"][0]["classes"][0]["values"]["volume_error_ml"] == pytest.approx(18)


def test_choices_in_python() -> None:
    nsd = METRICS.settings({"name": "nsd", "tolerance_mm": 3})
    for choice in (nsd, {"name": "nsd", "tolerance_mm": 3}, METRICS.build(nsd)):
        (made,) = make_metrics([choice])
        assert made.settings == nsd
    (made,) = make_metrics(["nsd"], tolerance_mm=3)
    assert made.settings == nsd
    assert [m.name for m in make_metrics()] == ["dice", "iou", "nsd", "hd95_mm"]


@pytest.mark.parametrize(
    ("chosen", "options", "message"),
    [
        (["dise"], {}, "no metric called 'dise'; did you mean dice"),
        ([], {}, "no metric is chosen"),
        (["dice", "dice"], {}, "chosen twice"),
        (["dice"], {"tolerance_mm": 2.0}, "nsd.tolerance_mm has no effect"),
        (["nsd"], {"settings": ["nsd.tolerance=2"]}, "tolerance is not a setting of the metric nsd"),
        (["nsd"], {"settings": ["tolerance_mm=2"]}, "METRIC.SETTING=VALUE"),
        (["nsd"], {"settings": ["nsd.tolerance_mm=-1"]}, "greater than 0"),
        (["no_such_module:Thing"], {}, "cannot be imported"),
    ],
)
def test_wrong_choices_are_rejected(chosen: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make_metrics(chosen, **options)


def test_surface_distances_are_computed_once_for_all_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    from decathlete.evaluation import mask_pair

    calls = []
    measure = mask_pair.measure_surface_distances
    monkeypatch.setattr(mask_pair, "measure_surface_distances", lambda *masks: calls.append(None) or measure(*masks))
    score_case(label(3, 4), label(2, 4), GEOMETRY, LABELS)
    assert len(calls) == 2, "once for each class"
    score_case(label(3, 4), label(2, 4), GEOMETRY, LABELS, metrics=make_metrics(["dice", "iou"]))
    assert len(calls) == 2, "never where no metric needs them"


def test_the_volume_of_a_voxel_respects_shear_or_is_the_product_of_spacings() -> None:
    mask = np.ones((1, 1, 1), bool)
    assert MaskPair(mask, mask, spacing_ZYX=(2, 3, 4)).voxel_volume_mm3 == 24
    assert MaskPair(mask, mask, spacing_ZYX=(2, 3, 4), voxel_volume_mm3=20).voxel_volume_mm3 == 20


def test_metric_names_and_headings_are_those_of_tables() -> None:
    infos = [MetricInfo.of(metric) for metric in make_metrics()]
    assert [info.heading for info in infos] == ["Dice", "IoU", "NSD", "HD95 mm"]
