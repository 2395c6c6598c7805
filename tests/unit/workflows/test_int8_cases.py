"""Which cases calibrate an int8 program and which decide on it: never the same ones, and none that were trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from decathlete.dataset.manifest import read_dataset
from decathlete.errors import DatasetError, OptionError
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.training.config import TrainConfig
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.int8_cases import choose_cases
from factories import make_test_plan
from training_support import make_store

IDS = tuple(f"phantom_{i:03}" for i in range(7))
PLAN = make_test_plan()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_phantoms(tmp_path / "Task07_Balls", n_cases=7, shape_ZYX=(10, 10, 10))


def run_on(dataset: Path, prepared: Path, *, train: tuple[str, ...], val: tuple[str, ...]) -> Path:
    folder = dataset.parent / "fold"
    folder.mkdir(exist_ok=True)
    RunRecord(
        version="0", dataset=dataset.name, dataset_root=str(dataset), dataset_digest="d", prepared=str(prepared),
        dims=3, fold=0 if val else "all", train=train, val=val, config=TrainConfig(epochs=1), plan_digest="p",
        started="now",
    ).save(folder / "run.json")  # fmt: skip
    return folder


def ids(cases) -> list[str]:
    return [case.id for case in cases.validate]


def test_a_run_calibrates_on_its_training_cases_and_is_judged_by_those_held_out(dataset: Path, tmp_path: Path) -> None:
    run = run_on(dataset, tmp_path / "gone", train=IDS[:5], val=IDS[5:])
    for model in (run, run / "model"):
        found = choose_cases(model, PLAN)
        assert (ids(found), tuple(found.calibrate)) == (list(IDS[5:]), IDS[:5])
    assert found.calibrate[IDS[0]]().shape == (1, 10, 10, 10)


def test_prepared_cases_are_read_from_the_store_while_it_is_the_models(dataset: Path, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    run = run_on(dataset, store.folder, train=("case0", "case1"), val=IDS[5:])
    found = choose_cases(run, store.plan)
    assert np.array_equal(found.calibrate["case1"](), store.case("case1").read_image())
    with pytest.raises(DatasetError, match=r"neither the prepared nor the raw training cases.*\n.*--calibration"):
        choose_cases(run, store.plan.revised(target_spacing=(2.0, 2.0, 2.0)))


def test_a_dataset_that_moved_is_named(dataset: Path, tmp_path: Path) -> None:
    run = run_on(dataset, tmp_path / "gone", train=IDS[:5], val=IDS[5:])
    moved = tmp_path / "elsewhere" / "Task07_Balls"
    shutil.move(dataset, moved)
    with pytest.raises(DatasetError, match="--dataset"):
        choose_cases(run, PLAN)
    found = choose_cases(run, PLAN, dataset=moved)
    assert found.validate[0].images[0].is_relative_to(moved)
    assert found.calibrate[IDS[0]]().shape == (1, 10, 10, 10)


def test_where_no_case_was_held_out_a_dataset_must_decide(dataset: Path, tmp_path: Path) -> None:
    run = run_on(dataset, tmp_path / "gone", train=IDS, val=())
    for model in (run, tmp_path / "imported"):
        with pytest.raises(OptionError, match=r"no case was held out.*\n.*--dataset FOLDER"):
            choose_cases(model, PLAN)
    with pytest.raises(DatasetError, match="0 labelled cases for validation; the model was trained on 7 others"):
        choose_cases(run, PLAN, dataset=dataset)
    other = make_phantoms(tmp_path / "Task08_Others", n_cases=2, shape_ZYX=(10, 10, 10))
    found = choose_cases(run, PLAN, dataset=other)
    assert ids(found) == [case.id for case in read_dataset(other).cases]
    assert tuple(found.calibrate) == IDS


def test_annotated_classes_are_those_of_the_training_only_for_its_dataset(dataset: Path, tmp_path: Path) -> None:
    """A file may have cleared the manifest's list for the training; another dataset has a list of its own."""
    classes = [c.name for c in read_dataset(dataset).labels.foreground]
    other = make_phantoms(tmp_path / "Task08_Others", n_cases=2, shape_ZYX=(10, 10, 10))
    for root in (dataset, other):
        manifest = json.loads((root / "dataset.json").read_text())
        (root / "dataset.json").write_text(json.dumps(manifest | {"annotated": {IDS[0]: classes[:1]}}))
    run = run_on(dataset, tmp_path / "gone", train=IDS[1:], val=())
    (own,) = choose_cases(run, PLAN, dataset=dataset).validate
    assert (own.id, own.unannotated) == (IDS[0], ())
    record = RunRecord.load(run / "run.json")
    record.revised(annotated={IDS[6]: (classes[0],)}).save(run / "run.json")
    first, _ = choose_cases(run, PLAN, dataset=other).validate
    assert (first.id, len(first.unannotated)) == (IDS[0], len(classes) - 1)


def test_of_one_dataset_every_fifth_case_decides_and_the_others_calibrate(dataset: Path, tmp_path: Path) -> None:
    found = choose_cases(tmp_path / "imported", PLAN, dataset=dataset)
    assert ids(found) == [IDS[4]]
    assert tuple(found.calibrate) == (*IDS[:4], *IDS[5:])
    single = make_phantoms(tmp_path / "Task08_Single", n_cases=1, shape_ZYX=(10, 10, 10))
    with pytest.raises(DatasetError, match=r"1 labelled cases for validation\n.*--calibration"):
        choose_cases(tmp_path / "imported", PLAN, dataset=single)
    found = choose_cases(tmp_path / "imported", PLAN, dataset=single, calibration=dataset)
    assert (len(found.validate), len(found.calibrate)) == (1, 6)  # one of the seven is called like the one that decides


def test_what_decides_never_calibrates_whatever_is_named(dataset: Path, tmp_path: Path) -> None:
    run = run_on(dataset, tmp_path / "gone", train=IDS[:5], val=IDS[5:])
    assert tuple(choose_cases(run, PLAN, calibration=dataset).calibrate) == IDS[:5]
    assert tuple(choose_cases(run, PLAN, calibration=dataset / "imagesTr").calibrate) == IDS[:5]
    image = dataset / "imagesTr" / f"{IDS[6]}.nii.gz"
    with pytest.raises(DatasetError, match="only the validation cases"):
        choose_cases(run, PLAN, calibration=image)
