"""`import dynunet`: every option arrives, and what was assumed is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from decathlete import DynUNetOptions
from decathlete.cli.main import app
from decathlete.errors import OptionError
from dynunet_support import GOLDEN


def test_every_option_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: dict[str, Any] = {}

    def listen(*paths: Path, **arguments: Any) -> None:
        heard.update(arguments, paths=paths)
        raise OptionError("enough")

    monkeypatch.setattr("decathlete.interop.dynunet.import_dynunet", listen)
    CliRunner().invoke(app, ["import", "dynunet", "a.ckpt", "--output", "m"])
    assert heard == {"paths": (Path("a.ckpt"), Path("m")), "options": DynUNetOptions(), "overwrite": False}
    words = "--task 04 --dim 3 --patch_size 40,56,40 --spacing 1,0.8,0.8 --modality CT --ct-stats -17,201,99.4,39.36"
    more = "--dataset d --channels CT --regions a=1,2;b=2 --norm group --negative-slope 0.1 --overwrite"
    given = ["import", "dynunet", "a.ckpt", "-o", "m", *words.split(), *more.split(), "--labels", "left atrium, wall"]
    CliRunner().invoke(app, given)
    assert heard["overwrite"]
    assert heard["options"] == DynUNetOptions(
        task="04",
        dims=3,
        patch_size=(40, 56, 40),
        spacing=(1, 0.8, 0.8),
        modality="CT",
        ct_stats=(-17, 201, 99.4, 39.36),
        dataset=Path("d"),
        channels=("CT",),
        labels=("left atrium", "wall"),
        regions="a=1,2;b=2",
        norm="group",
        negative_slope=0.1,
    )
    CliRunner().invoke(app, ["import", "dynunet", "a.ckpt", "-o", "m", "--brats"])
    assert heard["options"] == DynUNetOptions(brats=True)


@pytest.mark.parametrize(
    ("option", "value"), [("--spacing", "1,x"), ("--ct-stats", "low"), ("--patch-size", "1.5,2,3")]
)
def test_lists_of_numbers_are_checked(option: str, value: str) -> None:
    problem = CliRunner().invoke(app, ["import", "dynunet", "a.ckpt", "-o", "m", option, value]).exception
    assert isinstance(problem, OptionError)
    assert option in str(problem)


def test_what_was_assumed_is_printed(tmp_path: Path) -> None:
    config = tmp_path / "o.yaml"
    config.write_text("task: '04'\nepochs: 3\n")  # the second is another command's
    given = ["import", "dynunet", str(GOLDEN / "plain_3d.ckpt"), "-o", str(tmp_path / "m"), "--config", str(config)]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    for words in (
        "40 × 56 × 40 voxels the recipe's setting for Task04_Hippocampus, the task that --task names",
        "1 × 1 × 1 mm",
        "MRI: z-score of its non-zero voxels",
        "MRI, because the first channel is called MRI",
        "0 background, 1 Anterior, 2 Posterior",
        f"model in {tmp_path / 'm'}",
    ):
        assert words in said


def test_a_plain_import_has_no_notes(tmp_path: Path) -> None:
    given = ["import", "dynunet", str(GOLDEN / "brats_3d.ckpt"), "-o", str(tmp_path / "m")]
    assert "note:" not in CliRunner().invoke(app, given).output
