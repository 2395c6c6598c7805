"""Images of several files: all of them count in digests, none is reported as unused, and conversions keep them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from decathlete.core.files import file_digest
from decathlete.core.labels import LabelSet
from decathlete.dataset.conversion.folders import Folders, find_cases
from decathlete.dataset.conversion.jobs import WriteImage
from decathlete.dataset.conversion.run import digest_jobs
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.dataset.unused_files import unused_files
from decathlete.errors import ImageError
from decathlete.inference.output.provenance import image_digest, inputs_digest
from decathlete.io.format_lookup import files_of
from decathlete.io.images import find_inputs, read_grid
from decathlete.planning.plan import Plan
from decathlete.preprocessing import write
from decathlete.workflows.convert import convert
from dicom_support import write_series

SHAPE = (4, 5, 6)


def write_mhd(folder: Path) -> tuple[Path, Path]:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros(SHAPE, np.int16)), str(folder / "a.mhd"))
    return folder / "a.mhd", folder / "a.raw"


def write_mhd_with_other_stem(folder: Path) -> tuple[Path, Path]:
    header, voxels = write_mhd(folder)
    header.write_text(header.read_text().replace("a.raw", "voxels.dat"))
    return header, voxels.rename(folder / "voxels.dat")


def write_nhdr(folder: Path) -> tuple[Path, Path]:
    header, voxels = folder / "a.nhdr", folder / "b.raw"
    lines = ("NRRD0004", "type: uint8", "dimension: 3", "sizes: 6 5 4", "spacings: 1 1 1", "encoding: raw")
    header.write_text("\n".join((*lines, "data file: b.raw", "")))
    voxels.write_bytes(bytes(120))
    return header, voxels


def write_tiff(folder: Path) -> tuple[Path, Path]:
    tifffile.imwrite(folder / "a_0000.tif", np.zeros(SHAPE, np.uint8), photometric="minisblack", metadata=None)
    (folder / "a.json").write_text('{"spacing": [2.5, 0.7, 0.5]}')
    return folder / "a_0000.tif", folder / "a.json"


def write_dicom(folder: Path) -> tuple[Path, Path]:
    write_series(folder / "ct", np.zeros((3, 4, 5), np.int16))
    return folder / "ct", sorted((folder / "ct").iterdir())[1]


WRITERS = [write_mhd, write_mhd_with_other_stem, write_nhdr, write_tiff, write_dicom]


def spec_of(path: Path) -> DatasetSpec:
    case = Case(id="a", images=(path,))
    return DatasetSpec(
        name="d",
        root=path.parent,
        layout="folders",
        channels=("x",),
        labels=LabelSet.from_names(["c"]),
        cases=(case,),
    )


def change_in_place(path: Path) -> None:
    """Change the last byte, but not the size; the folder of the file does not change."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + (b" " if content.endswith(b"}") else bytes([content[-1] ^ 1])))
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("make", WRITERS)
def test_every_digest_follows_all_files_of_an_image(
    tmp_path: Path, make: Callable[[Path], tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "preparation_digest", lambda plan: "plan")
    path, part = make(tmp_path)
    assert part in files_of(path)

    def digests() -> list[str]:
        case = Case(id="a", images=(path,))
        job = WriteImage(sources=(path,), targets=(tmp_path / "new.mha",), geometry=read_grid(path)[1])
        conversion = digest_jobs([job], tmp_path, [])
        return [
            inputs_digest([path]),
            spec_of(path).digest(),
            write.case_digest(case, Plan.model_construct()),
            conversion,
        ]

    before = digests()
    assert digests() == before
    if part.suffix == ".json":
        part.write_text('{"spacing": [2.5, 0.7, 0.6]}')
    else:
        change_in_place(part)
    assert all(new != old for new, old in zip(digests(), before, strict=True))


def test_the_digest_of_an_image_in_one_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    for name in ("a.mha", "a.nii.gz", "a.nrrd"):
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros(SHAPE, np.int16)), str(tmp_path / name))
        assert image_digest(tmp_path / name) == file_digest(tmp_path / name)
    assert files_of(tmp_path / "missing.mhd") == (tmp_path / "missing.mhd",)


@pytest.mark.parametrize("make", WRITERS[:4])
def test_no_part_of_an_image_is_reported_as_unused(
    tmp_path: Path, make: Callable[[Path], tuple[Path, Path]], caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        image, _ = make(tmp_path / folder)
        label = image.rename(image.with_name(image.name.replace("_0000", "")))
    manifest = {
        "labels": {"0": "background", "1": "x"},
        "modality": {"0": "MR"},
        "training": [{"image": f"imagesTr/{image.name}", "label": f"labelsTr/{label.name}"}],
    }
    (tmp_path / "imagesTr" / label.name).rename(tmp_path / "imagesTr" / image.name)
    (tmp_path / "dataset.json").write_text(json.dumps(manifest))
    assert unused_files(read_dataset(tmp_path)) == {}
    (tmp_path / "imagesTr" / "other.raw").touch()
    assert {path.name for path in unused_files(read_dataset(tmp_path))} == {"other.raw"}
    (tmp_path / "imagesTr" / "other.raw").unlink()
    channels = {"x": "_0000" if "_0000" in image.name else None}
    folders = Folders(root=tmp_path, images=Path("imagesTr"), labels=Path("labelsTr"), channels=channels)
    assert len(find_cases(folders)[0]) == 1
    find_inputs(tmp_path / "imagesTr")
    assert "not used" not in caplog.text


@pytest.mark.parametrize("to", ["nnunet", "decathlon"])
def test_a_conversion_keeps_the_spacing_beside_a_tiff(tmp_path: Path, to: str) -> None:
    root = tmp_path / "d"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
        write_tiff(root / folder)
    (root / "labelsTr" / "a_0000.tif").rename(root / "labelsTr" / "a.tif")
    manifest = {
        "channel_names": {"0": "EM"},
        "labels": {"background": 0, "x": 1},
        "numTraining": 1,
        "file_ending": ".tif",
    }
    (root / "dataset.json").write_text(json.dumps(manifest))
    convert(root, tmp_path / "Dataset007_X", to=to, copy=True, workers=1)
    (case,) = read_dataset(tmp_path / "Dataset007_X").cases
    assert case.label is not None
    for path in (*case.images, case.label):
        assert read_grid(path)[1].spacing_ZYX == pytest.approx((2.5, 0.7, 0.5))
        assert not path.is_symlink()
    assert unused_files(read_dataset(tmp_path / "Dataset007_X")) == {}


@pytest.mark.parametrize("spacing", ["[1, 1]", '"1 1 1"', "[0, 1, 1]", "[1, 1, true]", "[1, 1, NaN]", "null", "2.5"])
def test_a_spacing_beside_a_tiff_that_cannot_be_used_is_an_error(tmp_path: Path, spacing: str) -> None:
    path, sidecar = write_tiff(tmp_path)
    sidecar.write_text(f'{{"spacing": {spacing}}}')
    with pytest.raises(ImageError) as error:
        read_grid(path)
    assert sidecar.name in str(error.value)
