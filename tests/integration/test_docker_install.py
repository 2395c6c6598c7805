"""The Dockerfile's steps, done in a folder instead of an image, and the program that comes of them, used as in one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decathlete.synthetic.phantoms import make_phantoms
from decathlete.version import __version__
from dockerfile import DOCKERFILE, ROOT, Stage, copied_from_context, in_context, read_stages

BUILD, SHIPPED = read_stages()
PLACES = ("/opt/decathlete", "/data", "/prepared", "/results")
ANYONE = 12345
"""A user without an entry in /etc/passwd, as ``--user`` makes one."""

pytestmark = [pytest.mark.full, pytest.mark.timeout(3600)]


def _someone() -> dict[str, Any]:
    """How to start a process as :data:`ANYONE`; as ourselves where we are not root, or Python is root's alone."""
    other = {"user": ANYONE, "group": ANYONE, "extra_groups": []}
    python = Path(sys.base_prefix, "bin", "python3")
    try:
        subprocess.run([python, "-c", ""], cwd="/", check=True, **other)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return other


SOMEONE = _someone()


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """A folder with what the image would have below /: the program and the volumes, readable for everybody."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        context, build = root / "context", root / "build"
        _copy_context(context)
        build.mkdir()
        (root / "opt").mkdir()
        arguments = BUILD.args | {"DEVICE": "cpu", "TORCH_INDEX": _index_of_torch(root).as_uri()}
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
        outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        _follow(BUILD, root, context, build, outside | {"PATH": path} | BUILD.env | arguments)
        _follow(SHIPPED, root, context, root, {"PATH": path})
        make_phantoms(root / "data" / "Phantoms", n_cases=5, n_test=1, shape_ZYX=(16, 20, 16))
        yield root


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert hadolint is not None
    done = subprocess.run([hadolint, "--no-color", str(DOCKERFILE)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_only_tested_versions_are_installed(image: Path) -> None:
    code = "import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions()]"
    lines = _in_image(image, "python", "-c", code).splitlines()
    installed = {_plain(name): version.partition("+")[0] for name, version in (line.split() for line in lines)}
    constraints = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    tested = dict(line.split("==") for line in constraints if line and not line.startswith("#"))
    tested = {_plain(name): version for name, version in tested.items()}
    assert installed.pop("decathlete") == __version__
    assert {name: tested.get(name) for name in installed} == installed
    assert not {"pytest", "ruff", "mypy", "pip"} & set(installed)


def test_the_command_works_for_any_user_and_leaves_the_data_alone(image: Path) -> None:
    before = _contents(image / "data")
    assert __version__ in _in_image(image, "decathlete", "--version")
    assert "no problems found" in _in_image(image, "decathlete", "check", "Phantoms")
    short = ["--epochs", "1", "--steps-per-epoch", "2", "--set", "network.features=4,8,16"]
    assert "mean Dice" in _in_image(image, "decathlete", "run", "Phantoms", *short)
    run = image / "results" / "Phantoms" / "3d" / "fold_0"
    assert (run / "report.html").is_file()
    assert len(list((run / "predictions").glob("*.nii.gz"))) == 1
    assert _contents(image / "data") == before
    assert run.stat().st_uid == SOMEONE.get("user", os.getuid())


def _copy_context(folder: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True)
    for name in listed.stdout.decode().splitlines():
        if in_context(name) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def _index_of_torch(root: Path) -> Path:
    """A package index with nothing but the torch that pip finds here."""
    folder = root / "index" / "torch"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), "torch"], check=True)
    links = "".join(f'<a href="{wheel.name}">{wheel.name}</a>' for wheel in folder.glob("*.whl"))
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
    return folder.parent


def _follow(stage: Stage, root: Path, context: Path, work: Path, environment: dict[str, str]) -> None:
    """Do a stage's COPYs of files and its RUNs, with its places below ``root``."""
    copies = iter(copied_from_context(stage))
    for instruction in stage.instructions:
        if instruction.word == "COPY" and not instruction.text.startswith("--from"):
            sources, target = next(copies)
            for source in sources:
                _copy(context / source, work / target if len(sources) == 1 and target != "./" else work / source)
        elif instruction.word == "RUN":
            command = ["/bin/sh", "-c", _below(root, instruction.text)]
            done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def _in_image(image: Path, *command: str) -> str:
    """What a command prints that runs as in the container: its environment alone, its folder, and a user of no name."""
    path = f"{image}/opt/decathlete/bin:{os.defpath}"
    home = image / "tmp"
    home.mkdir(exist_ok=True)
    home.chmod(0o1777)
    environment = SHIPPED.env | {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8"}
    done = subprocess.run(
        [shutil.which(command[0], path=path) or command[0], *command[1:]],
        cwd=image,
        env=environment,
        capture_output=True,
        text=True,
        **SOMEONE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _below(root: Path, text: str) -> str:
    for place in PLACES:
        text = text.replace(f" {place}", f" {root}{place}")
    return text


def _contents(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
