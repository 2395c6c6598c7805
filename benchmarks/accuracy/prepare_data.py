"""One dataset for both programs: in nnU-Net's layout, with its folds in ``splits_final.json``."""

from __future__ import annotations

import json
from pathlib import Path

from cells import DATASETS

from decathlete.dataset.conversion.plain_sources import FileNames
from decathlete.dataset.groups import groups_in_force
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.splits import make_splits
from decathlete.workflows.convert import convert

NAME = "Dataset999_Compared"
"""The name that the peers' scripts give it (``benchmarks/peers/workloads/_nnunet.py``)."""


def dataset_folder(scratch: Path) -> Path:
    """Return the folder of the dataset in nnU-Net's layout."""
    return scratch / "raw" / NAME


def prepare_data(name: str, data: Path, scratch: Path) -> None:
    """Convert a dataset once and write its folds, and its held-out label maps by themselves."""
    setup, folder = DATASETS[name], dataset_folder(scratch)
    if (scratch / "patients.json").is_file():
        return
    files = FileNames()
    if setup.channels is not None:
        files = FileNames(channels=setup.channels, images=Path("images"), labels=Path("labels"))
    convert(
        data / name,
        folder,
        to="nnunet",
        files=files,
        brats=setup.brats,
        group_by=setup.group_by,
        workers=1,
        overwrite=True,
    )
    spec = read_dataset(folder)
    folds = make_splits(spec, n_folds=setup.n_folds).folds
    content = [{"train": list(fold.train), "val": list(fold.val)} for fold in folds]
    (folder / "splits_final.json").write_text(json.dumps(content))
    labels = {case.id: case.label for case in spec.cases}
    for number, fold in enumerate(folds):
        for case in fold.val:
            label = labels[case]
            assert label is not None
            link = held_out_folder(scratch, number) / label.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(label.resolve())
    (scratch / "patients.json").write_text(json.dumps(groups_in_force(spec, setup.n_folds)))


def held_out_folder(scratch: Path, fold: int) -> Path:
    """Return the folder with the label maps that a fold holds out."""
    return scratch / "held_out" / f"fold_{fold}"
