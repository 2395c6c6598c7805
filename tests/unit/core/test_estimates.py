"""Estimates follow the sizes; what does not fit lowers the number of cases at a time, or is an error."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from decathlete.core import machine
from decathlete.core.estimates import (
    CaseSize,
    batches_that_fit,
    check_bytes,
    fingerprint_bytes,
    plan_files_bytes,
    predicted_files_bytes,
    prediction_bytes,
    prepare_bytes,
    read_for_prediction_bytes,
    score_bytes,
    spilled_bytes,
    stored_bytes,
    workers_that_fit,
)
from decathlete.core.limits import limit_workers
from decathlete.core.sizes import require_disk_space
from decathlete.errors import OutputError

MB = 10**6


def test_memory_follows_voxels_and_channels() -> None:
    one, three = CaseSize(n_voxels=MB), CaseSize(n_voxels=MB, n_channels=3)
    assert (check_bytes(one), check_bytes(three)) == (8 * MB, 16 * MB)
    assert (fingerprint_bytes(one), fingerprint_bytes(three)) == (10 * MB, 30 * MB)
    assert score_bytes(one) == 6 * MB


def test_resampling_needs_memory_on_both_grids() -> None:
    kept = CaseSize(n_voxels=MB, n_prepared=MB)
    finer = CaseSize(n_voxels=MB, n_prepared=2 * MB)
    assert (prepare_bytes(kept), prepare_bytes(finer)) == (15 * MB, 32 * MB)


def test_prepared_cases_are_float32_and_a_label_compressed() -> None:
    sizes = [CaseSize(n_voxels=1, n_channels=2, n_prepared=MB)] * 3
    assert stored_bytes(sizes, share=1.0) == 27 * MB


def test_sums_beyond_the_limit_are_on_disk_and_not_in_memory() -> None:
    size = CaseSize(n_voxels=MB, n_prepared=MB)
    assert spilled_bytes([size], 10, sums_limit=15 * MB) == 25 * MB
    assert prediction_bytes([size], 10, sums_limit=15 * MB) == (4 + 15 + 2) * MB
    assert prediction_bytes([size], 10, sums_limit=None) == (4 + 40 + 2) * MB
    assert spilled_bytes([size], 10, sums_limit=None) == 0


def test_every_plan_of_a_prediction_holds_its_image() -> None:
    full, low = (
        CaseSize(n_voxels=MB, n_channels=2, n_prepared=MB),
        CaseSize(n_voxels=MB, n_channels=2, n_prepared=MB // 4),
    )
    assert read_for_prediction_bytes([full]) == prepare_bytes(full)
    assert read_for_prediction_bytes([full, low]) == 34.5 * MB + (8 + 2) * MB
    alone = prediction_bytes([full], 3, sums_limit=None)
    assert prediction_bytes([full, low], 3, sums_limit=None) == alone + 2 * MB
    assert prediction_bytes([full], 3, sums_limit=None, network_bytes=5 * MB) == alone + 5 * MB
    masks = replace(full, n_masks=2)
    assert prediction_bytes([masks, low], 3, sums_limit=None) == alone + 2 * MB + 8 * MB
    assert read_for_prediction_bytes([masks, low]) == read_for_prediction_bytes([full, low]), "made in the prediction"


def test_the_mean_over_plans_stores_the_probabilities_of_each() -> None:
    assert plan_files_bytes(MB, 3, n_plans=1) == 0
    assert plan_files_bytes(MB, 3, n_plans=2) == 24 * MB


def test_probabilities_are_float32_of_each_output() -> None:
    assert predicted_files_bytes(MB, 3, probabilities=False) == 20_000
    assert predicted_files_bytes(MB, 3, probabilities=True) == 20_000 + 12 * MB


@pytest.mark.parametrize(("available", "expected"), [(10**9, 4), (200, 2), (100, 1), (1, 1)])
def test_so_many_workers_fit_that_the_largest_cases_can_meet(available: int, expected: int) -> None:
    assert workers_that_fit(4, [80, 60, 50, 40, 10], available) == expected


@pytest.mark.parametrize(("available", "expected"), [(10**6, 4), (500, 2), (0, 1)])
def test_fewer_batches_are_read_ahead(available: int, expected: int) -> None:
    assert batches_that_fit(4, 100, available) == expected


def test_a_lower_number_of_workers_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 100 * MB)
    with caplog.at_level(logging.INFO, "decathlete"):
        assert limit_workers(3, {"small": 30 * MB, "large": 50 * MB, "other": 30 * MB}, doing="check") == 2
    assert [record.getMessage() for record in caplog.records] == [
        "check 2 instead of 3 cases at a time: the largest case (large) needs about 50.0 MB of memory, "
        "100.0 MB are free"
    ]


def test_a_case_that_does_not_fit_alone_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 40 * MB)
    assert limit_workers(1, {"large": 50 * MB}, doing="score") == 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "to score it, the largest case (large) needs about 50.0 MB" in record.getMessage()


def test_enough_memory_says_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 10**12)
    with caplog.at_level(logging.INFO, "decathlete"):
        assert limit_workers(3, {"a": MB, "b": MB}, doing="check") == 3
    assert not caplog.records


def test_the_disk_of_a_folder_that_does_not_exist_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def disk_usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=5)

    monkeypatch.setattr("shutil.disk_usage", disk_usage)
    with pytest.raises(OutputError, match=r"10 bytes are needed for it, but the disk has 5 bytes free") as raised:
        require_disk_space(tmp_path / "new" / "folder", 10, needed_for="for it", remedy="free space")
    assert (raised.value.code, raised.value.where) == ("E-DISK-FULL", tmp_path / "new" / "folder")
    assert asked == [tmp_path]
