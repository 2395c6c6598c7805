"""Programs of others that check DICOM objects and read their voxels: dicom3tools, dcmqi, plastimatch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from decathlete.core.geometry import Geometry
from decathlete.io.images import read_image, write_image

OBJECTS = ("Segmentation", "LabelMapSegmentation", "RTStructureSet", "LabelmapSegmentation")
"""What dciodvfy calls an object that it has recognised."""


def find_program(name: str) -> str:
    """Return the path of a program beside Python or on the PATH; without it, the test is skipped."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def dciodvfy_errors(path: Path) -> list[str]:
    """Errors that the checker of dicom3tools finds in an object."""
    done = subprocess.run([find_program("dciodvfy"), "-new", path], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert any(line in OBJECTS for line in lines), f"the object was not checked: {lines}"
    return [line for line in lines if line.startswith("Error")]


def dcmqi_voxels(path: Path, folder: Path, numbers: Sequence[int], geometry: Geometry) -> dict[int, np.ndarray]:
    """Number of each segment -> indices z, y, x (sorted) of its voxels, as dcmqi reads them."""
    folder.mkdir(exist_ok=True)
    command = [find_program("segimage2itkimage"), "--inputDICOM", path, "--outputDirectory", folder]
    subprocess.run([*command, "--outputType", "nrrd"], check=True, capture_output=True)
    return {number: _voxels(folder / f"{number}.nrrd", geometry) for number in numbers}


def plastimatch_voxels(path: Path, series: Path, folder: Path) -> dict[str, np.ndarray]:
    """Name of each structure -> indices z, y, x (sorted) of the voxels that plastimatch fills on the series' grid."""
    folder.mkdir(exist_ok=True)
    image = read_image(series)
    write_image(folder / "grid.nrrd", image.array_CZYX, image.geometry)
    command = [find_program("plastimatch"), "convert", "--input", path, "--referenced-ct", series]
    command += ["--output-prefix", folder / "masks", "--prefix-format", "nrrd", "--fixed", folder / "grid.nrrd"]
    subprocess.run(command, check=True, capture_output=True)
    return {file.stem: _voxels(file, image.geometry) for file in (folder / "masks").glob("*.nrrd")}


def _voxels(path: Path, geometry: Geometry) -> np.ndarray:
    """Indices in ``geometry`` of the voxels of a mask on any part of its grid."""
    import SimpleITK as sitk

    image = sitk.ReadImage(str(path))
    inside = np.argwhere(sitk.GetArrayFromImage(image))
    points = np.array([image.TransformIndexToPhysicalPoint(i[::-1]) for i in inside.tolist()])
    ras = points.reshape(-1, 3) * [-1, -1, 1]
    to_voxels = np.linalg.inv(geometry.matrix)
    return np.unique(np.rint(ras @ to_voxels[:3, :3].T + to_voxels[:3, 3]).astype(int), axis=0)
