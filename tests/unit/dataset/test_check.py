"""Every kind of problem, all found in one go."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from decathlete.core.geometry import Geometry
from decathlete.dataset.check import check_dataset
from decathlete.dataset.manifest import read_dataset
from decathlete.errors import DatasetError
from decathlete.io.images import read_image, read_label, write_image, write_label, write_volume
from decathlete.synthetic.phantoms import make_phantoms
from dicom_support import write_series


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_phantoms(tmp_path / "d", n_cases=4, n_test=1, shape_ZYX=(8, 9, 10))


def case(root: Path, number: int) -> tuple[Path, Path]:
    name = f"phantom_{number:03d}.nii.gz"
    return root / "imagesTr" / name, root / "labelsTr" / name


def found(root: Path, severity: str) -> list[str]:
    report = check_dataset(read_dataset(root))
    return [f"{p.file}: {p.message}" for p in report.problems if p.severity == severity]


def edit_image(path: Path, edit) -> None:
    image = read_image(path)
    array = image.array_CZYX.copy()
    write_image(path, edit(array), image.geometry)


@pytest.mark.parametrize("layout", ["decathlon", "nnunet"])
def test_sound_data_have_no_problems(tmp_path: Path, layout) -> None:
    root = make_phantoms(tmp_path, n_cases=3, n_test=1, n_channels=2, layout=layout, oblique=True)
    report = check_dataset(read_dataset(root))
    assert report.problems == ()
    assert report.ok
    assert report.lines()[-1] == "no problems found"
    report.raise_for_errors()


def test_all_problems_come_together(root: Path) -> None:
    images, labels = zip(*(case(root, i) for i in range(4)), strict=True)
    images[0].unlink()
    images[1].write_bytes(images[1].read_bytes()[:200])
    edit_image(images[2], lambda a: np.where(a == a.max(), np.nan, a))
    label = read_label(labels[3])
    write_label(labels[3], np.where(label.array_ZYX == 2, 7, label.array_ZYX), label.geometry)
    errors = found(root, "error")
    assert len(errors) == 4
    for part in (
        "000.nii.gz: does not exist",
        "truncated",
        "1 voxels that are NaN",
        "declare: 7",
    ):
        assert any(part in e for e in errors), part
    with pytest.raises(DatasetError, match="4 problems") as caught:
        check_dataset(read_dataset(root)).raise_for_errors()
    assert "labelsTr/phantom_003.nii.gz" in str(caught.value)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "truncated"),
        (lambda path: edit_image(path, lambda a: np.where(a == a.max(), np.nan, a)), "NaN"),
        (lambda path: edit_image(path, lambda a: np.concatenate([a, a])), "2 channels"),
        (lambda path: edit_image(path, np.zeros_like), "single value"),
    ],
)
def test_bad_test_images_are_warnings_since_training_does_not_need_them(root: Path, harm, message) -> None:
    harm(root / "imagesTs" / "phantom_004.nii.gz")
    report = check_dataset(read_dataset(root))
    assert report.ok
    (problem,) = report.problems
    assert (problem.severity, problem.file) == ("warning", "imagesTs/phantom_004.nii.gz")
    assert message in problem.message
    assert "not needed for training" in problem.remedy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 1.05}, "spacing"),
        ({"shift": 0.5}, "origin"),
        ({"angle": 0.05}, "direction"),
        ({"scale": 1.0005, "shift": 0.001}, None),
    ],
)
def test_grids_that_disagree(root: Path, change, message) -> None:
    _, path = case(root, 0)
    label = read_label(path)
    matrix = label.geometry.matrix
    c, s = np.cos(change.get("angle", 0)), np.sin(change.get("angle", 0))
    matrix[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ matrix[:3, :3] * change.get("scale", 1)
    matrix[:3, 3] += change.get("shift", 0)
    write_label(path, label.array_ZYX, Geometry.from_matrix(label.geometry.shape_ZYX, matrix))
    errors = found(root, "error")
    if message is None:
        assert errors == []
    else:
        assert len(errors) == 1
        assert message in errors[0]
        assert "tolerance 0.01 mm" in errors[0]


def test_shapes_that_disagree(root: Path) -> None:
    _, path = case(root, 0)
    label = read_label(path)
    smaller = Geometry.from_matrix((8, 9, 9), label.geometry.matrix)
    write_label(path, label.array_ZYX[:, :, :9], smaller)
    assert any("shape" in e for e in found(root, "error"))


def test_labels_that_are_not_integers(root: Path) -> None:
    image, label = case(root, 0)
    edit_image(image, lambda a: a)
    label.write_bytes(image.read_bytes())
    assert any("must be integers" in e for e in found(root, "error"))


def test_empty_labels_and_unseen_classes_are_warnings(root: Path) -> None:
    for i in range(4):
        _, path = case(root, i)
        label = read_label(path)
        write_label(path, np.where(label.array_ZYX == 2, 0 if i else 1, label.array_ZYX) * (i > 0), label.geometry)
    assert found(root, "error") == []
    warnings = found(root, "warning")
    assert any("phantom_000.nii.gz: the label map is empty" in w for w in warnings)
    assert any("'blob 2' (value 2) is declared and occurs in no" in w for w in warnings)


def test_copies_are_found_among_test_images_too(root: Path) -> None:
    first, _ = case(root, 0)
    second, _ = case(root, 1)
    image = read_image(first)
    write_image(second, image.array_CZYX, image.geometry)
    (root / "imagesTs" / "phantom_004.nii.gz").write_bytes(first.read_bytes())
    warnings = found(root, "warning")
    assert any("phantom_000, phantom_001, phantom_004 (test) are the same" in w for w in warnings)


def test_images_of_one_value_are_errors_unless_another_channel_shows_something(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "a", n_cases=2)
    edit_image(case(root, 0)[0], np.zeros_like)
    assert any("single value 0" in e for e in found(root, "error"))
    root = make_phantoms(tmp_path / "b", n_cases=2, n_channels=2)
    edit_image(case(root, 0)[0], lambda a: a * np.array([0, 1]).reshape(2, 1, 1, 1))
    assert found(root, "error") == []
    assert any("channel 0 has the single value 0" in w for w in found(root, "warning"))


def test_channel_counts_that_differ(root: Path) -> None:
    edit_image(case(root, 0)[0], lambda a: np.concatenate([a, a]))
    assert any("has 2 channels; dataset.json declares 1" in e for e in found(root, "error"))
    (remedy,) = (p.remedy for p in check_dataset(read_dataset(root)).errors if "has 2 channels" in p.message)
    assert "a point in time" in remedy, "a series of volumes is no image of several channels"


def test_nnunet_missing_channel_label_and_image(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path, n_cases=3, n_channels=2, layout="nnunet")
    (root / "imagesTr" / "phantom_000_0001.nii.gz").unlink()
    (root / "labelsTr" / "phantom_001.nii.gz").unlink()
    for c in range(2):
        (root / "imagesTr" / f"phantom_002_000{c}.nii.gz").unlink()
    missing = {e.split(":")[0] for e in found(root, "error") if "does not exist" in e}
    assert missing == {
        "imagesTr/phantom_000_0001.nii.gz",
        "labelsTr/phantom_001.nii.gz",
        "imagesTr/phantom_002_0000.nii.gz",
        "imagesTr/phantom_002_0001.nii.gz",
    }


def test_the_report_is_json_and_lines(root: Path) -> None:
    case(root, 0)[0].unlink()
    report = check_dataset(read_dataset(root), workers=1)
    content = json.loads(report.model_dump_json())
    assert content["problems"][0]["severity"] == "error"
    assert content["problems"][0]["case_id"] == "phantom_000"
    assert content["problems"][0]["remedy"]
    text = "\n".join(report.lines())
    assert "imagesTr/phantom_000.nii.gz" in text
    assert "1 error, 0 warnings" in text


def test_workers_do_not_change_the_report(root: Path) -> None:
    case(root, 2)[0].unlink()
    spec = read_dataset(root)
    assert check_dataset(spec, workers=1) == check_dataset(spec, workers=3)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["ACDC_respaced", "STS_CT_respaced", "STS_PETCT"])
def test_real_data_are_sound(real_data, name) -> None:
    assert check_dataset(read_dataset(real_data(name))).problems == ()


def test_a_negative_label_value_gets_a_remedy_that_helps(root: Path) -> None:
    path = case(root, 0)[1]
    label = read_label(path)
    values = label.array_ZYX.astype(np.int16)
    values[0, 0, 0] = -1
    write_label(path, values, label.geometry)
    (problem,) = check_dataset(read_dataset(root)).errors
    assert "-1" in problem.message
    assert "ignore label" in problem.remedy
    assert "declare" not in problem.remedy


def test_lengths_of_files_without_a_spacing_are_in_pixels(tmp_path: Path) -> None:
    grid = Geometry.plain((1, 8, 9), spacing_ZYX=(2.0, 0.5, 0.5))
    write_image(tmp_path / "a.nii.gz", np.random.default_rng(0).uniform(size=(1, 1, 8, 9)), grid)
    write_label(tmp_path / "a.png", np.eye(8, 9, dtype=np.uint8)[None], Geometry.pixels((1, 8, 9)))
    training = [{"image": "a.nii.gz", "label": "a.png"}]
    content = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "a"}, "training": training}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    (problem,) = check_dataset(read_dataset(tmp_path)).errors
    assert "spacing (2, 0.5, 0.5) mm against (1, 1, 1) pixel" in problem.message
    assert "one of them has none" in problem.remedy


def test_channels_and_label_maps_that_were_copied_are_found(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path, n_cases=3, n_channels=3, layout="nnunet", shape_ZYX=(8, 9, 10))
    assert check_dataset(read_dataset(root)).problems == ()
    for number in (0, 1):
        first, *_, last = sorted((root / "imagesTr").glob(f"phantom_{number:03d}_*"))
        last.write_bytes(first.read_bytes())
    label = read_label(root / "labelsTr" / "phantom_000.nii.gz")
    write_label(root / "labelsTr" / "phantom_002.nii.gz", label.array_ZYX.astype(np.int32), label.geometry)
    names = read_dataset(root).channels
    assert [problem.message for problem in check_dataset(read_dataset(root)).warnings] == [
        f"the channels {names[0]} and {names[2]} are the same, voxel for voxel, in 2 of 3 cases: phantom_000, "
        "phantom_001",
        "the label maps of phantom_000, phantom_002 are the same, voxel for voxel, although their images differ",
    ]


def test_empty_channels_and_label_maps_are_no_copies(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path, n_cases=2, n_channels=3, layout="nnunet", shape_ZYX=(8, 9, 10))
    for path in (root / "labelsTr").iterdir():
        label = read_label(path)
        write_label(path, np.zeros_like(label.array_ZYX), label.geometry)
    for path in (*(root / "imagesTr").glob("*_0001.nii.gz"), *(root / "imagesTr").glob("*_0002.nii.gz")):
        edit_image(path, np.zeros_like)
    codes = {problem.code for problem in check_dataset(read_dataset(root)).problems}
    assert codes == {"E-IMAGE-VALUES", "E-DATASET-LABELS"}, "they have warnings of their own"


def messages(root: Path) -> dict[str, str]:
    """Message -> remedy of all problems."""
    return {p.message: p.remedy for p in check_dataset(read_dataset(root), workers=1).problems}


def test_a_damaged_part_of_an_image_is_named(root: Path) -> None:
    case(root, 0)[0].unlink()
    folder = write_series(case(root, 0)[0], np.zeros((3, 4, 5), np.int16))
    bad = sorted(folder.iterdir())[1]
    bad.write_bytes(bad.read_bytes()[:-50])
    (message,) = (m for m in messages(root) if "pixel data" in m)
    assert message.startswith(f"{bad.name}: ")


def test_values_that_are_not_declared_do_not_make_a_label_map_empty(root: Path) -> None:
    for number in range(4):
        path = case(root, number)[1]
        stored = read_label(path)
        write_label(path, (stored.array_ZYX > 0) * 255, stored.geometry)
    assert not any("empty" in message for message in messages(root))


def test_an_image_that_is_listed_as_a_label_map_is_recognised(root: Path) -> None:
    manifest = json.loads((root / "dataset.json").read_text())
    for entry in manifest["training"]:
        entry["label"] = entry["image"]
    (root / "dataset.json").write_text(json.dumps(manifest))
    found = messages(root)
    (remedy, *_) = (r for m, r in found.items() if "label values must be integers" in m)
    assert "as many as an image has" in remedy
    assert not any("occurs in no label map" in message for message in found), "none could be read"
    for number in range(4):
        path = case(root, number)[0]
        image = read_image(path)
        write_volume(
            path, np.arange(image.array_CZYX.size, dtype=np.int32).reshape(image.array_CZYX.shape), image.geometry
        )
    assert any("as many as an image has" in remedy for remedy in messages(root).values())


def test_missing_files_and_axes_in_another_order_have_remedies_of_their_own(root: Path) -> None:
    stored = read_label(case(root, 0)[1])
    write_label(case(root, 0)[1], stored.array_ZYX.T, Geometry.plain(stored.array_ZYX.shape[::-1]))
    case(root, 1)[1].unlink()
    manifest = json.loads((root / "dataset.json").read_text())
    manifest["training"][2]["image"] = "/elsewhere/data/imagesTr/phantom_002.nii.gz"
    (root / "dataset.json").write_text(json.dumps(manifest))
    remedies = "\n".join(messages(root).values())
    assert "transpose one of them" in remedies
    assert "leave case phantom_001 out" in remedies
    assert "list it relative to dataset.json: imagesTr/phantom_002.nii.gz" in remedies


def test_names_that_differ_only_in_case_are_named(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "Task01_Names", n_cases=3, shape_ZYX=(10, 10, 10), layout="nnunet")
    for path in (*root.glob("imagesTr/phantom_001*"), *root.glob("labelsTr/phantom_001*")):
        path.rename(path.with_name(path.name.replace("phantom_001", "Phantom_000")))
    report = check_dataset(read_dataset(root), workers=1)
    (problem,) = (p for p in report.problems if p.code == "E-DATASET-NAMES")
    assert (problem.severity, set(problem.cases)) == ("warning", {"Phantom_000", "phantom_000"})
    assert "Phantom_000, phantom_000" in problem.message
