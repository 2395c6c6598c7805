"""Which files are cases, and which belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

from decathlete.dataset.conversion.folders import Folders, find_cases
from decathlete.errors import DatasetError, ImageError
from decathlete.io.images import find_inputs, image_suffixes, output_suffix, strip_suffix


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def names(found: dict[str, tuple[Path, ...]]) -> dict[str, list[str]]:
    return {case_id: [p.name for p in files] for case_id, files in found.items()}


@pytest.mark.parametrize("suffix", image_suffixes())
def test_suffixes_come_off(suffix) -> None:
    assert strip_suffix(f"case.1{suffix}") == "case.1"
    assert strip_suffix(f"case.1{suffix.upper()}") == "case.1"


def test_other_names_stay() -> None:
    assert strip_suffix("IM0001") == "IM0001"


def test_channels_of_one_case_come_together_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "a_0001.nii.gz", "a_0000.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz", ".hidden.nii.gz", "notes.txt")
    expected = {"a": ["a_0000.nii.gz", "a_0001.nii.gz"], "b": ["b_0000.nii.gz", "b_0001.nii.gz"]}
    assert names(find_inputs(tmp_path)) == expected
    assert names(find_inputs(tmp_path, n_channels=2)) == expected
    assert names(find_inputs(tmp_path / "a_0000.nii.gz")) == {"a": expected["a"]}
    assert names(find_inputs(tmp_path / "a_0000.nii.gz", n_channels=1)) == {"a": ["a_0000.nii.gz"]}


def test_numbers_without_a_first_channel_belong_to_the_name(tmp_path: Path) -> None:
    touch(tmp_path, "patient_2013.nii.gz", "patient_2014.nrrd")
    assert set(find_inputs(tmp_path)) == {"patient_2013", "patient_2014"}


def test_with_one_channel_every_file_is_a_case(tmp_path: Path) -> None:
    touch(tmp_path, "case_0000.nii.gz", "case_0001.nii.gz")
    assert set(find_inputs(tmp_path, n_channels=1)) == {"case_0000", "case_0001"}
    (tmp_path / "case_0001.nii.gz").unlink()
    assert set(find_inputs(tmp_path, n_channels=1)) == {"case"}


def test_one_case_in_two_files_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "a.nrrd")
    with pytest.raises(ImageError, match="comes twice"):
        find_inputs(tmp_path)


@pytest.mark.parametrize("make", [lambda p: p / "missing", lambda p: touch(p / "empty"), lambda p: touch(p, "x.txt")])
def test_nothing_to_find_says_so(tmp_path: Path, make) -> None:
    with pytest.raises(ImageError) as caught:
        find_inputs(make(tmp_path))
    assert caught.value.remedy


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "x.txt")
    with pytest.raises(ImageError, match="known kind"):
        find_inputs(tmp_path / "x.txt")


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("x.nii.gz", ".nii.gz"), ("x.NII", ".nii"), ("x.nrrd", ".nrrd"), ("x.mhd", ".mha"), ("x.dcm", ".nii.gz")],
)
def test_predictions_are_of_the_inputs_kind(name, suffix) -> None:
    assert output_suffix(Path(name)) == suffix


def test_only_files_of_one_name_are_cases_of_their_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "p_0000.nii.gz", "q_0000.nii.gz", "q_0001.nii.gz")
    assert set(find_inputs(tmp_path, n_channels=1)) == {"p", "q_0000", "q_0001"}
    assert "q_0000.nii.gz, q_0001.nii.gz" in caplog.text
    assert "p_0000" not in caplog.text


def test_a_gap_in_the_channels_fails_its_case_alone(tmp_path: Path) -> None:
    touch(tmp_path, "p_0000.nii.gz", "p_0002.nii.gz", "q_0000.nii.gz", "q_0001.nii.gz")
    failures: dict[str, ImageError] = {}
    assert set(find_inputs(tmp_path, n_channels=2, failures=failures)) == {"q"}
    assert "no file p_0001" in str(failures["p"])
    for path in (tmp_path, tmp_path / "p_0000.nii.gz"):
        with pytest.raises(ImageError, match="no file p_0001"):
            find_inputs(path, n_channels=2)


def test_a_gap_in_the_channels_of_plain_folders_is_listed(tmp_path: Path) -> None:
    touch(tmp_path / "images", "p_0000.nii.gz", "p_0002.nii.gz", "q_0000.nii.gz", "q_0001.nii.gz")
    touch(tmp_path / "labels", "p.nii.gz", "q.nii.gz")
    folders = Folders(root=tmp_path, images=Path("images"), labels=Path("labels"), channels={"T1": None, "T2": None})
    with pytest.raises(DatasetError, match="no file p_0001") as error:
        find_cases(folders)
    assert "has no image" not in str(error.value)


def test_two_files_of_one_case_fail_it_alone(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "a.nii", "b.nii.gz")
    failures: dict[str, ImageError] = {}
    assert set(find_inputs(tmp_path, n_channels=1, failures=failures)) == {"b"}
    assert "a comes twice" in str(failures["a"])
