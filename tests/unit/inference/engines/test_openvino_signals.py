"""Ctrl-C still reaches a training after OpenVINO has predicted."""

from __future__ import annotations

import subprocess
import sys

import pytest

from guards import HANG_S

pytestmark = pytest.mark.full
for package in ("openvino", "onnx"):
    pytest.importorskip(package)

PROGRAM = """
import os, signal
from decathlete.inference.engines.openvino import OpenVinoEngine
from decathlete.networks.build import build_network
from decathlete.networks.architectures.unet import plan_unet
from decathlete.networks.onnx_program import onnx_program
from decathlete.planning.topology import make_topology

size = (32, 32)
spec = plan_unet(make_topology((1.0, 1.0), size), in_channels=1, out_channels=2)
program = onnx_program([build_network(spec, seed=1).eval()], window=(1, *size), n_outputs=2)
engines = [OpenVinoEngine(program, window=(1, *size)) for _ in range(2)]
while engines:
    del engines[0]  # the first made is the first to go
received = []
signal.signal(signal.SIGINT, lambda *_: received.append(1))
os.kill(os.getpid(), signal.SIGINT)
assert received
"""


def test_a_signal_is_received_when_engines_are_gone():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
