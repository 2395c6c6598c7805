"""A conversion that does not fit on the disk is an error before any file is written; short memory means fewer cases."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import nibabel
import numpy as np
import pytest

from decathlete import FileNames, convert
from decathlete.core import machine, sizes
from decathlete.errors import OutputError
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.workflows.merge import merge_datasets

SHAPE = (10, 12, 9)
N_VOXELS = 10 * 12 * 9


@pytest.fixture
def phantoms(tmp_path: Path) -> Path:
    return make_phantoms(tmp_path / "in", n_cases=3, n_test=1, shape_ZYX=SHAPE)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "free_disk_bytes", lambda _: 0)


def set_memory(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bytes_per_voxel: int) -> None:
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: bytes_per_voxel * N_VOXELS)
    caplog.set_level(logging.INFO, "decathlete")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage().partition(":")[0] for record in caplog.records]
    return [message for message in messages if message.endswith("cases at a time")]


@pytest.mark.usefixtures("full_disk")
def test_converted_files_that_do_not_fit_are_an_error_before_the_work(phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="are needed for 7 new files") as raised:  # 4 images, 3 label maps
        convert(phantoms, tmp_path / "out", to="decathlon", suffix=".nrrd", workers=1)
    assert raised.value.code == "E-DISK-FULL"
    assert "--copy" not in str(raised.value)
    assert not list((tmp_path / "out").rglob("*.nrrd"))
    with pytest.raises(OutputError, match="leave out --copy"):
        convert(phantoms, tmp_path / "copy", to="decathlon", copy=True, workers=1)


@pytest.mark.usefixtures("full_disk")
def test_label_maps_that_a_merge_renumbers_need_space_and_links_need_none(phantoms: Path, tmp_path: Path) -> None:
    convert(phantoms, tmp_path / "links", to="decathlon", workers=1)
    second = make_phantoms(tmp_path / "second", n_cases=2, shape_ZYX=SHAPE, n_classes=1)
    manifest = json.loads((second / "dataset.json").read_text())
    (second / "dataset.json").write_text(json.dumps(manifest | {"labels": {"0": "background", "1": "another"}}))
    with pytest.raises(OutputError, match=f"{round(0.02 * 2 * N_VOXELS)} bytes are needed for 2 new files"):
        merge_datasets([phantoms, second], tmp_path / "out", to="decathlon", workers=1)


def test_files_of_a_stopped_conversion_need_no_space(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(phantoms, tmp_path / "out", to="decathlon", suffix=".nrrd", workers=1)
    monkeypatch.setattr(sizes, "free_disk_bytes", lambda _: 0)
    convert(phantoms, tmp_path / "out", to="decathlon", suffix=".nrrd", workers=1)


def test_little_memory_converts_fewer_cases_at_a_time(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_memory(monkeypatch, caplog, bytes_per_voxel=20)
    convert(phantoms, tmp_path / "links", to="decathlon", workers=2)
    assert said(caplog) == [], "links need no memory"
    result = convert(phantoms, tmp_path / "out", to="decathlon", suffix=".nrrd", workers=2)
    assert said(caplog) == ["convert 1 instead of 2 cases at a time"]
    assert result.written == len(list((tmp_path / "out").rglob("*.nrrd"))) == 7


def test_little_memory_reads_fewer_label_maps_at_a_time(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_memory(monkeypatch, caplog, bytes_per_voxel=6)
    names = FileNames(images=Path("imagesTr"), labels=Path("labelsTr"), channels="MRI")
    convert(phantoms, tmp_path / "out", to="decathlon", files=names, workers=2)
    assert said(caplog) == ["read 1 instead of 2 cases at a time"]


def test_little_memory_reads_fewer_labels_in_floating_point_at_a_time(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (phantoms / "labelsTr").glob("*.nii.gz"):
        label = nibabel.load(path)
        floats = np.asarray(label.dataobj).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(floats, label.affine), path)
    set_memory(monkeypatch, caplog, bytes_per_voxel=12)
    convert(phantoms, tmp_path / "out", to="decathlon", workers=2)
    assert said(caplog) == ["read 1 instead of 2 cases at a time"]
