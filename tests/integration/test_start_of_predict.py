"""What `predict` loads before it can begin: no more than the images and the engine need."""

from __future__ import annotations

import subprocess
import sys

from decathlete.core.geometry import Geometry
from decathlete.io.images import write_image
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from factories import make_test_plan, make_volumes

NEEDLESS = {"SimpleITK", "blosc2", "lightning", "matplotlib", "onnx", "onnxruntime", "openvino"}

PREDICT = f"""
import sys
from decathlete.cli.main import app
try:
    app(["predict", "--model", "m", "--input", "a.nii.gz", "--output", "out", "--engine", "torch", "--device", "cpu"])
except SystemExit as stop:
    assert not stop.code
print(sorted({NEEDLESS} & set(sys.modules)))
"""


def test_a_nifti_file_is_predicted_without_what_other_formats_and_engines_need(tmp_path):
    plan = make_test_plan()
    ModelBundle.save(tmp_path / "m", TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)]))
    write_image(
        tmp_path / "a.nii.gz", make_volumes((16, 16, 16))[0], Geometry.plain((16, 16, 16), spacing_ZYX=(1.0, 1.0, 1.0))
    )
    found = subprocess.run([sys.executable, "-c", PREDICT], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert found.stdout.splitlines() == ["1 prediction in out", "[]"]
