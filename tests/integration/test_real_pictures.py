"""Real 2D datasets of PNG files, as a user has them: two folders, trained for a few steps and predicted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from decathlete.dataset.conversion.plain_sources import FileNames
from decathlete.dataset.manifest import read_dataset
from decathlete.io.images import read_grid, read_label
from decathlete.training.config import TrainConfig
from decathlete.workflows.plain_dataset import describe_folders
from decathlete.workflows.run import run
from decathlete.workflows.workspace import Workspace

SETS = {
    "DSB2018_nuclei": (("red", "green", "blue"), 6, None),
    "Sunnybrook_LV2D": (("grey",), 12, "(.+)-IM"),
    "SEM_axon_myelin": (("grey",), 4, None),
}


@pytest.mark.real_data
@pytest.mark.full
@pytest.mark.parametrize("name", SETS)
def test_folders_of_png_are_trained_and_predicted_as_png(
    name: str, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    channels, n_cases, group_by = SETS[name]
    source = real_data(name)
    for part in ("images", "labels"):
        (tmp_path / "x" / part).mkdir(parents=True)
        files = sorted((source / part).glob("*.png"))
        for path in files[:: max(1, len(files) // n_cases)][:n_cases]:
            (tmp_path / "x" / part / path.name).symlink_to(path)
    (tmp_path / "x" / "test").mkdir()
    first = min((tmp_path / "x" / "images").iterdir())
    (tmp_path / "x" / "test" / "t.png").symlink_to(first.resolve())
    names = FileNames(
        images=tmp_path / "x" / "images", labels=tmp_path / "x" / "labels", test_images=tmp_path / "x" / "test"
    )
    workspace = Workspace(prepared=tmp_path / "prepared", results=tmp_path / "results")
    folder = describe_folders(names, name=name, workspace=workspace, group_by=group_by)
    spec = read_dataset(folder)
    assert spec.channels == channels
    config = TrainConfig(epochs=1, steps_per_epoch=2, device="cpu", loggers=())
    result = run(folder, dims=2, workspace=workspace, config=config)
    assert result.scores is not None
    assert result.predictions is not None
    prediction = read_label(result.predictions / "t.png")
    assert prediction.geometry == read_grid(first)[1]
    assert set(np.unique(prediction.array_ZYX)) <= set(spec.labels.values)
