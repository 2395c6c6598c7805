"""From raw files to an int8 program and its predictions, by commands alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from decathlete.cli.main import main
from decathlete.io.images import read_label
from decathlete.synthetic.phantoms import make_phantoms


def command(arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["decathlete", *arguments.split()])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (0, None)


@pytest.mark.full
@pytest.mark.parametrize("dim", [2, 3])
def test_a_trained_model_predicts_in_int8(
    dim: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("openvino", "onnx", "nncf"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    make_phantoms(Path("data/Task07_Balls"), n_cases=6, n_test=2, shape_ZYX=(18, 20, 16), noise=0.05)
    command(
        f"run 7 --dim {dim} --epochs 2 --steps-per-epoch 120 --set network.features=8,16,32 --device cpu "
        "--precision fp32 --engine openvino",
        monkeypatch,
    )
    run = Path(f"results/Task07_Balls/{dim}d/fold_0")
    capsys.readouterr()
    command(f"export openvino {run} --int8 --output int8", monkeypatch)
    said = capsys.readouterr().out
    held_out = len(json.loads((run / "run.json").read_text())["val"])
    fp32, int8 = map(float, re.search(rf"{held_out} validation cases: (\S+) in fp32, (\S+) in int8", said).groups())
    assert fp32 == pytest.approx(json.loads((run / "scores.json").read_text())["headline"]["values"]["dice"], abs=1e-4)
    assert int8 > fp32 - 0.002
    assert "one window:" in said
    assert sorted(path.name for path in Path("int8").iterdir()) == ["model.bin", "model.xml", "program.json"]

    command("predict --model int8 --input data/Task07_Balls/imagesTs --output out --tta", monkeypatch)
    for theirs in sorted((run / "predictions").glob("*.nii.gz")):
        ours = read_label(Path("out") / theirs.name)
        assert ours.geometry == read_label(theirs).geometry
        assert np.mean(ours.array_ZYX == read_label(theirs).array_ZYX) > 0.98
        used = json.loads((Path("out") / theirs.name.replace(".nii.gz", ".json")).read_text())["settings"]["models"][0]
        assert (used["engine"], used["precision"]) == ("openvino", "int8")
