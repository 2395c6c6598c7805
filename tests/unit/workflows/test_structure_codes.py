"""Codes that ``dataset.json`` declares reach the plan, which a model keeps; nothing else depends on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decathlete import PlanOptions, Workspace, check, convert, preprocess
from decathlete.core.structure_codes import StructureCode
from decathlete.dataset.manifest import read_dataset
from decathlete.errors import ManifestError
from decathlete.planning.plan import Plan
from decathlete.preprocessing.store import PreparedStore
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.training.config import TrainConfig
from decathlete.training.run_folder import make_record
from decathlete.workflows.train import load_run_plan

LIVER = {"code": "10200004", "meaning": "Liver", "color": [1, 2, 3]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_phantoms(tmp_path / "set", n_cases=3, shape_ZYX=(16, 16, 16))


def declare(root: Path, codes: dict[str, Any]) -> None:
    raw = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(raw | {"dicom_codes": codes}))


def structure(root: Path, index: int = 0) -> str:
    return read_dataset(root).labels.structures[index].name


def prepare(root: Path, **options: Any) -> PreparedStore:
    workspace = Workspace(prepared=root.parent / "prepared")
    return preprocess(root, workspace=workspace, options=PlanOptions(n_folds=2), workers=1, **options)


def test_the_plan_has_the_codes_of_its_structures(root: Path) -> None:
    without = prepare(root)
    name = structure(root)
    declare(root, {name: LIVER})
    plan = prepare(root).plan
    assert plan.structure_codes == {name: StructureCode(**LIVER)}
    assert plan.digest == without.plan.digest  # nothing is prepared or trained again for them
    assert Plan.load(root.parent / "prepared" / "set" / "3d" / "plan.json") == plan
    assert "structure_codes" not in without.plan.model_dump(mode="json")


def test_prepared_data_that_are_reused_get_new_codes(root: Path) -> None:
    prepare(root)
    declare(root, {structure(root): LIVER})
    case = next((root.parent / "prepared").rglob("case.json"))
    prepared = case.stat().st_mtime_ns
    assert prepare(root, reuse=True).plan.structure_codes[structure(root)].meaning == "Liver"
    declare(root, {})
    assert prepare(root, reuse=True).plan.structure_codes == {}
    assert case.stat().st_mtime_ns == prepared


def test_a_resumed_run_gets_new_codes(root: Path) -> None:
    before = prepare(root)
    plan = before.plan.revised(batch_size=7)  # as adapted to the machine that began the run
    folder = root.parent / "run"
    folder.mkdir()
    make_record(before, plan, 0, TrainConfig.make(), None).save(folder / "run.json")
    declare(root, {structure(root): LIVER})
    resumed = load_run_plan(folder, prepare(root, reuse=True))
    assert resumed is not None
    assert resumed.structure_codes == {structure(root): StructureCode(**LIVER)}
    assert resumed.batch_size == 7


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"code": "1"}, "meaning"),
        ({"code": "1", "meaning": "x", "colour": [1, 2, 3]}, "colour"),
        ({"code": "1", "meaning": "x", "color": [1, 2, 256]}, "color.2"),
        ({"code": "1", "meaning": "x" * 65}, "meaning"),
        ("10200004", "dicom_codes"),
    ],
)
def test_a_code_that_is_not_valid_is_an_error(root: Path, entry: object, problem: str) -> None:
    declare(root, {structure(root): entry})
    with pytest.raises(ManifestError, match=problem):
        read_dataset(root)


def test_the_check_names_structures_that_are_unknown(root: Path) -> None:
    declare(root, {structure(root): LIVER, "livr": LIVER})
    (problem,) = check(root, workers=1).problems
    assert "neither classes nor regions: livr" in problem.message


@pytest.mark.parametrize("layout", ["nnunet", "decathlon"])
def test_converted_datasets_keep_codes(root: Path, tmp_path: Path, layout: Any) -> None:
    name = structure(root)
    declare(root, {name: LIVER})
    convert(root, to=layout, output=tmp_path / "Dataset001_New", workers=1)
    assert read_dataset(tmp_path / "Dataset001_New").structure_codes == {name: StructureCode(**LIVER)}
