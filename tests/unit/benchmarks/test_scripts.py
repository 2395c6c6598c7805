"""Small benchmarks run and print a row for each thing that they measure; what they measure is not judged here."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmark_support import BENCHMARKS

SCRIPTS = {
    "startup": (["--repeats", "1"], ["python -c pass", "import decathlete", "decathlete --help"]),
    "labels": (["--classes", "2,9", "--edge", "64"], ["2", "9"]),
    "training_memory": (["--networks", "plain,mednext-s", "--edge", "32"], ["plain", "mednext-s"]),
    "memory": (["--planes", "8", "--edge", "8", "--outputs", "3"], ["8 | z | 0", "8 | x | 0"]),
}


@pytest.mark.parametrize(
    "name", ["startup", "labels", "training_memory", pytest.param("memory", marks=pytest.mark.full)]
)
def test_a_benchmark_prints_a_row_for_each_measurement(name: str) -> None:
    options, rows = SCRIPTS[name]
    script = BENCHMARKS / f"{name}.py"
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for row in rows:
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"| {row} |")]
        assert float(line.split("|")[-2]) > 0
