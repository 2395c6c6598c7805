"""Every comparison with the peers, at its small size: all contenders give a figure."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "benchmarks" / "peers" / "workloads").glob("[a-z]*.py"))


@pytest.mark.full
@pytest.mark.real_data
@pytest.mark.parametrize("name", NAMES)
def test_all_contenders_give_a_figure(name, tmp_path, real_data, peers):
    compare = ROOT / "benchmarks" / "peers" / "compare.py"
    options = [
        "--size",
        "small",
        "--rounds",
        "1",
        "--data",
        real_data("Task04_Hippocampus").parent,
        "--peers",
        peers.parents[1],
        "--output",
        tmp_path,
    ]
    done = subprocess.run([sys.executable, compare, name, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (record,) = tmp_path.glob("*.json")
    outcomes = [outcome for outcome in json.loads(record.read_text())["outcomes"] if not outcome["absent"]]
    assert len(outcomes) >= 2
    least = 0 if name == "dice" else 1e-9  # half a minute teaches nnU-Net nothing
    assert all(min(outcome["amounts"]) >= least for outcome in outcomes)
    assert min(outcomes[0]["amounts"]) > 0
    assert "| ours |" in done.stdout
