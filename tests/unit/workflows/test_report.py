"""The report of a run made by hand: what it shows, what it does without, and that it stands alone."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Picture

from decathlete.core.labels import LabelSet
from decathlete.dataset.manifest import read_dataset
from decathlete.errors import ModelError
from decathlete.evaluation.evaluate import evaluate_pairs
from decathlete.models.record import MemberRecord, ModelRecord, NetworkRecord
from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.normalizations import NORMALIZATIONS
from decathlete.planning.plan import Plan, Range, TrainingRanges
from decathlete.training.config import TrainConfig
from decathlete.training.reporting.records import EpochRecord, RunRecord, write_logs
from decathlete.workflows.report import report

NAMES = ["inner <b>", "outer"]
SPACING_XYZ = (1.0, 1.0, 2.0)
SHAPE_XYZ = (22, 26, 12)


def plan() -> Plan:
    return Plan(
        dataset="Phantoms",
        dims=3,
        channels=("MRI",),
        labels=LabelSet.from_names(NAMES),
        target_spacing=(2.0, 1.0, 1.0),
        median_shape=(12, 26, 22),
        patch_size=(8, 16, 16),
        batch_size=2,
        normalization=(NORMALIZATIONS.settings("zscore"),),
        network=UNetSpec(
            dims=3,
            in_channels=1,
            out_channels=3,
            kernels=((3, 3, 3), (3, 3, 3)),
            strides=((1, 1, 1), (2, 2, 2)),
            features=(4, 8),
            encoder_convs=(2, 2),
            decoder_convs=(2,),
        ),
        training_ranges=TrainingRanges(
            spacing=(Range(low=2, high=2), Range(low=1, high=1), Range(low=1, high=1)),
            size=(Range(low=24, high=24), Range(low=26, high=26), Range(low=22, high=22)),
            intensity=(Range(low=0, high=1),),
        ),
        fingerprint_digest="0" * 16,
        reasons={"patch_size": "the median image fits whole"},
    )


def epoch(number: int) -> EpochRecord:
    return EpochRecord(
        epoch=number,
        step=10 * (number + 1),
        seconds=2,
        elapsed=2.0 * (number + 1),
        train_loss=1.0 / (number + 1),
        val_loss=None if number % 2 else 1.1 / (number + 1),
        learning_rate=1e-3,
        dice={} if number % 2 else {NAMES[0]: 0.1 * number, NAMES[1]: None},
        mean_dice=None if number % 2 else 0.1 * number,
        patches_per_second=5,
        skipped_steps=1 if number == 3 else 0,
    )


def save(path: Path, array_XYZ: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array_XYZ, np.diag([*SPACING_XYZ, 1])), path)


def phantom(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x, y, z = np.indices(SHAPE_XYZ)
    distance = np.sqrt((x - 11) ** 2 + (y - 13) ** 2 + (2 * z - 12) ** 2)
    label = np.select([distance < 4, distance < 8], [1, 2], 0).astype(np.uint8)
    return (label * 3 + rng.normal(size=SHAPE_XYZ)).astype(np.float32), label


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished run on four cases, the later ones predicted ever worse."""
    root, run = tmp_path / "Phantoms", tmp_path / "results" / "fold_0"
    ids = [f"case_{i}" for i in range(4)]
    rng = np.random.default_rng(0)
    for shift, case_id in enumerate(ids):
        image, label = phantom(rng)
        save(root / "imagesTr" / f"{case_id}.nii.gz", image)
        save(root / "labelsTr" / f"{case_id}.nii.gz", label)
        save(run / "validation" / f"{case_id}.nii.gz", np.roll(label, shift, axis=0))
    (run / "validation" / "case_1.json").write_text(json.dumps({"warnings": ["spacing 9 mm was never seen"]}))
    manifest = {
        "name": "Phantoms",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": NAMES[0], "2": NAMES[1]},
        "training": [{"image": f"./imagesTr/{i}.nii.gz", "label": f"./labelsTr/{i}.nii.gz"} for i in ids],
        "test": [],
    }
    (root / "dataset.json").write_text(json.dumps(manifest))
    pairs = {c.id: (run / "validation" / f"{c.id}.nii.gz", c.label) for c in read_dataset(root).cases if c.label}
    evaluate_pairs(pairs, plan().labels).save_files(run)
    write_logs(run, NAMES, [epoch(n) for n in range(5)])
    member = MemberRecord(
        name="3d",
        plan=plan(),
        mirror_axes=(0, 1, 2),
        networks=(NetworkRecord(file="weights/3d.safetensors", sha256="0" * 64),),
        provenance={"torch": "2.x", "precision": "bf16"},
    )
    ModelRecord(labels=plan().labels, members=(member,)).save(run / "model" / "model.json")
    record = RunRecord(
        version="0.0.1",
        dataset="Phantoms",
        dataset_root=str(root),
        dataset_digest="d",
        prepared="prepared",
        dims=3,
        fold=0,
        train=("case_9",),
        val=tuple(ids),
        config=TrainConfig(),
        plan_digest="p",
        started="2026-01-02T03:04:05+00:00",
    )
    record.save(run / "run.json")
    return run


def html(run_folder: Path) -> str:
    path = report(run_folder)
    assert path == run_folder / "report.html"
    return path.read_text(encoding="utf-8")


def pictures(page: str) -> list[Picture.Image]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [Picture.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_report_shows_every_part(run_folder: Path) -> None:
    page = html(run_folder)
    for section in ("scores", "distribution", "pictures", "training", "plan", "warnings", "data"):
        assert f'id="{section}"' in page
    assert "Research use only" in page
    assert "Missing on this page" not in page
    headline = json.loads((run_folder / "scores.json").read_text())["headline"]
    assert f'<span class="big">{headline["values"]["dice"]:.3f}</span>' in page
    assert "median image fits whole" in page.lower()
    assert "spacing 9 mm was never seen" in page


def test_report_tells_the_precision_that_was_used(run_folder: Path) -> None:
    page = html(run_folder)
    training = page[page.index('id="training"') : page.index('id="plan"')]
    assert "bf16" in training
    assert "auto" not in training


def test_report_stands_alone(run_folder: Path) -> None:
    page = html(run_folder)
    assert "<script" not in page
    assert "<link" not in page
    linked = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', page)
    targets = [a or b for a, b in linked]
    assert all(t.startswith(("data:image/png;base64,", "#")) for t in targets)


def test_report_holds_no_paths(run_folder: Path, tmp_path: Path) -> None:
    assert str(tmp_path) not in html(run_folder)


def test_names_are_escaped(run_folder: Path) -> None:
    page = html(run_folder)
    assert "inner <b>" not in page
    assert "inner &lt;b&gt;" in page


def test_best_median_and_worst_are_pictured(run_folder: Path) -> None:
    page = html(run_folder)
    shown = re.findall(r'<h3>(\w+ case) <span class="id">(\w+)</span>', page)
    assert shown == [("Best case", "case_0"), ("Median case", "case_1"), ("Worst case", "case_3")]
    assert len(pictures(page)) == 3 * 3 * 3


def test_pictures_keep_physical_proportions(run_folder: Path) -> None:
    axial, coronal, sagittal = (pictures(html(run_folder))[i] for i in (0, 3, 6))
    assert axial.width / axial.height == pytest.approx(22 / 26, rel=0.02)
    assert coronal.width / coronal.height == pytest.approx(22 / 24, rel=0.02)
    assert sagittal.width / sagittal.height == pytest.approx(26 / 24, rel=0.02)


def test_overlays_are_coloured_and_the_image_is_not(run_folder: Path) -> None:
    image, label, prediction = (np.asarray(p.convert("RGB"), int) for p in pictures(html(run_folder))[:3])

    def coloured(picture: np.ndarray) -> float:
        return float((np.ptp(picture, axis=2) > 20).mean())

    assert coloured(image) == 0
    assert coloured(label) > 0.1
    assert coloured(prediction) > 0.1


def test_right_of_the_patient_is_on_the_left(run_folder: Path, tmp_path: Path) -> None:
    """RAS+ counts x up towards the right: a structure at high x lies on the left of the picture."""
    image, label = np.zeros(SHAPE_XYZ, np.float32), np.zeros(SHAPE_XYZ, np.uint8)
    label[16:20, 10:14, 4:8] = 1
    save(tmp_path / "Phantoms" / "imagesTr" / "case_0.nii.gz", image)
    save(tmp_path / "Phantoms" / "labelsTr" / "case_0.nii.gz", label)
    save(run_folder / "validation" / "case_0.nii.gz", label)
    axial = np.asarray(pictures(html(run_folder))[1].convert("RGB"), int)
    columns = np.flatnonzero((np.ptp(axial, axis=2) > 20).any(axis=0))
    assert columns.max() < axial.shape[1] / 2


@pytest.mark.parametrize(
    ("gone", "note", "absent"),
    [
        ("logs.json", "logs.json does not exist", '<div class="charts"><div'),
        ("scores.json", "scores.json does not exist", 'id="scores"'),
        ("model", "model.json does not exist", 'id="plan"'),
        ("run.json", "run.json does not exist", 'id="pictures"'),
        ("validation", "no predictions", 'id="pictures"'),
        ("../../Phantoms", "raw dataset is not where it was", 'id="pictures"'),
    ],
)
def test_what_is_missing_becomes_a_note(run_folder: Path, gone: str, note: str, absent: str) -> None:
    assert absent in html(run_folder)
    target = (run_folder / gone).resolve()
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    page = html(run_folder)
    assert note in page
    assert absent not in page


def test_damaged_files_become_notes(run_folder: Path) -> None:
    (run_folder / "logs.json").write_text("{")
    truncated = run_folder / "validation" / "case_3.nii.gz"
    truncated.write_bytes(truncated.read_bytes()[:100])
    page = html(run_folder)
    assert "logs.json cannot be used" in page
    assert "No pictures of case_3" in page


def test_moved_dataset_can_be_named(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "Phantoms").rename(tmp_path / "Moved")
    page = report(run_folder, dataset_root=tmp_path / "Moved").read_text(encoding="utf-8")
    assert len(pictures(page)) == 27


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not the folder of a run"):
        report(tmp_path)
    assert not (tmp_path / "report.html").exists()
