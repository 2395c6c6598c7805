"""Two halves of a phantom dataset, each with other classes annotated, teach as much as the whole."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from decathlete import PlanOptions, Workspace, run, train_config
from decathlete.core.geometry import Geometry
from decathlete.io.images import write_image, write_label
from decathlete.workflows.merge import merge_datasets

log = logging.getLogger(__name__)
SIZE = 32


def make_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two kinds of discs of other brightness (classes 1 and 2) in noise."""
    random = np.random.default_rng(seed)
    _, y, x = np.indices((4, SIZE, SIZE))
    label = np.zeros((4, SIZE, SIZE), np.uint8)
    for value, centre_x in ((1, random.uniform(7, 11)), (2, random.uniform(20, 25))):
        label[(y - random.uniform(8, 24)) ** 2 + (x - centre_x) ** 2 < 5**2] = value
    return (label * 1.5 + 1 + random.normal(0, 0.3, label.shape)).astype(np.float32), label


def make_dataset(folder: Path, seeds: range, classes: dict[str, int]) -> Path:
    """Cases whose label maps contain only ``classes`` (name -> value in the phantom), numbered from 1."""
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    for seed in seeds:
        image, label = make_case(seed)
        given = np.zeros_like(label)
        for number, value in enumerate(classes.values(), start=1):
            given[label == value] = number
        geometry = Geometry.plain(label.shape)
        write_image(folder / "imagesTr" / f"c{seed:02d}_0000.nii.gz", image[None], geometry)
        write_label(folder / "labelsTr" / f"c{seed:02d}.nii.gz", given, geometry)
    labels = {"background": 0} | {name: number for number, name in enumerate(classes, start=1)}
    content = {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def mean_dice(root: Path, work: Path, splits: Path) -> float:
    """Dice of the held-out, fully annotated cases after a short training."""
    result = run(
        root,
        dims=2,
        workspace=Workspace(prepared=work / "prepared", results=work / "results"),
        config=train_config(
            epochs=1, steps_per_epoch=250, batch_size=8, learning_rate=0.02, device="cpu", precision="fp32",
            augment=False, logger="none",
        ),
        plan_options=PlanOptions(splits=splits, filters=(8, 16, 32)),
        adapt=False,
        workers=1,
    )  # fmt: skip
    assert result.scores is not None
    assert result.scores.headline.dice is not None
    return result.scores.headline.dice


@pytest.mark.full
def test_two_halves_teach_as_much_as_full_labels(tmp_path: Path) -> None:
    both = {"first": 1, "second": 2}
    full = make_dataset(tmp_path / "full", range(12), both)
    parts = [
        make_dataset(tmp_path / "A", range(4), {"first": 1}),
        make_dataset(tmp_path / "B", range(4, 8), {"second": 2}),
        make_dataset(tmp_path / "C", range(8, 12), both),
    ]
    merged = tmp_path / "Dataset001_merged"
    merge_datasets(parts, merged, to="nnunet")
    names = [f"c{seed:02d}" for seed in range(12)]
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps([{"train": names[:8], "val": names[8:]}]))
    with_partial = mean_dice(merged, tmp_path / "partial", splits)
    with_full = mean_dice(full, tmp_path / "whole", splits)
    manifest = json.loads((merged / "dataset.json").read_text())
    del manifest["annotated"]  # what is not annotated is then background: half of the cases deny each class
    (merged / "dataset.json").write_text(json.dumps(manifest))
    naive = mean_dice(merged, tmp_path / "naive", splits)
    log.info("full labels %.3f, merged %.3f, merged, the rest as background %.3f", with_full, with_partial, naive)
    assert with_partial > 0.9
    assert abs(with_partial - with_full) < 0.02
    assert naive < with_partial - 0.02
