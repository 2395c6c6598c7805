"""The message about a missing file names the file that is probably meant."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decathlete.core.nearest_files import nearest_files, nearest_names
from decathlete.errors import ImageError
from decathlete.io.images import read_channels, read_grid, read_image, read_label

NFC, NFD = "Müller_1.nii.gz", unicodedata.normalize("NFD", "Müller_1.nii.gz")

CASES = {
    "channel of nnU-Net": ("a_1.nii.gz", ["a_1_0000.nii.gz", "a_10_0000.nii.gz"], ["a_1_0000.nii.gz"]),
    "no channel": ("a_1_0000.nii.gz", ["a_1.nii.gz", "a_2.nii.gz"], ["a_1.nii.gz"]),
    "label suffix": ("a.nii.gz", ["a_seg.nii.gz", "b_seg.nii.gz"], ["a_seg.nii.gz"]),
    "not compressed": ("a.nii.gz", ["a.nii", "b.nii.gz"], ["a.nii"]),
    "compressed": ("a.nii", ["a.nii.gz"], ["a.nii.gz"]),
    "other format": ("a.nii.gz", ["a.nrrd", "ab.nrrd"], ["a.nrrd"]),
    "no suffix": ("a_1", ["a_1.nii.gz", "a_10.nii.gz"], ["a_1.nii.gz"]),
    "decomposed": (NFC, [NFD], [NFD]),
    "composed": (NFD, [NFC], [NFC]),
    "decomposed channel": (NFC, [NFD.replace("_1", "_1_0000")], [NFD.replace("_1", "_1_0000")]),
    "upper case": ("case.nii.gz", ["CASE.NII.GZ"], ["CASE.NII.GZ"]),
    "misspelt": ("liver_03.nii.gz", ["livr_03.nii.gz", "livr_04.nii.gz"], ["livr_03.nii.gz"]),
    "other channels": (
        "a_1_0001.nii.gz",
        ["a_1_0000.nii.gz", "a_1_0002.nii.gz", "a_2_0001.nii.gz"],
        ["a_1_0000.nii.gz", "a_1_0002.nii.gz"],
    ),
    "another case of a year": ("la_2018_0007.nii.gz", ["la_2018_0008.nii.gz", "la_2018_0020.nii.gz"], []),
    "another case with four digits": ("word_0001.nii.gz", ["word_0002.nii.gz"], []),
    "another case": ("liver_03.nii.gz", ["liver_04.nii.gz"], []),
    "nothing like it": ("a.nii.gz", ["readme.txt"], []),
    "empty folder": ("a.nii.gz", [], []),
    "hidden": ("a.nii.gz", ["._a.nii.gz"], []),
}


@pytest.mark.parametrize(("missing", "present", "expected"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("read", [read_image, read_label, read_grid, lambda path: read_channels([path])])
def test_every_reader_names_the_nearest_file(
    tmp_path: Path, read: object, missing: str, present: list[str], expected: list[str]
) -> None:
    for name in present:
        (tmp_path / name).touch()
    assert nearest_names(tmp_path / missing) == expected
    with pytest.raises(ImageError, match="does not exist") as caught:
        read(tmp_path / missing)  # type: ignore[operator]
    assert caught.value.code == "E-IMAGE-NOT-FOUND"
    assert all(name in caught.value.problem for name in expected)
    assert (caught.value.remedy == "check the path") == (not expected)


def test_names_that_look_alike_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / NFD).touch()
    assert nearest_files(tmp_path / NFC).endswith(
        "with letters in another Unicode form than this name, which is composed (NFC)"
    )
    (tmp_path / "case.nii").touch()
    assert nearest_files(tmp_path / "Case.nii").endswith("which differs in upper and lower case")


def test_upper_case_in_a_name_is_not_an_upper_case_suffix(tmp_path: Path) -> None:
    for present, missing, has_suffix in (("case_01.nii", "Case_01.nii", False), ("a.NII", "a.nii", True)):
        (tmp_path / present).touch()
        with pytest.raises(ImageError) as caught:
            read_grid(tmp_path / missing)
        assert ("file_ending" in str(caught.value.remedy)) == has_suffix
        assert "rename" in str(caught.value.remedy)


def test_a_missing_folder_and_a_broken_link_are_named(tmp_path: Path) -> None:
    (tmp_path / "imagestr").mkdir()
    said = nearest_files(tmp_path / "imagesTr" / "a.nii.gz")
    assert "there is no folder" in said
    assert "contains imagestr" in said
    (tmp_path / "a.nii").symlink_to("gone.nii")
    assert "a link to gone.nii" in nearest_files(tmp_path / "a.nii")
    (tmp_path / "loop.nii").symlink_to("loop.nii")
    assert "leads back to itself" in nearest_files(tmp_path / "loop.nii")


def test_many_names_are_counted(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"a_{number:04d}.nii.gz").touch()
    assert "and 2 more" in nearest_files(tmp_path / "a.nii.gz")


@given(st.text(min_size=1, max_size=30), st.lists(st.text(min_size=1, max_size=30), max_size=8))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_names_give_a_clause(tmp_path: Path, missing: str, names: list[str]) -> None:
    folder = tmp_path / str(abs(hash((missing, *names))))
    folder.mkdir(exist_ok=True)
    usable = [n for n in names if "/" not in n and "\0" not in n and n not in (".", "..")]
    for name in usable:
        try:
            (folder / name).touch()
        except (OSError, UnicodeEncodeError):
            continue
    if "/" not in missing and "\0" not in missing:
        path = folder / missing
        assert nearest_files(path).startswith("; ") == bool(nearest_names(path))
