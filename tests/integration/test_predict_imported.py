"""An imported model predicts like any other, from files to files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from decathlete import DynUNetOptions, PredictOptions, import_dynunet, predict
from decathlete.interop.dynunet_weights import DynUNetWeights
from decathlete.io.images import read_label
from decathlete.synthetic.phantoms import make_phantoms
from dynunet_support import GOLDEN, changed, golden_content

OPTIONS = PredictOptions(device="cpu", precision="fp32", overlap=0.25)


@pytest.mark.parametrize(("case", "n_channels"), [("plain_3d", 1), ("batch_2d", 1), ("brats_3d", 4)])
def test_from_a_checkpoint_to_a_label_map(case: str, n_channels: int, tmp_path: Path) -> None:
    data = make_phantoms(
        tmp_path / "data",
        n_cases=1,
        n_test=1,
        shape_ZYX=(20, 28, 24),
        spacing_ZYX=(1.0, 1.3, 1.0),
        n_channels=n_channels,
        oblique=True,
    )
    small = {"patch_size": (32, 32, 32), "spacing": (1.0, 1.0, 1.0)} if case == "brats_3d" else {}
    import_dynunet(GOLDEN / f"{case}.ckpt", tmp_path / "model", options=DynUNetOptions(**small))
    predict(tmp_path / "model", data / "imagesTs", tmp_path / "out", options=OPTIONS)
    label = read_label(next((tmp_path / "out").glob("*.nii.gz")))
    image_shape = label.geometry.shape_ZYX
    assert image_shape == (20, 28, 24)
    assert set(np.unique(label.array_ZYX)) <= {0, 1, 2, 3}
    assert len(np.unique(label.array_ZYX)) > 1  # weights drawn at random decide, but not all alike


def test_its_outputs_are_what_the_weights_give(tmp_path: Path) -> None:
    """A head that always says the second class is enough to see that names, order and grid are kept."""
    state = golden_content("plain_3d")["state_dict"]
    for name in ("model.output_block.conv.conv.weight", "model.output_block.conv.conv.bias"):
        state[name] = torch.zeros_like(state[name])
    state["model.output_block.conv.conv.bias"][2] = 5.0
    assert DynUNetWeights.from_state_dict(state).kind == "dynunet"
    path = changed("plain_3d", tmp_path, state_dict=state)
    import_dynunet(path, tmp_path / "model", options=DynUNetOptions(task="04"))
    data = make_phantoms(tmp_path / "data", n_cases=1, n_test=1, shape_ZYX=(20, 28, 24))
    predict(tmp_path / "model", data / "imagesTs", tmp_path / "out", options=OPTIONS)
    label = read_label(next((tmp_path / "out").glob("*.nii.gz")))
    assert (label.array_ZYX == 2).all()
