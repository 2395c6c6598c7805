"""Seconds to turn the values of a label map into class indices, by the number of classes.

It is one pass over the volume, however many classes there are.

python benchmarks/labels.py --classes 2,20,117 --edge 200
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np

from decathlete.core.labels import LabelClass, LabelSet

ROUNDS = 5


def seconds(n_classes: int, edge: int) -> list[float]:
    """Time ``ROUNDS`` conversions of a volume that holds all classes."""
    labels = LabelSet(classes=tuple(LabelClass(name=f"class {v}", value=v) for v in range(n_classes)))
    rows = np.arange(edge**2) * n_classes // edge**2
    label_ZYX = np.repeat(rows, edge).reshape(edge, edge, edge).astype(np.uint8)
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        labels.to_indices(label_ZYX)
        found.append(time.perf_counter() - began)
    return found


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", default="2,20,117")
    parser.add_argument("--edge", type=int, default=200, help="of the volume, voxels")
    given = parser.parse_args()
    print("| classes | median s | least | most |\n|---|---|---|---|")
    for n_classes in map(int, given.classes.split(",")):
        found = seconds(n_classes, given.edge)
        print(f"| {n_classes} | {median(found):.4f} | {min(found):.4f} | {max(found):.4f} |")


if __name__ == "__main__":
    main()
