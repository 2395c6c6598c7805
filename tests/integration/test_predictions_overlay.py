"""Every prediction overlays its input in two independent readers, nibabel (by sform and by qform) and SimpleITK."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from decathlete.inference.predict import Predictor
from decathlete.inference.predict_files import PredictedFile, predict_files
from decathlete.io.images import read_label
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from factories import make_test_plan

SHAPE_IJK = (12, 14, 10)
VOXELS_IJK = np.random.default_rng(0).integers(1, 900, SHAPE_IJK).astype(np.int16)
CODES = list(product((0, 1, 2, 4), repeat=2))
FLIP = np.diag([-1.0, -1.0, 1.0])


def rotation(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def affine(angle: float, origin: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(angle) @ np.diag([-0.9, 1.1, 1.5])
    matrix[:3, 3] = origin
    return matrix


QFORM, SFORM = affine(0.3, (10, 20, 30)), affine(-0.2, (-3, 4, 5))


def write_nifti(path: Path, qform_code: int, sform_code: int) -> Path:
    image = nibabel.Nifti1Image(VOXELS_IJK, None)
    image.set_qform(QFORM, qform_code)
    image.set_sform(SFORM, sform_code)
    nibabel.save(image, path)
    return path


def write_itk(path: Path) -> Path:
    image = sitk.GetImageFromArray(VOXELS_IJK.transpose(2, 1, 0))
    image.SetSpacing((0.9, 1.1, 1.5))
    image.SetOrigin((-7, 8, 9))
    image.SetDirection(rotation(0.4).ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


def write_dicom(folder: Path) -> Path:
    """Slices of an oblique series, whose names are not in the order of their positions."""
    folder.mkdir()
    directions = rotation(0.4)
    for k in range(SHAPE_IJK[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(k)])
        path = folder / f"{(k * 7) % SHAPE_IJK[2]}.dcm"
        ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID = (generate_uid(entropy_srcs=[name]) for name in ("study", "series"))
        position = np.array((-7, 8, 9)) + 1.5 * k * directions[:, 2]
        ds.ImagePositionPatient = [f"{v:.8g}" for v in position]
        ds.ImageOrientationPatient = [f"{v:.8g}" for v in (*directions[:, 0], *directions[:, 1])]
        ds.PixelSpacing, ds.SliceThickness = [1.1, 0.9], 1.5
        ds.Rows, ds.Columns = SHAPE_IJK[1], SHAPE_IJK[0]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.PixelData = VOXELS_IJK[:, :, k].T.tobytes()
        pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    niftis = {f"q{q}s{s}": write_nifti(folder / f"q{q}s{s}.nii.gz", q, s) for q, s in CODES}
    itk = {name: write_itk(folder / f"x.{name}") for name in ("nrrd", "mha")}
    return niftis | itk | {"dicom": write_dicom(folder / "series")}


@pytest.fixture(scope="module")
def predictions(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, PredictedFile]:
    folder = tmp_path_factory.mktemp("predictions")
    plan = make_test_plan()
    ModelBundle.save(folder / "m", TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)]))
    predictor = Predictor.load(folder / "m", device="cpu", precision="fp32", engine="torch")
    cases = {name: (path,) for name, path in inputs.items()}
    done = predict_files(predictor, cases, folder / "out", save_probabilities=True)
    return {one.case_id: one for one in done}


def itk_grid(path: Path) -> list[np.ndarray]:
    """Origin, spacing and direction as SimpleITK sees them; a folder is a DICOM series, sorted by SimpleITK."""
    if path.is_dir():
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        image = reader.Execute()
    else:
        image = sitk.ReadImage(str(path))
    dims = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(dims, dims)[:3, :3]
    return [np.array(image.GetOrigin()[:3]), np.array(image.GetSpacing()[:3]), direction]


def itk_affine(path: Path) -> np.ndarray:
    origin, spacing, direction = itk_grid(path)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = FLIP @ direction * spacing, FLIP @ origin
    return matrix


@pytest.mark.parametrize("name", [*(f"q{q}s{s}" for q, s in CODES), "nrrd", "mha", "dicom"])
def test_simpleitk_sees_prediction_and_input_at_one_place(inputs, predictions, name: str) -> None:
    prediction = predictions[name]
    probabilities = prediction.path.with_name(f"{name}_probabilities.nii")
    for written in (prediction.path, probabilities):
        for found, expected in zip(itk_grid(written), itk_grid(inputs[name]), strict=True):
            np.testing.assert_allclose(found, expected, atol=2e-4)
    assert read_label(prediction.path).array_ZYX.shape == SHAPE_IJK[::-1]


@pytest.mark.parametrize(("qform_code", "sform_code"), CODES)
def test_nibabel_sees_them_at_one_place_by_either_transform(inputs, predictions, qform_code, sform_code) -> None:
    name = f"q{qform_code}s{sform_code}"
    for path in (predictions[name].path, predictions[name].path.with_name(f"{name}_probabilities.nii")):
        written, read = nibabel.load(path), nibabel.load(inputs[name])
        for method in ("get_qform", "get_sform"):
            np.testing.assert_allclose(getattr(written, method)(), getattr(read, method)(), atol=1e-4)
            assert getattr(written, method)(coded=True)[1] == getattr(read, method)(coded=True)[1]
    warned = "the sform is used" in " ".join(predictions[name].record.warnings)
    assert warned == (qform_code > 0 and sform_code > 0)


def test_a_prediction_of_dicom_lies_there_by_either_transform(inputs, predictions) -> None:
    written = nibabel.load(predictions["dicom"].path)
    for matrix in (written.get_qform(), written.get_sform()):
        np.testing.assert_allclose(matrix, itk_affine(inputs["dicom"]), atol=2e-4)
