"""``--spacing`` and settings of image formats arrive where a command reads files, and need files that are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.errors import OptionError

COMMANDS = ["export onnx", "export openvino", "export openvino --int8", "export triton", "triton benchmark"]


@pytest.mark.parametrize("command", [*COMMANDS, "triton verify"])
@pytest.mark.parametrize("option", ["--spacing 2,1,1", "--set image_format.nifti.compression_level=1"])
def test_it_has_no_effect_without_files(command: str, option: str, tmp_path: Path) -> None:
    output = ["--output", str(tmp_path / "o")] if command.startswith("export") else []
    result = CliRunner().invoke(app, [*command.split(), str(tmp_path), *option.split(), *output])
    assert isinstance(result.exception, OptionError), result.output
    assert "has no effect: it is for the files that --" in str(result.exception)
    assert result.exception.code == "E-OPTION-CONFLICT"
