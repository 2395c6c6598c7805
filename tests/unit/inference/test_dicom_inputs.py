"""Mixed DICOM folders: which series are segmented, what is skipped and said, and channels from several series."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from decathlete.errors import ImageError, OptionError
from decathlete.inference.dicom_inputs import choose_series
from decathlete.io.dicom_series import find_series, stage_series
from decathlete.io.images import find_inputs, read_grid, read_image
from decathlete.io.series_rules import SeriesRule, default_rules, parse_series_rules
from dicom_support import CORONAL, SAGITTAL, write_enhanced, write_series

ZEROS = np.zeros((5, 6, 7), np.int16)


def choose(root: Path, links: Path, channels: tuple[str, ...] = ("CT",), rules: tuple[str, ...] = ()) -> Any:
    cases = find_inputs(root, n_channels=len(channels))
    return choose_series(cases, channels, root, rules=rules, make_folder=lambda name: links / name)


def shapes(chosen: Any) -> dict[str, list[tuple[int, ...]]]:
    return {case_id: [read_grid(path)[1].shape_ZYX for path in paths] for case_id, paths in chosen.items()}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """One folder with a CT, a localizer in the same series, a capture, a segmentation and an MR."""
    folder = tmp_path / "mixed"
    write_series(folder, ZEROS, series="ct", SeriesNumber=4)
    write_series(folder, ZEROS[:1], series="ct2", SeriesInstanceUID=find_series(folder).series[0].series_uid)
    write_series(folder, ZEROS[:2], series="loc", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(folder, ZEROS[:1], series="cap", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    write_series(folder, ZEROS[:1], series="seg", SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    write_series(folder, ZEROS[:3], series="mr", modality="MR", orientation=SAGITTAL, SeriesNumber=9)
    (folder / "0_ct2.dcm").unlink(missing_ok=True)
    for file in folder.glob("*_ct2.dcm"):
        file.unlink()
    return folder


def test_a_mixed_folder_gives_the_series_of_the_modality(mixed: Path, tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        chosen = choose(mixed, tmp_path / "links")
    assert shapes(chosen) == {"mixed": [(5, 6, 7)]}
    for reason in ("a localizer", "a secondary capture", "a segmentation", "series 9: MR, sagittal, 3 slices"):
        assert reason in caplog.text
    assert "Müller" not in caplog.text


def test_a_folder_of_one_series_is_read_in_its_place(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", ZEROS)
    assert choose(folder, tmp_path / "links") == {"s": (folder,)}
    assert not (tmp_path / "links").exists()


def test_files_with_all_frames_and_without_a_number_keep_their_names(tmp_path: Path) -> None:
    for name in ("first", "second"):
        path = write_enhanced(tmp_path / "in" / f"{name}.dcm", ZEROS)
        header = pydicom.dcmread(path)
        del header.SeriesNumber
        header.save_as(path, enforce_file_format=True)
    assert set(choose(tmp_path / "in", tmp_path / "links")) == {"in_first", "in_second"}


def test_every_series_that_fits_is_a_case(tmp_path: Path) -> None:
    write_series(tmp_path / "in", ZEROS, series="a", SeriesNumber=2)
    write_series(tmp_path / "in", ZEROS[:4], series="b", SeriesNumber=3)
    write_enhanced(tmp_path / "in" / "e.dcm", ZEROS[:4])
    found = shapes(choose(tmp_path / "in", tmp_path / "links"))
    assert sorted(shape[0] for (shape,) in found.values()) == [4, 4, 5]
    assert {"in_2", "in_3"} <= set(found)


@pytest.mark.parametrize("change", [{"Rows": [5, 5]}, {"SeriesNumber": "--5"}, {"SeriesNumber": "9" * 5000}])
def test_a_damaged_header_concerns_only_its_file(tmp_path: Path, change: dict[str, Any]) -> None:
    write_series(tmp_path / "in", ZEROS, series="a")
    write_series(tmp_path / "in", ZEROS[:1], series="odd")
    (path,) = (tmp_path / "in").glob("*_odd.dcm")
    dataset = pydicom.dcmread(path)
    with pydicom.config.disable_value_validation():
        for name, value in change.items():
            dataset[name]._value = value
        dataset.save_as(path)
    assert max(series.n_slices for series in find_series(tmp_path / "in").series) == 5


@pytest.mark.parametrize("place", [0, 4])
def test_a_slice_that_cannot_be_read_is_not_left_out(tmp_path: Path, place: int) -> None:
    """Without its first or last slice, the series would be another, shorter image."""
    write_series(tmp_path / "in", ZEROS)
    (tmp_path / "in" / f"{place * 7:02d}_series.dcm").write_bytes(b"")
    chosen = choose(tmp_path / "in", tmp_path / "links")
    assert chosen == {"in": (tmp_path / "in",)}
    with pytest.raises(ImageError, match=f"{place * 7:02d}_series.dcm"):
        read_image(tmp_path / "in")


@pytest.mark.parametrize("damage", ["empty", "truncated", "no rows"])
def test_a_slice_that_cannot_be_read_fails_the_series_that_is_chosen(tmp_path: Path, damage: str) -> None:
    write_series(tmp_path / "in", ZEROS, series="ct", SeriesNumber=1)
    write_series(tmp_path / "in", ZEROS, series="pt", modality="PT", SeriesNumber=2)
    path = tmp_path / "in" / "28_ct.dcm"
    if damage == "no rows":
        dataset = pydicom.dcmread(path)
        del dataset.Rows
        dataset.save_as(path)
    else:
        path.write_bytes(path.read_bytes()[:400] if damage == "truncated" else b"")
    ((folder,),) = choose(tmp_path / "in", tmp_path / "links").values()
    with pytest.raises(ImageError, match=r"28_ct\.dcm"):
        read_image(folder)


def test_an_object_that_is_skipped_is_not_damaged(tmp_path: Path) -> None:
    write_series(tmp_path / "in", ZEROS, series="a")
    write_series(tmp_path / "in", ZEROS[:1], series="seg", SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    (path,) = (tmp_path / "in").glob("*_seg.dcm")
    dataset = pydicom.dcmread(path)
    with pydicom.config.disable_value_validation():
        dataset["SeriesNumber"]._value = "--5"
        dataset.save_as(path)
    scan = find_series(tmp_path / "in")
    assert (scan.damaged, list(scan.skipped)) == (frozenset(), [path])


def test_slices_of_other_directions_in_a_series_are_left_out(tmp_path: Path) -> None:
    write_series(tmp_path / "in", ZEROS, series="a")
    uid = find_series(tmp_path / "in").series[0].series_uid
    write_series(tmp_path / "in", ZEROS[:1], series="scout", SeriesInstanceUID=uid, orientation=CORONAL)
    assert shapes(choose(tmp_path / "in", tmp_path / "links")) == {"in": [(5, 6, 7)]}


def test_rules_choose_by_description_orientation_and_slices(tmp_path: Path) -> None:
    write_series(tmp_path / "in", ZEROS, series="a", SeriesDescription="Thorax venous")
    write_series(tmp_path / "in", ZEROS[:2], series="b", SeriesDescription="thorax thin")
    write_series(tmp_path / "in", ZEROS, series="c", SeriesDescription="Thorax MPR", orientation=CORONAL)
    rule = "modality:ct,description:*thorax*,orientation:axial,slices:3"
    assert len(choose(tmp_path / "in", tmp_path / "links", rules=(rule,))) == 1
    with pytest.raises(ImageError, match=r"no DICOM series to segment.*axial, 5 slices.*\n.*--series"):
        choose(tmp_path / "in", tmp_path / "other", rules=("slices:6",))


def test_channels_come_from_the_series_of_a_study(tmp_path: Path) -> None:
    for patient in ("A", "B"):
        for modality, n in (("CT", 5), ("PT", 5), ("CT", 2)):
            series = f"{patient}{modality}{n}"
            folder = tmp_path / "in" / patient / series
            write_series(folder, ZEROS[:n], series=series, study=patient, modality=modality)
    chosen = choose(tmp_path / "in", tmp_path / "links", ("CT", "PET"))
    assert shapes(chosen) == {"A": [(5, 6, 7)] * 2, "B": [(5, 6, 7)] * 2}
    assert [path.name for path in chosen["A"]] == ["ACT5", "APT5"]
    with pytest.raises(ImageError, match=r"no series of a study fits the channel MR(.|\n)*--series 'MR="):
        choose(tmp_path / "in", tmp_path / "links", ("CT", "MR"))


def test_a_study_without_a_channel_fails_alone(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for patient, modalities in (("A", ("CT", "PT")), ("B", ("CT",))):
        for modality in modalities:
            write_series(root / patient / modality, ZEROS, series=patient + modality, study=patient, modality=modality)
    failures: dict[str, ImageError] = {}
    links = tmp_path / "links"
    chosen = choose_series(
        find_inputs(root, n_channels=2), ("CT", "PET"), root, make_folder=lambda name: links / name, failures=failures
    )
    assert set(chosen) == {"A"}
    (case_id,) = failures
    assert case_id.startswith("B")
    assert failures[case_id].where == root / "B" / "CT"


def move_every_second(folder: Path, other: Path) -> None:
    other.mkdir(parents=True)
    for path in folder.iterdir():
        if int(pydicom.dcmread(path).InstanceNumber) % 2:
            path.rename(other / path.name)


def test_parts_of_one_series_in_several_folders_fail(tmp_path: Path) -> None:
    root = tmp_path / "in"
    move_every_second(write_series(root / "A", ZEROS, series="s"), root / "B")
    write_series(root / "C", ZEROS, series="other")
    failures: dict[str, ImageError] = {}
    chosen = choose_series(find_inputs(root), ("CT",), root, make_folder=lambda name: root / name, failures=failures)
    assert shapes(chosen) == {"C": [(5, 6, 7)]}
    assert set(failures) == {"A", "B"}
    with pytest.raises(ImageError, match=r"several folders: A \(2 slices\), B \(3 slices\)"):
        choose(root, tmp_path / "links")


def test_copies_of_a_series_are_images(tmp_path: Path) -> None:
    for name in ("A", "B"):
        write_series(tmp_path / "in" / name, ZEROS, series="s")
    assert shapes(choose(tmp_path / "in", tmp_path / "links")) == {"A": [(5, 6, 7)], "B": [(5, 6, 7)]}


def test_a_moved_copy_of_a_series_is_an_image(tmp_path: Path) -> None:
    """Its slices have other positions, but the identifiers of the original."""
    original, moved = (write_series(tmp_path / "in" / name, ZEROS, series="s") for name in ("A", "B"))
    for path, copy in zip(sorted(original.iterdir()), sorted(moved.iterdir()), strict=True):
        dataset = pydicom.dcmread(copy)
        dataset.SOPInstanceUID = pydicom.dcmread(path).SOPInstanceUID
        dataset.ImagePositionPatient = [x + 0.25 for x in dataset.ImagePositionPatient]
        dataset.save_as(copy)
    assert shapes(choose(tmp_path / "in", tmp_path / "links")) == {"A": [(5, 6, 7)], "B": [(5, 6, 7)]}


def test_slices_with_equal_names_in_two_folders_are_staged_beside_each_other(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "in" / "A", ZEROS, series="s")
    move_every_second(folder, tmp_path / "in" / "B")
    for part in (folder, tmp_path / "in" / "B"):
        for number, path in enumerate(sorted(part.iterdir())):
            path.rename(part / f"IM{number}.dcm")
    before = {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.dcm")}
    (series,) = find_series(tmp_path / "in").series
    staged = stage_series(series, tmp_path / "staged")
    assert read_grid(staged)[1].shape_ZYX == (5, 6, 7)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("wobble", [1e-5, 3e-3])
def test_directions_that_are_rounded_differently_do_not_split_a_series(tmp_path: Path, wobble: float) -> None:
    """Either all slices are read, or the reader says what differs; on both sides of every rounded number."""
    for k, x in enumerate((0.005, 0.015, 0.1)):
        folder = write_series(tmp_path / f"in{k}" / "A", ZEROS, series=f"s{k}")
        for path in folder.iterdir():
            dataset = pydicom.dcmread(path)
            tilt = x + (wobble if int(dataset.InstanceNumber) % 2 else -wobble)
            y = float(np.sqrt(1 - tilt**2))
            dataset.ImageOrientationPatient = [f"{v:.6f}" for v in (y, tilt, 0, -tilt, y, 0)]
            dataset.save_as(path)
        scout = write_series(tmp_path / "scout", ZEROS[:2], series=f"s{k}", orientation=CORONAL)
        for path in scout.iterdir():
            path.rename(folder / f"scout_{path.name}")
        found = find_series(folder)
        assert [len(series.files) for series in found.series] == [5]
        assert {path.name[:5] for path in found.skipped} == {"scout"}


def test_slices_of_another_size_between_others_are_not_left_out(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "A", ZEROS, series="s")
    for path in list(folder.iterdir()):
        if int(pydicom.dcmread(path).InstanceNumber) in (2, 4):
            path.unlink()
    small = write_series(tmp_path / "small", ZEROS[:, :3, :3], series="s")
    between = [path for path in small.iterdir() if int(pydicom.dcmread(path).InstanceNumber) in (2, 4)]
    for path in between:
        path.rename(folder / path.name)
    with pytest.raises(ImageError, match="differ in size"):
        read_image(choose(folder, tmp_path / "links")["A"][0])
    for path in between:  # a copy of a slice that is there, at another resolution
        (folder / path.name).unlink()
    for path in small.iterdir():
        if int(pydicom.dcmread(path).InstanceNumber) == 3:
            path.rename(folder / f"copy_{path.name}")
    assert [len(series.files) for series in find_series(folder).series] == [3]


def test_series_that_fit_a_channel_equally_are_an_error(tmp_path: Path) -> None:
    for name in ("FLAIR", "T1c"):
        write_series(tmp_path / "in", ZEROS, series=name, modality="MR", SeriesDescription=f"ax {name.lower()}")
    write_series(tmp_path / "in", ZEROS, series="again", modality="MR", SeriesDescription="FLAIR again")
    with pytest.raises(ImageError, match="several series of a study fit the channel FLAIR"):
        choose(tmp_path / "in", tmp_path / "links", ("FLAIR", "T1c"))
    rules = ("FLAIR=description:flair*",)
    assert len(choose(tmp_path / "in", tmp_path / "links", ("FLAIR", "T1c"), rules)["in"]) == 2


def test_a_series_that_only_one_channel_can_use_is_not_used_by_another(tmp_path: Path) -> None:
    for name, n in (("T1", 4), ("T1c", 5)):
        write_series(tmp_path / "in", ZEROS[:n], series=name, modality="MR", SeriesDescription=f"ax {name}")
    ((case, paths),) = choose(tmp_path / "in", tmp_path / "links", ("T1", "T1c")).items()
    assert [len(read_image(path).array_CZYX[0]) for path in paths] == [4, 5], case
    with pytest.raises(ImageError, match="the same series of a study fit two channels"):
        choose(tmp_path / "in", tmp_path / "other", ("T1", "T1c"), ("T1=modality:MR", "T1c=modality:MR"))


def test_rules_are_checked() -> None:
    assert default_rules(("CT",)) == (SeriesRule(modality="CT"),)
    assert parse_series_rules(["PET=modality:pt"], ("CT", "PET"))[1] == SeriesRule(modality="PT")
    for text in ("size:3", "slices:0", "modality:", "orientation:up", "MR=modality:MR", "modality:CT,modality:MR"):
        with pytest.raises(OptionError) as caught:
            parse_series_rules([text], ("CT",))
        assert caught.value.code == "E-OPTION-SYNTAX"
