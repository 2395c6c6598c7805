"""``triton start`` runs a server until it ends or is asked to end. Here a small program takes the server's place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from decathlete.errors import TritonError
from decathlete.serving.triton.backend_folder import python_library_folder, python_version
from guards import HANG_S
from service_support import wait_until

pytest.importorskip("tritonclient.grpc")
PROGRAM = f"""#!{sys.executable}
import os, signal, sys
from pathlib import Path


def end(number, frame):
    Path("ended").write_text(str(number))
    sys.exit(0)


signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the signal that counts is the forwarded one
options = dict(word.removeprefix("--").partition("=")[::2] for word in sys.argv[1:])
if options["model-control-mode"] == "explicit":
    sys.exit(3)
backends = Path(options["backend-directory"])
options["backends"] = " ".join(sorted(os.listdir(backends))) if backends.is_dir() else ""
Path("partial").write_text("\\n".join(f"{{name}}={{value}}" for name, value in options.items()))
os.rename("partial", "options")
while True:
    signal.pause()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model repository; commands run in it."""
    (tmp_path / "repository" / "a").mkdir(parents=True)
    (tmp_path / "repository" / "a" / "config.pbtxt").write_text('name: "a" backend: "python"')
    return tmp_path


def write_program(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return path


def options_of(folder: Path) -> dict[str, str]:
    lines = (folder / "options").read_text().splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``decathlete triton start repository`` as a process of its own."""
    command = [sys.executable, "-m", "decathlete", "triton", "start", "repository", *arguments]
    environment = os.environ | {"PATH": os.defpath}  # without a server
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_and_is_no_error(folder: Path, number: signal.Signals) -> None:
    server = write_program(folder / "opt" / "bin" / "tritonserver")
    arguments = ["--server", str(server), "--model-control", "poll", "--http-port", "18000"]
    with started(folder, *arguments) as process:
        wait_until((folder / "options").is_file)
        process.send_signal(number)
        _, printed = process.communicate(timeout=HANG_S)
    assert (process.returncode, printed) == (0, "")
    assert (folder / "ended").read_text() == str(int(signal.SIGTERM))
    options = options_of(folder)
    assert options["model-control-mode"] == "poll"
    assert (options["http-address"], options["http-port"]) == ("127.0.0.1", "18000")
    assert options["model-repository"] == str(folder / "repository")


def test_a_server_that_fails_is_an_error(folder: Path) -> None:
    server = write_program(folder / "opt" / "bin" / "tritonserver")
    arguments = ["--server", str(server), "--model-control", "explicit", "--load", "a"]
    with started(folder, *arguments) as process:
        _, printed = process.communicate(timeout=HANG_S)
    assert process.returncode == 2
    assert "the server exited unexpectedly (status 3)" in printed
    assert "E-TRITON-SERVER" in printed


def test_the_server_of_make_triton_is_found_in_the_folder(folder: Path) -> None:
    try:
        python_library_folder()
    except TritonError as problem:
        pytest.skip(problem.problem)
    server = folder / ".venv-triton" / "lib" / "python3.99" / "site-packages" / "pytriton" / "tritonserver"
    write_program(server / "bin" / "tritonserver")
    (server / "backends" / "python").mkdir(parents=True)
    stub = server / "python_backend_stubs" / python_version() / "triton_python_backend_stub"
    stub.parent.mkdir(parents=True)
    stub.touch()
    with started(folder) as process:
        wait_until(lambda: (folder / "options").is_file() or process.poll() is not None)
        process.terminate()
        _, printed = process.communicate(timeout=HANG_S)
    assert (process.returncode, printed) == (0, "")
    assert options_of(folder)["backends"] == "onnxruntime openvino python pytorch"
