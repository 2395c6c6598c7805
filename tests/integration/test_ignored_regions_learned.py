"""Overlapping regions are learned from label maps that are mostly ignored, from the raw dataset to nnU-Net's files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from decathlete import PlanOptions, Workspace, export_nnunet, import_nnunet, run, train_config
from decathlete.core.geometry import Geometry
from decathlete.io.images import write_image, write_label

SIZE, IGNORE = 32, 9


def make_dataset(root: Path) -> Path:
    """Discs (value 1) with a core (value 2); of the training cases, one of four slices is labelled."""
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    geometry = Geometry.plain((4, SIZE, SIZE))
    for seed in range(10):
        random = np.random.default_rng(seed)
        _, y, x = np.indices(geometry.shape_ZYX)
        distance = np.hypot(y - random.uniform(10, 22), x - random.uniform(10, 22))
        label = np.where(distance < 4, 2, np.where(distance < 8, 1, 0)).astype(np.uint8)
        image = (label * 1.5 + 1 + random.normal(0, 0.3, label.shape)).astype(np.float32)
        if seed < 7:
            label[[0, 1, 3]] = IGNORE
        write_image(root / "imagesTr" / f"c{seed}_0000.nii.gz", image[None], geometry)
        write_label(root / "labelsTr" / f"c{seed}.nii.gz", label, geometry)
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": IGNORE}
    content = {
        "channel_names": {"0": "MRI"}, "labels": labels, "regions_class_order": [1, 2], "file_ending": ".nii.gz",
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(content))
    return root


@pytest.mark.full
def test_regions_with_an_ignore_label_are_learned_scored_and_exported(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "Dataset005_Sparse")
    names = [f"c{seed}" for seed in range(10)]
    (tmp_path / "splits.json").write_text(json.dumps([{"train": names[:7], "val": names[7:]}]))
    result = run(
        root,
        dims=2,
        workspace=Workspace(prepared=tmp_path / "prepared", results=tmp_path / "results"),
        config=train_config(
            epochs=1, steps_per_epoch=240, batch_size=8, learning_rate=0.02, device="cpu", precision="fp32",
            augment=False, logger="none",
        ),
        plan_options=PlanOptions(splits=tmp_path / "splits.json", filters=(8, 16, 32)),
        adapt=False,
        workers=1,
    )  # fmt: skip
    assert result.scores is not None
    assert [c.name for c in result.scores.classes] == ["whole", "core"]
    assert min(c.mean("dice") or 0 for c in result.scores.classes) > 0.9
    export_nnunet(result.folder / "model", tmp_path / "theirs")
    labels = import_nnunet(tmp_path / "theirs", tmp_path / "back").bundle.record.plan.labels
    assert (labels.ignore, [region.name for region in labels.regions]) == (3, ["whole", "core"])
