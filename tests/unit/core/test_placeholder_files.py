"""Pointers and web pages are named instead of being called damaged."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from decathlete import check
from decathlete.core.files import read_text
from decathlete.core.placeholder_files import find_placeholder, read_placeholder
from decathlete.dataset.manifest import read_dataset
from decathlete.errors import ArchiveError, DatasetError, DecathleteError, ImageError, ManifestError, ModelError
from decathlete.evaluation.evaluate import evaluate
from decathlete.io.images import find_inputs, read_image, read_label
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.transfer.zips import unpack_zip
from decathlete.workflows.convert import convert
from dicom_support import write_series

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"
ANNEX = "../.git/annex/objects/W7/mK/SHA256E-s123--abc.dcm/SHA256E-s123--abc.dcm"
PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>Sign in</body></html>"


def test_what_is_a_placeholder(tmp_path: Path) -> None:
    for content, name in ((POINTER, "Git LFS"), (PAGE, "HTML"), (b"/annex/objects/SHA256-s1--x", "git-annex")):
        found = find_placeholder(content)
        assert found is not None
        assert name in found.problem
    assert find_placeholder(b'{"version": 1}') is None
    assert read_placeholder(tmp_path) is None
    os.mkfifo(tmp_path / "pipe")
    assert read_placeholder(tmp_path / "pipe") is None, "nothing waits for a pipe"
    (tmp_path / "page.html").write_bytes(PAGE)
    assert read_text(tmp_path / "page.html"), "a page may be read"


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".tif", ".mgz", ".dcm"])
def test_images_of_all_formats_that_are_placeholders_are_named(tmp_path: Path, suffix: str) -> None:
    root = make_phantoms(tmp_path / "d", n_cases=2, shape_ZYX=(6, 7, 8), layout="decathlon")
    text = (root / "dataset.json").read_text().replace("imagesTr/phantom_000.nii.gz", f"imagesTr/x{suffix}")
    (root / "dataset.json").write_text(text)
    (root / "imagesTr" / f"x{suffix}").write_bytes(POINTER)
    (problem,) = check(root, workers=1, n_folds=2).errors
    assert "Git LFS" in problem.message
    assert "git lfs pull" in problem.remedy
    with pytest.raises(DatasetError, match=f"x{suffix}: is a pointer of Git LFS.*git lfs pull"):
        convert(root, tmp_path / "out", to="decathlon", suffix=".nii.gz", workers=1)


def test_manifests_that_are_placeholders_are_named(tmp_path: Path) -> None:
    for content, name in ((POINTER, "Git LFS"), (PAGE, "HTML")):
        (tmp_path / "dataset.json").write_bytes(content)
        with pytest.raises(ManifestError, match=name):
            read_dataset(tmp_path)


def as_pointer(path: Path) -> None:
    path.write_bytes(POINTER)


def as_annex_pointer(path: Path) -> None:
    path.write_bytes(b"/annex/objects/SHA256-s1--x\n")


def as_annex_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(ANNEX)


def as_broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere/absent")


ABSENT = {
    as_pointer: ("Git LFS", "git lfs pull"),
    as_annex_pointer: ("git-annex", "datalad get"),
    as_annex_link: ("git-annex", "datalad get"),
}
Hide = Callable[[Path], None]


@pytest.mark.parametrize("hide", ABSENT)
@pytest.mark.parametrize("header", ["header.mhd", "header.nhdr"])
def test_voxels_beside_a_header_are_not_called_damaged(tmp_path: Path, header: str, hide: Hide) -> None:
    import SimpleITK

    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((3, 4, 5), np.int16)), str(tmp_path / header))
    assert read_image(tmp_path / header).geometry.shape_ZYX == (3, 4, 5)
    (voxels,) = (path for path in tmp_path.iterdir() if path.name != header)
    hide(voxels)
    said, remedy = ABSENT[hide]
    with pytest.raises(ImageError, match=f"(?s){voxels.name}: .*{said}.*{remedy}"):
        read_image(tmp_path / header)


@pytest.mark.parametrize("hide", [*ABSENT, as_broken_link])
@pytest.mark.parametrize("name", ["I{}.dcm", "I{}", "1.2.840.{}"])
def test_a_series_without_its_last_slice_is_an_error(tmp_path: Path, name: str, hide: Hide) -> None:
    """The other slices would be a smaller image with even distances."""
    folder = write_series(tmp_path / "series", np.zeros((4, 3, 3), np.int16))
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / name.format(number))
    assert read_image(folder).geometry.shape_ZYX[0] == 4
    last = folder / name.format(3)
    hide(last)
    said, remedy = ABSENT.get(hide, ("elsewhere/absent", ""))
    with pytest.raises(ImageError, match=f"(?s){last.name}: .*{said}.*{remedy}"):
        read_image(folder)
    cases = find_inputs(folder)
    assert list(cases) == ["series"], "the series stays one case, which fails"


@pytest.mark.parametrize("hide", ABSENT)
def test_files_of_a_folder_that_were_not_downloaded_fail_or_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, hide: Hide
) -> None:
    root = make_phantoms(tmp_path / "d", n_cases=3, shape_ZYX=(6, 7, 8))
    folder = root / "imagesTr"
    hide(folder / "phantom_001.nii.gz")
    (folder / "I0001").write_bytes(b"x")
    hide(folder / "I0001")
    said, remedy = ABSENT[hide]
    with caplog.at_level("WARNING"):
        cases = find_inputs(folder)
    assert list(cases) == ["phantom_000", "phantom_001", "phantom_002"]
    with pytest.raises(ImageError, match=f"(?s){said}.*{remedy}"):
        read_image(*cases["phantom_001"])
    assert f"I0001 (a {'link' if hide is as_annex_link else 'pointer'} of {said}" in caplog.text
    hide(root / "labelsTr" / "phantom_002.nii.gz")
    with pytest.raises(DatasetError, match=f"(?s)phantom_002.*{said}.*{remedy}"):
        evaluate(root / "labelsTr", root / "labelsTr")


@pytest.mark.parametrize("hide", ABSENT)
def test_models_and_archives_that_are_placeholders_are_named(tmp_path: Path, hide: Hide) -> None:
    from decathlete.interop.safe_checkpoint import load_untrusted_checkpoint
    from decathlete.models.weights import read_weights

    path = tmp_path / "model"
    path.write_bytes(b"x")
    hide(path)
    said, remedy = ABSENT[hide]
    readers: list[tuple[Callable[[], object], type[DecathleteError]]] = [
        (lambda: load_untrusted_checkpoint(path), ModelError),
        (lambda: read_weights(path), ModelError),
        (lambda: read_text(path, error=ManifestError), ManifestError),
        (lambda: read_label(path), ImageError),
    ]
    if hide is not as_annex_link:
        readers.append((lambda: unpack_zip(path, tmp_path / "out", limit_bytes=9), ArchiveError))
    for read, kind in readers:
        with pytest.raises(kind, match=f"(?s){said}.*{remedy}"):
            read()
