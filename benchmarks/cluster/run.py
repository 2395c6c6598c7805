"""Prepare and predict made-up cases on one machine and on a Dask cluster of the same cores; one worker is killed.

Both sides run the same two commands (`preprocess`, `predict`), in alternating pairs. One machine: `--workers` as many
as cores, torch with as many threads. Cluster: one worker process of one thread for each core; when half of the
predictions are there, one of them is killed. Prepared arrays, label maps and records are compared. The exit code is 1
if anything differs or the throughput of the cluster is below the limit.

    python benchmarks/cluster/run.py --cases 500 --pairs 3 --cores 0,1
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from machines import Cluster, run_cluster

from common.machine import machine, versions
from common.models import random_model
from decathlete.synthetic.phantoms import make_phantoms

LIMIT = 0.85
"""Least throughput of the cluster, share of that of one machine."""
PATCH = (64, 64, 64)
CONNECT_S = "60s"


class Bench:
    """The made-up data and model, and the two sides."""

    def __init__(self, root: Path, *, cases: int, edge: int, cores: Sequence[int]) -> None:
        self.root, self.cases, self.cores = root, cases, cores
        self.data = make_phantoms(
            root / "data" / "Task07_Balls", n_cases=cases, shape_ZYX=(edge, edge, edge), channel="CT", noise=0.2
        )
        random_model(root / "model", classes=3, patch=PATCH, spacing=(1.0, 1.0, 1.0))

    def seconds(self, name: str, cluster: Cluster | None) -> float:
        """Prepare and predict all cases into a new folder; return the seconds of both commands."""
        folder = self.root / name
        places = ("--task", self.data, "--prepared", folder / "prepared")
        files = ("--model", self.root / "model", "--input", self.data / "imagesTr", "--output", folder / "predicted")
        where = ("--workers", len(self.cores)) if cluster is None else ("--cluster", cluster.address)
        began = time.perf_counter()
        self._command("preprocess", *places, *where)
        if cluster is None:
            self._command("predict", *files, "--device", "cpu")
        else:
            killer = threading.Thread(target=self._kill_at_half, args=(folder / "predicted", cluster), daemon=True)
            killer.start()
            self._command("predict", *files, "--device", "cpu", *where)
            killer.join()
        return time.perf_counter() - began

    def _command(self, *words: object) -> None:
        n = str(len(self.cores))
        done = subprocess.run(
            [sys.executable, "-m", "decathlete", *map(str, words)],
            env=os.environ | {"OMP_NUM_THREADS": n, "MKL_NUM_THREADS": n, "OPENBLAS_NUM_THREADS": n},
            preexec_fn=lambda: os.sched_setaffinity(0, self.cores),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{words[0]} failed:\n{done.stderr[-3000:]}")

    def _kill_at_half(self, predicted: Path, cluster: Cluster) -> None:
        while len(list(predicted.glob("phantom_*.json"))) < self.cases / 2:
            time.sleep(0.05)
        print(f"killed worker {cluster.kill_worker()}", flush=True)

    def differences(self, name: str, other: str) -> list[str]:
        """Return the files of two results that differ; records may differ in their seconds."""
        found = []
        for pattern in ("prepared/**/*.b2nd", "prepared/**/*.npz", "predicted/*.nii.gz", "predicted/*.json"):
            sides = [{p.relative_to(self.root / n): p for p in (self.root / n).glob(pattern)} for n in (name, other)]
            if sides[0].keys() != sides[1].keys() or not sides[0]:
                found.append(f"{pattern}: {len(sides[0])} and {len(sides[1])} files")
            found += [
                str(k) for k in sides[0].keys() & sides[1].keys() if _content(sides[0][k]) != _content(sides[1][k])
            ]
        return found


def _content(path: Path) -> object:
    if path.suffix != ".json":
        return path.read_bytes()
    record = json.loads(path.read_text())
    record.pop("seconds")
    return record


def main() -> None:
    """Measure in alternating pairs, compare, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--edge", type=int, default=96, help="voxels along each axis of a case")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--cores", default="0,1")
    given = parser.parse_args()
    cores = [int(core) for core in given.cores.split(",")]
    os.environ.setdefault("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", CONNECT_S)
    laps: dict[str, list[float]] = {"local": [], "cluster": []}
    with tempfile.TemporaryDirectory() as folder, run_cluster(Path(folder), cores) as cluster:
        bench = Bench(Path(folder), cases=given.cases, edge=given.edge, cores=cores)
        differences = []
        for pair in range(given.pairs):
            for side in ("local", "cluster") if pair % 2 == 0 else ("cluster", "local"):
                laps[side].append(bench.seconds(f"{side}_{pair}", cluster if side == "cluster" else None))
                print(f"{side}: {laps[side][-1]:.1f} s", flush=True)
            differences += bench.differences(f"local_{pair}", f"cluster_{pair}")
    ratios = [one / many for one, many in zip(laps["local"], laps["cluster"], strict=True)]
    print(f"\n{machine(cores)}; {versions(Path(sys.executable))}")
    print(f"{given.cases} cases of {given.edge} voxels along each axis, {given.pairs} pairs\n")
    print("| side | median s | least | most | cases/s |\n|---|---|---|---|---|")
    for side, found in laps.items():
        line = f"{median(found):.1f} | {min(found):.1f} | {max(found):.1f} | {given.cases / median(found):.2f}"
        print(f"| {side} | {line} |")
    of_pairs = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"\nthroughput of the cluster: {median(ratios):.2f} of one machine (pairs: {of_pairs})")
    print(f"files that differ: {len(differences)} {differences[:10]}")
    sys.exit(int(bool(differences) or median(ratios) < LIMIT))


if __name__ == "__main__":
    main()
