"""Two folders become a dataset: channels, classes and patients are found, printed, and written elsewhere."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.core.geometry import Geometry
from decathlete.dataset import plain_folders
from decathlete.dataset.annotated import annotated_of
from decathlete.dataset.conversion.plain_sources import FileNames
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.plain_folders import PlainDataset
from decathlete.errors import DatasetError, OptionError, OutputError
from decathlete.io.images import write_image, write_label
from decathlete.planning.options import PlanOptions
from decathlete.workflows import plain_dataset
from decathlete.workflows.check import check
from decathlete.workflows.convert import convert
from decathlete.workflows.plain_dataset import describe_folders
from decathlete.workflows.preprocess import preprocess
from decathlete.workflows.raw_dataset import read_task
from decathlete.workflows.workspace import Workspace

LABEL = (np.arange(400).reshape(20, 20) % 3).astype(np.uint8)


def make_pictures(root: Path, *, colours: bool, image_suffix: str = ".png", mode: str | None = None) -> FileNames:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    for case in ("P1-IM-1", "P1-IM-2", "P2-IM-1"):
        shape = (20, 20, 3) if colours else (20, 20)
        picture = Pillow.fromarray(random.integers(0, 256, shape, dtype=np.uint8))
        (picture.convert(mode) if mode else picture).save(root / "images" / f"{case}{image_suffix}")
        Pillow.fromarray(LABEL).save(root / "masks" / f"{case}.png")
    return FileNames(images=root / "images", labels=root / "masks")


def describe(root: Path, names: FileNames, **options: object) -> tuple[Path, PlainDataset]:
    found: list[PlainDataset] = []
    place = Workspace(prepared=root.parent / "prepared")
    folder = describe_folders(names, workspace=place, on_found=found.append, **options)  # type: ignore[arg-type]
    return folder, found[0]


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("colours", "mode", "channels"),
    [(True, None, ("red", "green", "blue")), (False, None, ("grey",)), (False, "RGB", ("grey",))],
    ids=["rgb", "grey", "grey saved as rgb"],
)
def test_channels_of_pictures_are_found(
    tmp_path: Path, colours: bool, mode: str | None, channels: tuple[str, ...]
) -> None:
    root = tmp_path / "Cells"
    names = make_pictures(root, colours=colours, mode=mode)
    before = snapshot(root)
    folder, found = describe(root, names, group_by="(P.)")
    assert folder == tmp_path / "prepared" / "datasets" / "Cells"
    spec = read_dataset(folder)
    assert spec.channels == channels
    assert {case.id: case.group for case in spec.cases} == {"P1-IM-1": "P1", "P1-IM-2": "P1", "P2-IM-1": "P2"}
    assert [c.value for c in spec.labels.classes] == [0, 1, 2]
    assert snapshot(root) == before
    text = "\n".join(found.describe())
    for part in (f"channels: {', '.join(channels)}", "3 cases", "(.png)", "in pixels", "1 = label 1", "patients: 2"):
        assert part in text
    assert not check(folder).errors


def test_patients_that_names_only_suggest_are_not_stated(tmp_path: Path) -> None:
    """The folds may not use the guess; the line about the folds says whether they do."""
    root = tmp_path / "Axons"
    make_pictures(root, colours=False)
    for path in sorted(root.rglob("*.png")):
        path.rename(path.with_name(path.name.replace("P1-IM-", "patient1_frame").replace("P2-IM-", "patient2_frame")))
    _, found = describe(root, FileNames(images=root / "images", labels=root / "masks"))
    assert found.spec.groups_from == "names"
    assert "patients:" not in "\n".join(found.describe())


def test_jpeg_images_may_have_png_label_maps(tmp_path: Path) -> None:
    folder, _ = describe(tmp_path / "Cells", make_pictures(tmp_path / "Cells", colours=True, image_suffix=".jpg"))
    assert {case.images[0].suffix for case in read_dataset(folder).cases} == {".jpg"}
    assert not check(folder).errors


def test_channels_of_volumes_are_found_by_names_and_headers(tmp_path: Path) -> None:
    grid = Geometry.plain((4, 5, 6), spacing_ZYX=(3.0, 1.0, 1.0))
    for case in ("a", "b"):
        for channel in range(2):
            write_image(tmp_path / "s" / "scans" / f"{case}_000{channel}.nii.gz", np.ones((1, 4, 5, 6)), grid)
        write_label(tmp_path / "s" / "seg" / f"{case}.nii.gz", np.ones((4, 5, 6), int), grid)
    names = FileNames(images=tmp_path / "s" / "scans", labels=tmp_path / "s" / "seg", classes="liver")
    folder, found = describe(tmp_path / "s", names, name="Mine")
    spec = read_dataset(folder)
    assert spec.channels == ("channel 0", "channel 1")
    assert [len(case.images) for case in spec.cases] == [2, 2]
    assert found.unit == "mm"
    assert "1 = liver" in "\n".join(found.describe())


def test_label_maps_beside_their_images(tmp_path: Path) -> None:
    root = tmp_path / "Cells"
    make_pictures(root, colours=False)
    for path in sorted((root / "masks").iterdir()):
        path.rename(root / "images" / f"{path.stem}_mask.png")
    folder, _ = describe(root, FileNames(images=root / "images", label_suffix="_mask"))
    assert next(case.label and case.label.name for case in read_dataset(folder).cases) == "P1-IM-1_mask.png"


def make_patients(root: Path) -> FileNames:
    """A folder for each case, whose files have the same names."""
    random = np.random.default_rng(0)
    grid = Geometry.plain((16, 16, 16))
    label = np.zeros(grid.shape_ZYX, np.uint8)
    label[4:8, 4:8, 4:8], label[9:12, 9:12, 9:12] = 1, 2
    for case in ("P1_a", "P1_b", "P2_a", "P3_a"):
        (root / "scans" / case).mkdir(parents=True)
        write_image(root / "scans" / case / "ct.nii.gz", random.normal(size=(1, *grid.shape_ZYX)), grid)
        write_label(root / "scans" / case / "mask.nii.gz", label, grid)
    write_tests(root, "T1", "T2")
    return FileNames(
        images=root / "scans",
        test_images=root / "new",
        channels="CT=ct",
        label_suffix="mask",
        classes="liver,spleen",
    )


def write_tests(root: Path, *cases: str) -> None:
    for case in cases:
        (root / "new" / case).mkdir(parents=True)
        shutil.copy(root / "scans" / "P1_a" / "ct.nii.gz", root / "new" / case)


def without_names(folder: Path) -> None:
    """Describe the cases as before their names were kept: names follow from the files."""
    manifest = json.loads((folder / "dataset.json").read_text())
    for entry in manifest["training"]:
        del entry["case"]
    manifest["test"] = [entry["image"] for entry in manifest["test"]]
    (folder / "dataset.json").write_text(json.dumps(manifest))


def preprocess_ids(folder: Path, **options: bool) -> tuple[str, ...]:
    store = preprocess(folder, workspace=Workspace(prepared=folder.parent.parent), workers=1, **options)
    assert {case.case_id for case in store.fingerprint.cases} == set(store.case_ids)
    return store.case_ids


def test_cases_keep_the_names_by_which_they_were_found(tmp_path: Path) -> None:
    names = make_patients(tmp_path / "s")
    ids = ["P1_a", "P1_b", "P2_a", "P3_a"]
    folder, found = describe(tmp_path / "s", names, group_by="^(P[0-9])")
    assert [case.id for case in found.spec.cases] == ids
    spec = read_dataset(folder)
    assert [case.id for case in spec.cases] == ids
    assert [case.id for case in spec.test_cases] == ["T1", "T2"]
    assert {case.id: case.group for case in spec.cases} == {case: case[:2] for case in ids}
    here = {field: getattr(names, field) for field in ("channels", "label_suffix", "classes")}
    files = FileNames(images=Path("scans"), test_images=Path("new"), **here)
    convert(tmp_path / "s", tmp_path / "converted", to="decathlon", files=files, workers=1)
    assert [case.id for case in read_dataset(tmp_path / "converted").cases] == ids


def test_options_about_cases_mean_the_names_by_which_they_were_found(tmp_path: Path) -> None:
    folder, _ = describe(tmp_path / "s", make_patients(tmp_path / "s"))
    (tmp_path / "annotated.csv").write_text("case,annotated\nP2_a,liver\n")
    folds = [{"train": ["P2_a", "P3_a"], "val": ["P1_a", "P1_b"]}, {"train": ["P1_a", "P1_b", "P3_a"], "val": ["P2_a"]}]
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    options = PlanOptions(group_by="^(P[0-9])", annotated=tmp_path / "annotated.csv", splits=tmp_path / "folds.json")
    place = Workspace(prepared=tmp_path / "prepared")
    spec = read_task(folder, workspace=place, options=options, spacing=None, image_formats=None)
    assert spec.cases[0].group == "P1"
    assert annotated_of(spec) == {"P2_a": ("liver",)}
    store = preprocess(folder, workspace=place, options=options, workers=1)
    assert store.case_ids == ("P1_a", "P1_b", "P2_a", "P3_a")
    assert [list(fold.val) for fold in store.splits.folds] == [["P1_a", "P1_b"], ["P2_a"]]


def test_a_description_with_old_names_is_rejected_with_what_to_do(tmp_path: Path) -> None:
    names = make_patients(tmp_path / "s")
    folder, _ = describe(tmp_path / "s", names)
    without_names(folder)
    old = read_dataset(folder).cases[0].id
    assert old.endswith("_scans_P1_a_ct")
    with pytest.raises(OutputError, match=rf"other names of the cases \({old}, now P1_a\)") as caught:
        describe(tmp_path / "s", names)
    assert str(folder) in str(caught.value.remedy), "the old names may be kept"
    describe(tmp_path / "s", names, overwrite=True)
    assert read_dataset(folder).cases[0].id == "P1_a"


def test_prepared_data_with_old_names_are_not_used_for_new_ones(tmp_path: Path) -> None:
    """The digest of a dataset leaves out the names of its cases."""
    names = make_patients(tmp_path / "s")
    folder, _ = describe(tmp_path / "s", names)
    without_names(folder)
    assert preprocess_ids(folder)[0].endswith("_scans_P1_a_ct")
    describe(tmp_path / "s", names, overwrite=True)
    for reuse in (False, True):
        with pytest.raises(OutputError, match=r"the same cases with other names \(\S+_scans_P1_a_ct, now P1_a\)"):
            preprocess_ids(folder, reuse=reuse)
    assert preprocess_ids(folder, overwrite=True)[0] == "P1_a"


def test_test_images_with_old_names_get_the_new_ones(tmp_path: Path) -> None:
    """Nothing that was trained depends on them."""
    names = make_patients(tmp_path / "s")
    folder, _ = describe(tmp_path / "s", names)
    manifest = json.loads((folder / "dataset.json").read_text())
    manifest["test"] = [entry["image"] for entry in manifest["test"]]
    (folder / "dataset.json").write_text(json.dumps(manifest))
    write_tests(tmp_path / "s", "T3")
    describe(tmp_path / "s", names)
    assert [case.id for case in read_dataset(folder).test_cases] == ["T1", "T2", "T3"]


def add_pictures(names: FileNames, numbers: range, *, colours: bool, mode: str = "RGB") -> None:
    assert names.images is not None
    assert names.labels is not None
    for number in numbers:
        random = np.random.default_rng(number)
        picture = Pillow.fromarray(random.integers(0, 256, (20, 20, 3) if colours else (20, 20), dtype=np.uint8))
        picture.convert(mode).save(names.images / f"X{number:03}.png")
        Pillow.fromarray(LABEL).save(names.labels / f"X{number:03}.png")


@pytest.mark.parametrize("mode", ["L", "RGB"], ids=["grey", "grey saved as rgb"])
def test_colours_are_found_behind_many_grey_pictures(tmp_path: Path, mode: str) -> None:
    names = make_pictures(tmp_path / "Cells", colours=False)
    add_pictures(names, range(30), colours=False, mode=mode)
    add_pictures(names, range(30, 31), colours=True)
    folder, found = describe(tmp_path / "Cells", names)
    assert found.spec.channels == ("red", "green", "blue")
    assert not check(folder).errors


def test_a_picture_that_cannot_be_read_is_left_to_the_check(tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "Cells", colours=True)
    (tmp_path / "Cells" / "images" / "P2-IM-1.png").write_bytes(b"not a picture")
    folder, found = describe(tmp_path / "Cells", names)
    assert found.spec.channels == ("red", "green", "blue")
    assert [problem.case_id for problem in check(folder).errors] == ["P2-IM-1"]


def test_colours_outside_the_sample_are_listed_with_the_option_that_declares_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_folders, "N_SAMPLED", 2)
    names = make_pictures(tmp_path / "Cells", colours=False, mode="RGB")
    add_pictures(names, range(2), colours=False)
    add_pictures(names, range(2, 3), colours=True)
    folder, found = describe(tmp_path / "Cells", names)
    assert found.spec.channels == ("grey",), "the first and the fourth of six were read"
    (error,) = check(folder).errors
    assert (error.case_id, error.code) == ("X002", "E-IMAGE-CHANNELS")
    assert "--channels red,green,blue" in error.remedy
    folder, _ = describe(tmp_path / "Cells", replace(names, channels="red,green,blue"), overwrite=True)
    assert not check(folder).errors


def test_another_description_is_not_replaced_unasked(tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "Cells", colours=False)
    folder, _ = describe(tmp_path / "Cells", names)
    assert describe(tmp_path / "Cells", names)[0] == folder
    (tmp_path / "Cells" / "masks" / "P2-IM-1.png").unlink()
    (tmp_path / "Cells" / "images" / "P2-IM-1.png").unlink()
    with pytest.raises(OutputError, match="describes other files"):
        describe(tmp_path / "Cells", names)
    describe(tmp_path / "Cells", names, overwrite=True)
    assert len(read_dataset(folder).cases) == 2


@pytest.mark.parametrize("other", [None, "(P)"])
def test_other_patients_are_told_from_other_files(tmp_path: Path, other: str | None) -> None:
    names = make_pictures(tmp_path / "Cells", colours=False)
    folder, _ = describe(tmp_path / "Cells", names, group_by="(P.)")
    with pytest.raises(OutputError, match="the same files with other patients: --group-by") as caught:
        describe(tmp_path / "Cells", names, group_by=other)
    assert str(caught.value.remedy).startswith("use --group-by as in the command that described these files")
    assert describe(tmp_path / "Cells", names, group_by="(P.)")[0] == folder


def test_run_reads_label_maps_with_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []

    def stop(*_: object, workers: int, **__: object) -> Path:
        given.append(workers)
        raise OutputError("stop")

    monkeypatch.setattr(plain_dataset, "describe_folders", stop)
    CliRunner().invoke(app, ["run", "--images", str(tmp_path), "--workers", "3"])
    assert given == [3]


@pytest.mark.parametrize("damage", [None, b"{"])
def test_further_test_images_change_nothing_but_the_list(tmp_path: Path, damage: bytes | None) -> None:
    names = make_pictures(tmp_path / "Cells", colours=False)
    tests = tmp_path / "Cells" / "new"
    tests.mkdir()
    with_tests = replace(names, test_images=tests)
    before = read_dataset(describe(tmp_path / "Cells", names)[0])
    for number in range(2):
        shutil.copy(tmp_path / "Cells" / "images" / "P1-IM-1.png", tests / f"T{number}.png")
        folder, _ = describe(tmp_path / "Cells", with_tests)
        after = read_dataset(folder)
        assert (len(after.test_cases), after.digest()) == (number + 1, before.digest()), "nothing is trained again"
    with pytest.raises(OutputError, match="describes other files"):
        describe(tmp_path / "Cells", names)  # it would lose the test images
    if damage is not None:
        (folder / "dataset.json").write_bytes(damage)
        describe(tmp_path / "Cells", with_tests, overwrite=True)
        assert read_dataset(folder).digest() == before.digest()


@pytest.mark.parametrize("name", ["Cells/..", "../Cells", "..", ".", "a/b", "a\\b", "", "ABSOLUTE"])
def test_a_path_is_no_name_of_a_dataset(tmp_path: Path, name: str) -> None:
    root = tmp_path / "Cells"
    names = make_pictures(root, colours=False)
    with pytest.raises(OptionError, match="cannot be the name of a dataset"):
        describe(root, names, name=str(root) if name == "ABSOLUTE" else name)
    assert not (root / "dataset.json").exists()


def test_what_does_not_fit_is_listed(tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "Cells", colours=False)
    (tmp_path / "Cells" / "masks" / "P2-IM-1.png").unlink()
    with pytest.raises(DatasetError, match=r"P2-IM-1.png has no label map"):
        describe(tmp_path / "Cells", names)
    with pytest.raises(DatasetError, match="is not a folder"):
        describe(tmp_path / "Cells", FileNames(images=tmp_path / "none"))
    assert not (tmp_path / "prepared").exists()


def test_the_description_does_not_lie_among_the_files(tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "Cells", colours=False)
    with pytest.raises(OutputError):
        describe_folders(names, workspace=Workspace(prepared=tmp_path / "Cells" / "images"))
