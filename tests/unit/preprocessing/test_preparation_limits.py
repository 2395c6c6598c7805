"""A disk that is too small for the prepared cases is an error before the work; little memory lowers the workers."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from decathlete.core import machine, sizes
from decathlete.core.estimates import prepare_bytes, stored_bytes
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import DatasetSpec
from decathlete.dataset.splits import make_splits
from decathlete.errors import OutputError
from decathlete.planning.fingerprint import CaseFingerprint, Fingerprint
from decathlete.planning.plan import CoarseStart
from decathlete.preprocessing import requirements
from decathlete.preprocessing.requirements import limit_preparation, prepared_sizes
from decathlete.preprocessing.run import preprocess
from decathlete.synthetic.phantoms import make_phantoms
from factories import make_test_network, make_test_plan

FINGERPRINT = Fingerprint(dataset_digest="x", cases=(), intensity=())


@pytest.fixture
def spec(tmp_path: Path) -> DatasetSpec:
    return read_dataset(make_phantoms(tmp_path / "Task98_Own", n_cases=3, shape_ZYX=(10, 12, 14)))


def test_a_small_disk_is_an_error_before_anything_is_written(
    spec: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "prepared"
    with monkeypatch.context() as patch:
        patch.setattr(sizes, "free_disk_bytes", lambda _: 10)
        with pytest.raises(OutputError, match="are needed for 3 prepared cases, but the disk has 10 bytes") as raised:
            preprocess(spec, make_test_plan(), folder, fingerprint=FINGERPRINT, splits=make_splits(spec, n_folds=2))
    assert (raised.value.code, raised.value.where) == ("E-DISK-FULL", folder)
    assert not (folder / "plan.json").exists()


def test_a_coarse_start_needs_space_for_each_case_once_more(
    spec: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = make_test_plan(target_spacing=(1.0, 1.0, 1.0))
    both = own.revised(coarse_start=CoarseStart(target_spacing=(2.0, 2.0, 2.0)))
    needed: list[tuple[int, str]] = []
    monkeypatch.setattr(
        requirements, "require_disk_space", lambda _, n_bytes, *, needed_for, **__: needed.append((n_bytes, needed_for))
    )
    folder = tmp_path / "prepared"
    for plan in (own, both):
        limit_preparation(spec, plan, folder, fingerprint=FINGERPRINT, workers=1)
    for case in spec.cases:
        (folder / "cases" / case.id).mkdir(parents=True)
    limit_preparation(spec, both, folder, fingerprint=FINGERPRINT, workers=1)
    assert [words for _, words in needed] == [
        "for 3 prepared cases",
        "for 3 prepared cases on two grids",
        "for 3 prepared cases",
    ]
    assert needed[0][0] + needed[2][0] == needed[1][0]


def test_cases_that_exist_need_no_space(spec: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = make_splits(spec, n_folds=2)
    preprocess(spec, make_test_plan(), tmp_path / "p", fingerprint=FINGERPRINT, splits=splits)
    monkeypatch.setattr(sizes, "free_disk_bytes", lambda _: 0)
    preprocess(spec, make_test_plan(), tmp_path / "p", fingerprint=FINGERPRINT, splits=splits)


def test_little_memory_prepares_one_case_at_a_time(
    spec: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 30_000)
    with caplog.at_level(logging.INFO, "decathlete"):
        preprocess(
            spec,
            make_test_plan(),
            tmp_path / "p",
            fingerprint=FINGERPRINT,
            splits=make_splits(spec, n_folds=2),
            workers=3,
        )
    assert any("prepare 1 instead of 3 cases at a time" in record.getMessage() for record in caplog.records)


def test_a_fingerprint_says_the_sizes_without_its_files(spec: DatasetSpec) -> None:
    plan = make_test_plan()
    first = spec.cases[0].id
    case = CaseFingerprint(
        case_id=first, shape=(20, 10, 10), spacing=(1, 1, 1), crop_ratio=0.5, class_voxels=(1, 1), channel_means=(0,)
    )
    found = prepared_sizes(spec, plan, FINGERPRINT.model_copy(update={"cases": (case,)}))
    assert found[first].n_voxels == 4000
    assert found[spec.cases[1].id].n_voxels == 10 * 12 * 14


def test_masks_of_a_previous_stage_need_memory_and_space(spec: DatasetSpec) -> None:
    first = spec.cases[0].id
    case = CaseFingerprint(
        case_id=first, shape=(20, 10, 10), spacing=(1, 1, 1), crop_ratio=1, class_voxels=(1, 1), channel_means=(0,)
    )
    fingerprint = FINGERPRINT.model_copy(update={"cases": (case,)})
    cascade = make_test_plan(previous_stage="3d_lowres", network=make_test_network(in_channels=3))
    alone, second = (prepared_sizes(spec, plan, fingerprint) for plan in (make_test_plan(), cascade))
    for case_id in (first, spec.cases[1].id):  # by its fingerprint, by its header
        one, two = alone[case_id], second[case_id]
        assert stored_bytes([two], share=1) - stored_bytes([one], share=1) == 2 * 4 * one.n_prepared
        assert prepare_bytes(two) - prepare_bytes(one) >= 2 * 4 * one.n_prepared
