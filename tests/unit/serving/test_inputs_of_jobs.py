"""Uploads of several DICOM series: the series of the model's channels are chosen as by `predict`."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from decathlete.errors import ImageError
from decathlete.io.images import read_channels
from decathlete.serving.inputs import ReceivedFile, make_image
from dicom_support import write_enhanced, write_series
from service_support import image_bytes

VOXELS = np.random.default_rng(0).normal(0, 300, (6, 16, 18)).astype(np.int16)


def upload(folder: Path, *sources: Path) -> list[ReceivedFile]:
    """The files of folders as they arrive: under numbers, all from one folder of the sender."""
    folder.mkdir(parents=True)
    files = [file for source in sources for file in sorted(source.rglob("*.dcm"))]
    received = [ReceivedFile(name=f"Doe Jane/{file.name}", path=folder / str(k)) for k, file in enumerate(files)]
    for file, one in zip(files, received, strict=True):
        one.path.write_bytes(file.read_bytes())
    return received


@pytest.fixture
def study(tmp_path: Path) -> list[Path]:
    """A localizer, a CT, and a PET of the same grid."""
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "series": "scout"}
    return [
        write_series(tmp_path / "scout", VOXELS[:1], **scout),
        write_series(tmp_path / "ct", VOXELS, series="ct"),
        write_series(tmp_path / "pet", VOXELS // 2, series="pet", modality="PT"),
    ]


@pytest.mark.parametrize(
    ("channels", "n_series", "left_out"),
    [
        (("CT",), 1, ("6 files (series 3: PT, axial, 6 slices: not what the model segments)",)),
        (("CT", "PET"), 2, ()),
    ],
)
def test_the_series_of_the_channels_are_chosen_and_others_are_listed(
    study, tmp_path, channels, n_series, left_out
) -> None:
    files = upload(tmp_path / "up" / "in", *study)
    image = make_image(files, tmp_path / "up", channels=channels, image_bytes=10**9)
    paths = sorted(image.folder.iterdir())
    assert image.kind == "dicom"
    assert image.warnings == tuple(f"not used: {text}" for text in ("1 file (a localizer)", *left_out))
    np.testing.assert_array_equal(read_channels(paths).array_CZYX, np.stack([VOXELS, VOXELS // 2][:n_series]))
    kept = [file for path in paths for file in path.iterdir()]
    assert len(kept) == 6 * n_series
    assert not any(file.is_symlink() for file in kept)  # the folder can be moved


def test_a_file_with_all_frames_is_chosen_from_a_study(study, tmp_path) -> None:
    write_enhanced(tmp_path / "enhanced" / "a.dcm", VOXELS[:5])
    image = make_image(
        upload(tmp_path / "up" / "in", study[0], tmp_path / "enhanced"),
        tmp_path / "up",
        channels=("CT",),
        image_bytes=10**9,
    )
    np.testing.assert_array_equal(read_channels(sorted(image.folder.iterdir())).array_CZYX, VOXELS[None, :5])


@pytest.mark.parametrize(
    ("channels", "problem"),
    [(("T1", "FLAIR"), "no series of a study fits the channel T1"), (("image",), "contains 2 images")],
)
def test_a_choice_that_is_not_clear_is_an_error(study, tmp_path, channels, problem) -> None:
    with pytest.raises(ImageError, match=problem) as caught:
        make_image(upload(tmp_path / "up" / "in", *study), tmp_path / "up", channels=channels, image_bytes=10**9)
    assert "--series" not in str(caught.value)


def test_what_is_no_image_is_described_without_names_of_the_service(tmp_path) -> None:
    (tmp_path / "0").write_bytes(b"hello " * 100)
    (tmp_path / "up").mkdir()
    files = [ReceivedFile(name="notes.txt", path=tmp_path / "0")]
    with pytest.raises(ImageError, match="the upload contains no image of a known kind") as caught:
        make_image(files, tmp_path / "up", channels=("CT",), image_bytes=10**9)
    assert caught.value.code == "E-IMAGE-NOT-FOUND"
    assert "series_" not in str(caught.value)


def test_what_lies_beside_an_image_in_an_archive_is_listed_without_its_name(tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    archive = ReceivedFile(name="a.zip", path=tmp_path / "up" / "0")
    with zipfile.ZipFile(archive.path, "w") as packed:
        packed.writestr("Doe Jane/scan.nii.gz", image_bytes((6, 7, 8)))
        packed.writestr("Doe Jane/Doe Jane.txt", "hello " * 100)
        packed.writestr("Doe Jane/.DS_Store", "hidden")
    image = make_image([archive], tmp_path / "up", channels=("CT",), image_bytes=10**9)
    assert len(image.warnings) == 1
    assert image.warnings[0].startswith("not used: 1 file (")
    assert "Doe" not in image.warnings[0]


@pytest.mark.parametrize("is_zip", [False, True])
def test_two_files_of_one_channel_are_an_error(tmp_path: Path, is_zip: bool) -> None:
    names = [f"{folder}/x_0000.nii.gz" for folder in ("pre", "post")]
    files = [ReceivedFile(name=name, path=tmp_path / str(number)) for number, name in enumerate(names)]
    for number, file in enumerate(files):
        file.path.write_bytes(image_bytes((6, 7, 8), seed=number))
    if is_zip:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
            for name, file in zip(names, files, strict=True):
                packed.write(file.path, name)
        files = [ReceivedFile(name="a.zip", path=tmp_path / "a.zip")]
    with pytest.raises(ImageError, match="two files have the same channel") as caught:
        make_image(files, tmp_path, channels=("CT",), image_bytes=10**9)
    assert caught.value.code == "E-IMAGE-CHANNELS"
