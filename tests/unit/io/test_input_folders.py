"""Every entry of an input folder is an image of some case, or is listed with the reason why it is not."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decathlete.errors import ImageError
from decathlete.io import folder_tree
from decathlete.io.folder_tree import HIDDEN, FolderTree, log_unused
from decathlete.io.image_files import cases_of_folder
from decathlete.io.images import find_inputs, image_suffixes, read_image
from dicom_support import write_series


def slices(folder: Path, *names: str) -> Path:
    """Files that start like DICOM."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("IM0", "IM1"):
        (folder / name).write_bytes(bytes(128) + b"DICM" + bytes(20))
    return folder


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def paths(found: dict[str, tuple[Path, ...]], root: Path) -> dict[str, list[str]]:
    return {case_id: [str(p.relative_to(root)) for p in files] for case_id, files in found.items()}


def logged(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("suffix", image_suffixes(slices=False))
def test_dicom_of_any_form_is_used_beside_files_of_every_format(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path, f"a{suffix}")
    slices(tmp_path, "lone.dcm")
    slices(tmp_path / "plain")
    slices(tmp_path / "patient" / "study" / "series")
    slices(tmp_path / "patient" / "study" / "other")
    assert paths(find_inputs(tmp_path), tmp_path) == {
        "a": [f"a{suffix}"],
        "lone": ["lone.dcm"],
        "patient_study_other": ["patient/study/other"],
        "patient_study_series": ["patient/study/series"],
        "plain": ["plain"],
    }


def test_several_slices_beside_other_images_are_one_case(tmp_path: Path) -> None:
    folder = touch(tmp_path / "scans", "a.nii.gz")
    slices(folder, "0.dcm", "IM1")
    assert paths(find_inputs(folder), folder) == {"a": ["a.nii.gz"], "scans": ["."]}


def test_a_folder_of_slices_alone_stays_one_case(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = slices(tmp_path / "CT")
    slices(folder / "derived")
    assert set(find_inputs(folder)) == {"CT"}
    assert "derived (a folder inside a DICOM folder" in logged(caplog)


@pytest.mark.parametrize("level", ["", "patient"])
def test_an_index_or_a_report_does_not_hide_the_series_in_folders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, level: str
) -> None:
    """As an export to a CD has them: DICOMDIR, and a folder for each series; an archive adds reports."""
    folder = tmp_path / level
    write_series(folder / "CT", np.zeros((2, 3, 3), np.int16))
    write_series(folder / "MR", np.zeros((2, 3, 3), np.int16), series="mr")
    slices(folder, "DICOMDIR")
    write_series(folder, np.zeros((1, 3, 3), np.int16), series="report", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    assert set(find_inputs(tmp_path)) == {f"{level}_CT".strip("_"), f"{level}_MR".strip("_")}
    assert "an index of DICOM files" in logged(caplog)
    assert "00_report.dcm" in logged(caplog)


def test_files_of_other_programs_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.nii.gz", "b.zip", "c.img", "d.npy", "e.nii.bz2", "f.mnc", "g.nii.gz.part")
    find_inputs(tmp_path)
    for text in (
        "b.zip (an archive",
        "c.img (Analyze",
        "d.npy (an array without",
        "e.nii.bz2 (NIfTI that",
        "f.mnc (an",
    ):
        assert text in logged(caplog)
    assert "g.nii.gz.part (an unfinished download" in logged(caplog)
    with pytest.raises(ImageError, match="is an archive: unpack it"):
        find_inputs(tmp_path / "b.zip")


REASONS = {
    "notes.txt": "not an image of a known kind",
    "sub": "a folder with images of its own",
    "empty": "a folder without images",
    "gone.nii.gz": "a link that leads nowhere",
    "self.nii.gz": "a link that leads nowhere",
    "pipe.nii.gz": "neither a file nor a folder",
    "up": "a link to a folder above it",
    "back": "a link to a folder above it",
    "series/report.nii.gz": "beside DICOM slices",
    "series/more": "a folder inside a DICOM folder",
    "patient/b.nii.gz": "an image in a subfolder",
    "patient/DICOMDIR.txt": "not an image of a known kind",
    "._a.nii.gz": HIDDEN,
    "series/.DS_Store": HIDDEN,
}


def test_every_other_entry_is_listed_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_tree, "_LISTED", 100)
    folder = touch(tmp_path / "in", "a.nii.gz", "notes.txt", "._a.nii.gz", "m.mhd", "m.raw")
    touch(folder / "sub", "b.nii.gz")
    (folder / "empty").mkdir()
    (folder / "gone.nii.gz").symlink_to("nowhere")
    (folder / "self.nii.gz").symlink_to("self.nii.gz")
    os.mkfifo(folder / "pipe.nii.gz")
    (folder / "up").symlink_to("..")
    (folder / "back").symlink_to(".")
    touch(slices(folder / "series"), "report.nii.gz", ".DS_Store")
    slices(folder / "series" / "more")
    touch(folder / "patient", "b.nii.gz", "DICOMDIR.txt")
    slices(folder / "patient" / "0")
    with caplog.at_level(logging.INFO):
        found = find_inputs(folder)
    assert set(found) == {"a", "m", "series", "patient_0"}
    for name, reason in REASONS.items():
        lines = [r.getMessage() for r in caplog.records if f"({reason}" in r.getMessage()]
        assert any(name in line for line in lines), name
    assert "m.raw" not in logged(caplog)
    assert {r.levelno for r in caplog.records if HIDDEN in r.getMessage()} == {logging.INFO}


def test_a_visible_file_is_warned_about_whatever_its_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log_unused(tmp_path, {tmp_path / "notes.txt": HIDDEN})
        log_unused(tmp_path, {tmp_path / ".notes.txt": "a note"})
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]


def test_an_input_without_images_says_what_it_contains(tmp_path: Path) -> None:
    touch(tmp_path / "nested", "a.nii.gz")
    touch(tmp_path, "notes.txt")
    with pytest.raises(ImageError, match=r"contains no images; not used: nested \(a folder with images.*notes.txt"):
        find_inputs(tmp_path)


def test_two_inputs_of_one_name_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz")
    slices(tmp_path / "a")
    with pytest.raises(ImageError, match="case a comes twice"):
        find_inputs(tmp_path)


@pytest.mark.timeout(30)
def test_deep_trees_end_at_the_limit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.nii.gz")
    slices(tmp_path.joinpath(*["d"] * 8))
    slices(tmp_path.joinpath(*["e"] * 9))
    assert set(find_inputs(tmp_path)) == {"a", "_".join(["d"] * 8)}
    assert "more than 8 folders below the input" in logged(caplog)


@pytest.mark.timeout(30)
def test_links_among_folders_do_not_multiply(tmp_path: Path) -> None:
    """Each of ten folders links to all of them: without ancestors, 10**8 ways."""
    for n in range(4):
        (tmp_path / f"f{n}").mkdir()
    for n in range(4):
        for m in range(4):
            (tmp_path / f"f{n}" / f"l{m}").symlink_to(tmp_path / f"f{m}")
    touch(tmp_path, "a.nii.gz")
    tree = FolderTree(root=tmp_path)
    assert list(tree.files()) == [tmp_path / "a.nii.gz"]
    assert tree.unused


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_without_permission_is_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.nii.gz")
    closed = slices(tmp_path / "closed")
    closed.chmod(0)
    try:
        assert set(find_inputs(tmp_path)) == {"a"}
    finally:
        closed.chmod(0o700)
    assert "Permission denied" in logged(caplog)


def test_a_pipe_is_not_an_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nii.gz")
    for read in (find_inputs, read_image):
        with pytest.raises(ImageError, match="a pipe or a device"):
            read(tmp_path / "a.nii.gz")


ENTRIES = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=3).map("/".join),
    st.sets(st.sampled_from(["x.nii.gz", "y.nrrd", "z.txt", "IM0", "IM1", ".hidden", "w_0000.nii"]), max_size=4),
    max_size=6,
)


@given(ENTRIES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_file_is_used_or_listed(tmp_path_factory: pytest.TempPathFactory, entries: dict[str, set[str]]) -> None:
    root = tmp_path_factory.mktemp("in")
    for place, names in entries.items():
        folder = root / place
        touch(folder, *names)
        for name in names & {"IM0", "IM1"}:
            slices(folder, name)
    tree = FolderTree(root=root)
    failures: dict[str, ImageError] = {}
    cases = cases_of_folder(tree, None, failures)
    assert all("comes twice" in problem.problem for problem in failures.values())
    if failures:
        return
    used = {p for files in cases.values() for p in files}
    for file in (p for p in root.rglob("*") if p.is_file()):
        in_case = file in used or (file.name.startswith("IM") and file.parent in used)
        listed = any(file == p or file.is_relative_to(p) for p in tree.unused)
        assert in_case != listed, file
