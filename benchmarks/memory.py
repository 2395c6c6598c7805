"""Peak resident memory while the probabilities of a prediction are restored and written, by the size of the volume.

It is to follow a slab, not the volume. Each size is measured in a process of its own.

python benchmarks/memory.py --planes 48,96,192 --edge 128 --outputs 64
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common.processes import peak_bytes, run_alone, tell

SLAB = 8
"""Planes that are restored at one time."""
ORDERS = {"z": (0, 1, 2), "x": (2, 0, 1)}
"""The axis of the file that the planes run across, and the permutation that brings it first."""


def restore(work: Mapping[str, Any]) -> None:
    """Restore ``planes`` x ``edge`` x ``edge`` voxels of ``outputs`` classes, to a file if ``written``."""
    import torch

    from decathlete.core.geometry import AxisTransform, Box, Geometry
    from decathlete.core.labels import LabelSet
    from decathlete.inference.output.probabilities import ProbabilityFile
    from decathlete.inference.output.restore import Restorer
    from decathlete.preprocessing.prepared import Restoration

    shape = (work["planes"], work["edge"], work["edge"])
    axes = AxisTransform(permutation=ORDERS[work["across"]])
    geometry = Geometry.plain(axes.inverse.shape(shape))
    way = Restoration(geometry=geometry, axes=axes, crop=Box(start=(0, 0, 0), stop=shape), shape=shape)
    labels = LabelSet.from_names([f"c{i}" for i in range(work["outputs"] - 1)])
    slab = torch.randn(work["outputs"], SLAB, *shape[1:])
    with TemporaryDirectory() as folder:
        store = ProbabilityFile.nifti(Path(folder), work["outputs"], geometry, axes) if work["written"] else None
        restorer = Restorer(way, labels, probabilities=store)
        for _ in range(shape[0] // SLAB):
            restorer.add(slab)
        restorer.finish()
        if store is not None:
            store.move_to(Path(folder) / "p.nii")
    tell({"peak_bytes": peak_bytes()})


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planes", default="48,96,192", help=f"multiples of {SLAB}")
    parser.add_argument("--edge", type=int, default=128, help="of a plane, voxels")
    parser.add_argument("--outputs", type=int, default=64)
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:1]
    print("| planes | across | probabilities, MB | peak without them, MB | peak, MB |\n|---|---|---|---|---|")
    for planes in map(int, given.planes.split(",")):
        for across in ORDERS:
            work = {"planes": planes, "edge": given.edge, "outputs": given.outputs, "across": across}
            without, written = (
                run_alone(Path(__file__), work | {"written": w}, python=Path(sys.executable), cores=cores)["peak_bytes"]
                for w in (False, True)
            )
            volume = 4 * given.outputs * planes * given.edge**2
            print(f"| {planes} | {across} | {volume / 1e6:.0f} | {without / 1e6:.0f} | {written / 1e6:.0f} |")


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        restore(json.loads(sys.argv[1]))
    else:
        main()
