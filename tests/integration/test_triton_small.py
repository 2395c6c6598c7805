"""The smallest check of a real Triton Inference Server, where one is installed; test_triton_server has the others."""

from __future__ import annotations

from pathlib import Path

from decathlete.export.triton_options import TritonSettings
from decathlete.serving.triton.verify import TritonVerifyOptions, triton_verify
from decathlete.workflows.export_triton import export_triton
from triton_server_support import require_server, save_images, save_model, serving


def test_network_and_pipeline_compute_what_the_model_computes(tmp_path: Path) -> None:
    server = require_server()
    model, images = save_model(tmp_path / "m", 0), save_images(tmp_path / "images", 2)
    settings = TritonSettings(name="small", engine="torch", format="torchscript-trace")
    export_triton(model, tmp_path / "repository", settings=settings)
    with serving(tmp_path / "repository", server, tmp_path / "log") as clients:
        report = triton_verify(model, inputs=images, options=TritonVerifyOptions(name="small", clients=clients))
    assert report.problems == ()
    assert [(found.model, found.protocol) for found in report.models] == [
        (f"small_{kind}", protocol) for kind in ("network", "pipeline") for protocol in ("http", "grpc")
    ]
