"""``triton start`` with a real server: it follows its repository, and ends with the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from decathlete.errors import TritonError
from decathlete.export.triton_options import TritonSettings
from decathlete.serving.triton.client import TritonClient
from decathlete.serving.triton.protocol import ClientOptions
from decathlete.serving.triton.server import TritonServerOptions, free_ports, wait_until_ready
from decathlete.serving.triton.verify import TritonVerifyOptions, triton_verify
from decathlete.workflows.export_triton import export_triton
from guards import HANG_S
from service_support import wait_until
from triton_server_support import require_server, save_images, save_model

pytestmark = pytest.mark.full


def make_environment(folder: Path, mark: Path) -> Path:
    """A plain environment with the packages of this one; its Python writes a file when it starts."""
    venv.create(folder)
    (packages,) = folder.glob("lib/python3.*/site-packages")
    (packages / "these.pth").write_text(sysconfig.get_paths()["purelib"])
    (packages / "sitecustomize.py").write_text(f"from pathlib import Path\n\nPath({str(mark)!r}).touch()\n")
    return folder


def has_model(client: TritonClient, name: str) -> bool:
    try:
        client.metadata(name)
    except TritonError:
        return False
    return True


def test_a_started_server_follows_its_repository_and_ends_with_the_command(tmp_path: Path) -> None:
    require_server()
    environment = Path(os.environ.get("DECATHLETE_TRITON", ".venv-triton")).resolve()
    if not environment.is_dir():
        pytest.skip("the server is no environment")
    (tmp_path / ".venv-triton").symlink_to(environment)
    model, images, repository = save_model(tmp_path / "m", 0), save_images(tmp_path / "images", 2), tmp_path / "r"
    own = make_environment(tmp_path / "own", tmp_path / "mark")
    pipeline = TritonSettings(name="a", models="pipeline", engine="torch", environment=str(own))
    export_triton(model, repository, settings=pipeline)
    ports = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
    command = [sys.executable, "-m", "decathlete", "triton", "start", str(repository), "--model-control", "poll"]
    command += [word for name, port in ports.items() for word in (f"--{name.replace('_', '-')}", str(port))]
    client_options = ClientOptions(address=f"127.0.0.1:{ports['grpc_port']}")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until_ready(process, TritonServerOptions(control="poll", **ports), timeout_s=HANG_S)
        assert (tmp_path / "mark").is_file()  # the pipeline runs in its own environment
        with TritonClient.connect(client_options) as client:
            with pytest.raises(TritonError) as unknown:
                client.metadata("a_network")
            assert unknown.value.code == "E-TRITON-REQUEST"
            export_triton(model, repository, settings=TritonSettings(name="a", models="network"))
            wait_until(lambda: has_model(client, "a_network"))
        options = TritonVerifyOptions(name="a", clients=(client_options,))
        assert triton_verify(model, inputs=images, options=options).problems == ()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=HANG_S) == 0
    finally:
        process.terminate()
        process.wait(timeout=HANG_S)
    with TritonClient.connect(client_options) as client, pytest.raises(TritonError, match="no answer"):
        client.metadata("a_network")
