"""One bad file among good ones: every command names it, finishes the other cases, and exits with code 2."""

from __future__ import annotations

import gzip
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from decathlete.cli.main import main
from decathlete.core.geometry import Geometry
from decathlete.io.image_files import is_image_name
from decathlete.io.images import write_volume
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.synthetic.phantoms import make_phantoms
from factories import make_test_plan

Run = Callable[..., str]


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    def run(*arguments: object) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["decathlete", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        assert stop.value.code == 2, printed.err
        assert "Traceback" not in printed.err + printed.out
        return printed.err + printed.out

    return run


def _header(datatype: int, bits: int, sizes: tuple[int, int, int] = (16, 16, 16)) -> bytes:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *sizes, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, datatype, bits)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 0, 0, 0, 0)
    struct.pack_into("<f4x4x", header, 108, 352)
    struct.pack_into("<hh", header, 252, 1, 0)
    header[344:348] = b"n+1\0"
    return bytes(header)


def _colours(path: Path) -> None:
    path.write_bytes(gzip.compress(_header(128, 24) + bytes(3 * 16**3)))


def _claim(path: Path) -> None:
    path.write_bytes(gzip.compress(_header(4, 16, (2000, 2000, 1000)) + bytes(100)))


def _noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(3000))


def _far_apart(path: Path) -> None:
    voxels = np.arange(16**3, dtype=np.float32).reshape(1, 16, 16, 16)
    write_volume(path, voxels, Geometry.plain((16, 16, 16), spacing_ZYX=(352.0, 1.0, 1.0)))


BAD = {"colours": _colours, "claim": _claim, "noise": _noise, "far apart": _far_apart}
MESSAGES = {"colours": "contains colours", "claim": "truncated", "noise": "truncated", "far apart": "implausible"}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_phantoms(tmp_path_factory.mktemp("data") / "Task01_Set", n_cases=4, shape_ZYX=(16, 16, 16))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan, folder = make_test_plan(), tmp_path_factory.mktemp("model") / "fold_0"
    network = build_network(plan.network, seed=0)
    ModelBundle.save(folder, TrainedMember(plan=plan, networks=[network], mirror_axes=()))
    return folder


@pytest.fixture
def dataset(phantoms: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(phantoms, tmp_path / "data" / phantoms.name))


@pytest.mark.parametrize("kind", BAD)
def test_check_reads_all_others(fails: Run, dataset: Path, kind: str) -> None:
    BAD[kind](dataset / "imagesTr" / "phantom_000.nii.gz")
    _noise(dataset / "labelsTr" / "phantom_003.nii.gz")
    printed = fails("check", dataset)
    assert "imagesTr/phantom_000.nii.gz" in printed
    assert MESSAGES[kind] in printed
    assert "labelsTr/phantom_003.nii.gz" in printed
    assert "phantom_001" not in printed


@pytest.mark.parametrize("kind", BAD)
def test_preprocess_names_every_bad_case(fails: Run, dataset: Path, kind: str) -> None:
    BAD[kind](dataset / "imagesTr" / "phantom_000.nii.gz")
    BAD[kind](dataset / "imagesTr" / "phantom_002.nii.gz")
    printed = fails("preprocess", "--task", dataset)
    assert "phantom_000" in printed
    assert "phantom_002" in printed
    assert MESSAGES[kind] in printed


@pytest.mark.parametrize("kind", BAD)
def test_predict_finishes_all_others(fails: Run, phantoms: Path, model: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "images"
    shutil.copytree(phantoms / "imagesTr", folder)
    BAD[kind](folder / "bad.nii.gz")
    printed = fails("predict", "-i", folder, "--model", model, "-o", tmp_path / "out", "--device", "cpu")
    assert "could not predict 1 of 5 cases" in printed
    assert "bad.nii.gz" in printed
    assert MESSAGES[kind] in printed
    made = [p.name for p in (tmp_path / "out").iterdir() if is_image_name(p)]
    assert sorted(made) == [f"phantom_00{k}.nii.gz" for k in range(4)]


@pytest.mark.parametrize("kind", BAD)
def test_convert_names_every_bad_file(fails: Run, dataset: Path, tmp_path: Path, kind: str) -> None:
    BAD[kind](dataset / "imagesTr" / "phantom_000.nii.gz")
    BAD[kind](dataset / "labelsTr" / "phantom_002.nii.gz")
    printed = fails("convert", dataset, "-o", tmp_path / "Dataset001_New", "--suffix", ".mha", "--to", "nnunet")
    assert "phantom_000" in printed
    assert "phantom_002" in printed
    assert MESSAGES[kind] in printed


@pytest.mark.parametrize("kind", BAD)
def test_evaluate_names_every_bad_file(fails: Run, dataset: Path, tmp_path: Path, kind: str) -> None:
    predictions = Path(shutil.copytree(dataset / "labelsTr", tmp_path / "predictions"))
    BAD[kind](predictions / "phantom_000.nii.gz")
    BAD[kind](dataset / "labelsTr" / "phantom_002.nii.gz")
    printed = fails("evaluate", "--preds", predictions, "--lbls", dataset / "labelsTr")
    assert "phantom_000" in printed
    assert "phantom_002" in printed
    assert MESSAGES[kind] in printed
