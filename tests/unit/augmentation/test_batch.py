"""Stacking patches: values and places, and no threads of torch's own in the reader that does it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from decathlete.augmentation.batch import SpatialParams, collate

READ_IN_A_THREAD = """
import os, threading
import numpy as np, torch
from decathlete.augmentation.batch import SpatialParams, collate
torch.set_num_threads(4)
size = (64, 128, 128)
image, label = np.ones((1, *size), np.float32), np.ones(size, np.uint8)
counts = []
def read():
    before = len(os.listdir("/proc/self/task"))
    collate(0, [0, 1], [SpatialParams(size=size, flips=(False,) * 3)] * 2, ["a", "b"], [image] * 2, [label] * 2)
    counts.append(len(os.listdir("/proc/self/task")) - before)
thread = threading.Thread(target=read)
thread.start()
thread.join()
print(counts[0])
"""


def test_each_patch_fills_the_low_corner():
    draws = [SpatialParams(size=(2, 3), flips=(False, False), matrix=((1.0, 0.0), (0.0, 1.0))) for _ in range(2)]
    images = [np.full((1, 2, 3), 5, np.float32), np.full((1, 4, 2), 7, np.float32)]
    batch = collate(0, [0, 1], draws, ["a", "b"], images, [i[0].astype(np.uint8) for i in images])
    assert batch.warped_WCZYX.shape == (2, 1, 4, 3)
    assert batch.warped_WCZYX.dtype == torch.float32
    assert batch.warped_label_WZYX.dtype == torch.uint8
    assert batch.warped_WCZYX[0, 0].sum() == 5 * 6
    assert batch.warped_WCZYX[1, 0, :4, :2].eq(7).all()
    assert batch.warped_WCZYX[1, 0, :, 2].eq(0).all()
    assert batch.plain_PCZYX.shape[0] == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_a_reader_starts_no_workers_of_torch():
    """They would stay, and with more workers than processors OpenMP sleeps at each barrier of the training."""
    done = subprocess.run([sys.executable, "-c", READ_IN_A_THREAD], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 0
