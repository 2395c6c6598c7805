"""``preprocess --mode val|test`` by a model's plan, then ``predict`` from that: as from the images, bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import decathlete
from decathlete.cli.main import main
from decathlete.core.files import file_digest
from decathlete.io.images import read_image, write_image
from decathlete.synthetic.phantoms import make_phantoms


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with test images, one of them far too bright, and a model of coarser voxels."""
    root = tmp_path_factory.mktemp("for_model")
    dataset = make_phantoms(root / "data" / "Task08_Balls", n_cases=4, n_test=2, shape_ZYX=(16, 20, 18), oblique=True)
    bright = dataset / "imagesTs" / "phantom_005.nii.gz"
    image = read_image(bright)
    write_image(bright, image.array_CZYX * 40, image.geometry)
    workspace = decathlete.Workspace(data=root / "data", prepared=root / "prepared", results=root / "results")
    plan = ("target_spacing=1.5,1.5,1.5", "patch_size=8,16,16", "network.features=4,8")
    options = decathlete.PlanOptions(overrides=plan, n_folds=2, depth=1)
    decathlete.preprocess(dataset, workspace=workspace, options=options, workers=1)
    config = decathlete.TrainConfig(epochs=1, steps_per_epoch=4, device="cpu", loggers=(), val_cases=0)
    return decathlete.train(dataset, workspace=workspace, config=config, adapt=False).folder.parents[3]


def call(monkeypatch: pytest.MonkeyPatch, root: Path, *arguments: object) -> int:
    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.argv", ["decathlete", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


RUN = "results/Task08_Balls/3d/fold_0"
HOW = ["--device", "cpu", "--precision", "fp32", "--save-probabilities"]


@pytest.mark.parametrize(("mode", "images"), [("test", "imagesTs"), ("val", "imagesTr")])
def test_predictions_are_those_of_the_images(root, monkeypatch, mode, images):
    manifest = (root / "data/Task08_Balls/dataset.json").read_bytes()
    assert call(monkeypatch, root, "preprocess", "--task", 8, "--mode", mode, "--model", RUN) == 0
    store, raw = Path(f"prepared/Task08_Balls/3d_{mode}"), Path("data/Task08_Balls") / images
    assert call(monkeypatch, root, "predict", "--model", RUN, "--input", raw, "--output", f"direct_{mode}", *HOW) == 0
    hidden = raw.rename(root / "hidden")  # what is prepared is enough
    assert call(monkeypatch, root, "predict", "--model", RUN, "--input", store, "--output", f"stored_{mode}", *HOW) == 0
    hidden.rename(raw)
    files = sorted(p.name for p in Path(f"direct_{mode}").iterdir())
    assert files == sorted(p.name for p in Path(f"stored_{mode}").iterdir())
    assert len(files) == 3 * len(list(raw.iterdir()))
    for name in files:
        ours, theirs = (Path(folder, name) for folder in (f"direct_{mode}", f"stored_{mode}"))
        if name.endswith(".json"):
            ours, theirs = (json.loads(path.read_text()) | {"seconds": 0} for path in (ours, theirs))
            assert ours == theirs
        elif "probabilities" in name:  # resampling sums in another order where it has other threads
            np.testing.assert_allclose(*(read_image(path).array_CZYX for path in (ours, theirs)), rtol=0, atol=1e-5)
        else:
            assert file_digest(ours) == file_digest(theirs), name
    assert (root / "data/Task08_Balls/dataset.json").read_bytes() == manifest
    if mode == "test":
        assert json.loads(Path("stored_test/phantom_005.json").read_text())["warnings"], "known without the raw image"


def test_what_does_not_go_together_is_refused(root, monkeypatch, capsys):
    def said(*arguments: object) -> str:
        assert call(monkeypatch, root, *arguments) == 2
        return capsys.readouterr().err

    assert "name the model" in said("preprocess", "--task", 8, "--mode", "test")
    assert "--mode val or test" in said("preprocess", "--task", 8, "--model", RUN)
    assert "plan and network of the model" in said(
        "preprocess", "--task", 8, "--mode", "val", "--model", RUN, "--dim", 2
    )
    training_cases = "prepared/Task08_Balls/3d"
    assert "was prepared for training" in said("predict", "--model", RUN, "--input", training_cases, "--output", "no")
    assert call(monkeypatch, root, "preprocess", "--task", 8, "--mode", "test", "--model", RUN) == 0
    store = "prepared/Task08_Balls/3d_test"
    assert "contains the prepared cases" in said("predict", "--model", RUN, "--input", store, "--output", store)
    shutil.copytree(RUN, "another")
    record = json.loads(Path("another/model/model.json").read_text())
    record["members"][0]["plan"]["preprocessing_order"] = "recipe"
    Path("another/model/model.json").write_text(json.dumps(record))
    assert "another plan" in said("predict", "--model", "another", "--input", store, "--output", "no")
