"""The measurement of growth, at its small sizes: every command on every axis gives figures, tables and plots."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "benchmarks" / "growth" / "run.py"


@pytest.mark.full
@pytest.mark.parametrize("axis", ["cases", "voxels", "classes"])
def test_every_command_is_measured(axis, tmp_path):
    command = [sys.executable, RUN, "--axis", axis, "--small", "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (record,) = tmp_path.glob(f"*-growth-{axis}.json")
    measured = json.loads(record.read_text())["commands"]
    assert set(measured) == {"check", "preprocess", "predict"}
    for found in measured.values():
        assert len(found["points"]) == 3
        assert all(point["cpu_seconds"] > 0 and point["peak_bytes"] > 0 for point in found["points"])
    assert record.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    assert "| predict |" in record.with_suffix(".md").read_text()
