"""The distribution: it builds, its metadata is valid, and the wheel works alone in an empty environment."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from decathlete.version import __version__

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.full, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT))
    return folder


@pytest.fixture(scope="module")
def environment(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an empty environment into which only the wheel was installed."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", str(folder))
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    (wheel,) = dist.glob("*.whl")
    run(str(programs / "python"), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel))
    return programs


def test_metadata_is_valid(dist: Path) -> None:
    assert sorted(path.name for path in dist.iterdir()) == [
        f"decathlete-{__version__}-py3-none-any.whl",
        f"decathlete-{__version__}.tar.gz",
    ]
    run(sys.executable, "-m", "twine", "check", "--strict", *map(str, dist.iterdir()))


def test_it_holds_the_whole_package_and_nothing_else(dist: Path) -> None:
    source = ROOT / "src"
    expected = {
        path.relative_to(source).as_posix()
        for path in (source / "decathlete").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    (wheel,), (archive,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as opened:
        assert {name for name in opened.namelist() if ".dist-info/" not in name} == expected
    with tarfile.open(archive) as opened:
        members = {name.partition("/")[2] for name in opened.getnames()}
    assert {f"src/{name}" for name in expected} <= members
    assert {name.partition("/")[0] for name in members} == {
        "src", "README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "constraints.txt", "pyproject.toml", "PKG-INFO",
        ".gitignore",
    }  # fmt: skip


def test_the_command_runs_in_an_empty_environment(environment: Path, tmp_path: Path) -> None:
    command = str(environment / "decathlete")
    assert run(command, "--version", cwd=tmp_path).strip() == f"decathlete {__version__}"
    assert "run" in run(command, "--help", cwd=tmp_path)
    make = "from phantoms_script import make; make()"
    (tmp_path / "phantoms_script.py").write_text(MAKE_PHANTOMS)
    run(str(environment / "python"), "-c", make, cwd=tmp_path)
    assert "no problems found" in run(command, "check", "Phantoms", cwd=tmp_path)
    short = ["--epochs", "1", "--steps-per-epoch", "2", "--set", "network.features=4,8,16", "--device", "cpu"]
    assert "mean Dice" in run(command, "run", "Phantoms", *short, cwd=tmp_path)
    assert (tmp_path / "results" / "Phantoms" / "3d" / "fold_0" / "report.html").is_file()


MAKE_PHANTOMS = '''
"""Write a small dataset of bright spheres in noise, without the package."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np


def make():
    root = Path("Phantoms")
    random = np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for case in range(5):
        place = np.indices((20, 20, 16)) - random.uniform(7, 10, (3, 1, 1, 1))
        label = (np.sqrt((place**2).sum(0)) < 4).astype(np.uint8)
        image = (label * 100 + random.normal(0, 10, label.shape)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.eye(4)), root / "imagesTr" / f"case{case}_0000.nii.gz")
        nib.save(nib.Nifti1Image(label, np.eye(4)), root / "labelsTr" / f"case{case}.nii.gz")
    manifest = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "sphere": 1},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(manifest))
'''


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a program without our PYTHONPATH; return what it prints."""
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=outside, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
