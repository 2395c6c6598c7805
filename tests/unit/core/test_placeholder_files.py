"""Pointers and web pages are named instead of being called damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from decathlete import check
from decathlete.core.files import read_text
from decathlete.core.placeholder_files import find_placeholder, read_placeholder
from decathlete.dataset.manifest import read_dataset
from decathlete.errors import DatasetError, ManifestError
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.workflows.convert import convert

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"
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
