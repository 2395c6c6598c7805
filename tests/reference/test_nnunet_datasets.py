"""Converted datasets before nnU-Net's own judge: its check of a raw dataset, run in its own environment."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from decathlete import FileNames, convert
from decathlete.synthetic.phantoms import make_phantoms

JUDGE = """
import sys
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
if __name__ == "__main__":
    verify_dataset_integrity(sys.argv[1], num_processes=1)
"""


def assert_nnunet_takes(folder: Path, peers: Path, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(JUDGE)
    places = {name: str(tmp_path) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    said = subprocess.run(
        [peers, tmp_path / "judge.py", folder],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **places},
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert "most likely OK" in said.stdout
    assert "Warning" not in said.stdout, said.stdout


@pytest.mark.full
def test_four_channels_regions_and_gaps(tmp_path: Path, peers: Path) -> None:
    source = make_phantoms(
        tmp_path / "Task07_Blobs",
        n_cases=2,
        n_test=1,
        n_channels=4,
        n_classes=3,
        shape_ZYX=(10, 12, 9),
        spacing_ZYX=(3.0, 0.7, 0.9),
    )
    for path in (source / "labelsTr").iterdir():
        stored = nibabel.load(path)
        array = np.asarray(stored.dataobj)
        array[array == 3] = 9
        nibabel.Nifti1Image(array, stored.affine).to_filename(path)
    raw = json.loads((source / "dataset.json").read_text())
    raw["labels"] = {"0": "nothing", "1": "rim", "2": "core", "9": "spot"}
    (source / "dataset.json").write_text(json.dumps(raw))
    made = tmp_path / "nnUNet_raw" / "Dataset007_Blobs"
    convert(source, made, to="nnunet", regions="whole=1,2,9;inner=2,9;spot=9", workers=1)
    assert_nnunet_takes(made, peers, tmp_path)


@pytest.mark.full
def test_links_to_plain_folders_of_oblique_images(tmp_path: Path, peers: Path) -> None:
    source = make_phantoms(
        tmp_path / "in", n_cases=2, n_channels=2, shape_ZYX=(10, 12, 9), layout="nnunet", oblique=True
    )
    (source / "dataset.json").unlink()
    made = tmp_path / "nnUNet_raw" / "Dataset008_Blobs"
    names = FileNames(images=Path("imagesTr"), labels=Path("labelsTr"), channels="T1,T2", classes="a,b")
    assert convert(source, made, to="nnunet", files=names, workers=1).written == 0
    assert_nnunet_takes(made, peers, tmp_path)


@pytest.mark.full
@pytest.mark.real_data
@pytest.mark.parametrize("name", ["BRATS2013_FLAIR_T1c", "STS_PETCT", "STS_CT_respaced"])
def test_real_datasets(tmp_path: Path, peers: Path, real_data: Callable[[str], Path], name: str) -> None:
    made = tmp_path / "nnUNet_raw" / f"Dataset001_{name}"
    convert(real_data(name), made, to="nnunet", workers=1)
    assert_nnunet_takes(made, peers, tmp_path)
