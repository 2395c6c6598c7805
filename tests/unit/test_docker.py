"""The container's recipe without a container: what the Dockerfile, .dockerignore and compose.yaml promise."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from decathlete.cli.command_table import COMMANDS
from decathlete.workflows.workspace import Workspace
from dockerfile import DOCKERFILE, ROOT, copied_from_context, in_context, read_stages

BUILD, SHIPPED = read_stages()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
COMPOSED = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
SERVICES = {name: service for name, service in COMPOSED.items() if name != "triton"}


def test_bases_are_pinned_to_one_version() -> None:
    for stage in (BUILD, SHIPPED):
        assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", stage.base)
    minor = int(SHIPPED.base.split(".")[1])
    assert minor >= int(PROJECT["requires-python"].partition("3.")[2])


def test_nobody_is_root_in_the_shipped_image() -> None:
    (user,) = SHIPPED.texts("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "numbers, for systems that must know without /etc/passwd"
    words = [instruction.word for instruction in SHIPPED.instructions]
    assert "RUN" not in words[words.index("USER") :]


def test_nothing_is_fetched_but_packages_in_tested_versions() -> None:
    text = DOCKERFILE.read_text("utf-8")
    assert not re.search(r"^ADD|https?://|curl|wget", text, re.MULTILINE)
    installs = [part for run in BUILD.texts("RUN") for part in re.split(r";;|&&", run) if " install " in part]
    assert len(installs) == 3
    assert all("-c constraints.txt" in part for part in installs)
    assert BUILD.env["PIP_NO_CACHE_DIR"] == "1"
    installers = [run for run in SHIPPED.texts("RUN") if re.search("pip|apt", run)]
    assert installers == [], "the shipped image gets it copied"


def test_what_is_copied_is_there_and_let_through() -> None:
    for sources, _ in copied_from_context(BUILD):
        for source in sources:
            assert (ROOT / source).exists()
            assert in_context(source)
    assert not copied_from_context(SHIPPED)
    assert in_context("src/decathlete/planning/presets/recipe.json")


OUTSIDE = ["data/Task04/imagesTr/a.nii.gz", "results/x", "prepared/x", "demo/x", "shared/x", "notebooks/x/data/y"]
PRIVATE = [".git/config", ".venv/bin/python", ".env", "x.nii.gz", "src/decathlete/__pycache__/x.pyc"]


@pytest.mark.parametrize("path", [*OUTSIDE, *PRIVATE])
def test_data_results_and_history_stay_out(path: str) -> None:
    assert not in_context(path)


def test_it_is_the_command_with_its_default_folders_as_volumes() -> None:
    (entry,), (volumes,) = SHIPPED.texts("ENTRYPOINT"), SHIPPED.texts("VOLUME")
    assert json.loads(entry) == ["decathlete"]
    assert "decathlete" in PROJECT["scripts"]
    (here,) = SHIPPED.texts("WORKDIR")
    places = Workspace()
    assert json.loads(volumes) == [str(here / p) for p in (places.data, places.prepared, places.results)]


def test_its_labels_say_what_the_project_says() -> None:
    (labels,) = SHIPPED.texts("LABEL")
    for name, value in {"licenses": PROJECT["license"], "description": PROJECT["description"]}.items():
        assert re.search(rf'org\.opencontainers\.image\.{name}="{re.escape(value)}', labels)
    assert set(BUILD.args["EXTRAS"].split(",")) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize(
    ("device", "index", "expected"),
    [
        ("gpu", "", "install -c constraints.txt torch"),
        ("cpu", "INDEX", "install -c constraints.txt --no-deps --index-url INDEX torch"),
        ("cpu", "", "--build-arg TORCH_INDEX"),
        ("tpu", "", "choose cpu or gpu"),
    ],
)
def test_device_chooses_the_build_of_torch(tmp_path: Path, device: str, index: str, expected: str) -> None:
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\necho "$@"\n')
    pip.chmod(0o755)
    (run,) = [run for run in BUILD.texts("RUN") if "DEVICE" in run]
    done = subprocess.run(
        ["/bin/sh", "-c", run],
        env={"DEVICE": device, "TORCH_INDEX": index, "PATH": f"{tmp_path}:{os.defpath}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == expected.startswith("install")
    assert expected in done.stdout + done.stderr


def test_triton_listens_on_this_machine_alone_and_reads_its_repository() -> None:
    triton = COMPOSED["triton"]
    assert triton["profiles"] == ["triton"]
    assert all(port.startswith("127.0.0.1:") for port in triton["ports"])
    (volume,) = triton["volumes"]
    assert (volume["target"], volume["read_only"]) == ("/models", True)
    dockerfile = (ROOT / triton["build"]["dockerfile"]).read_text("utf-8")
    assert "--model-repository=/models" in dockerfile
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", dockerfile, re.MULTILINE)
    assert all("-c constraints.txt" in line for line in dockerfile.splitlines() if "pip install" in line)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_builds_for_its_device_and_writes_only_results(name: str) -> None:
    service, device = SERVICES[name], name.rpartition("-")[2]
    assert service["profiles"] == [device]
    assert service["build"]["args"]["DEVICE"] == device
    assert set(service["build"]["args"]) <= set(BUILD.args)
    assert service["image"] == f"decathlete:{device}"
    assert ("deploy" in service) == (device == "gpu")
    assert service["user"].startswith("${OWNER:?"), "files belong to whoever calls, who must say so"
    command, *options = service["entrypoint"][1:]
    assert command in COMMANDS
    writable = {volume["target"] for volume in service["volumes"] if not volume.get("read_only")}
    assert writable == ({"/prepared", "/results"} if command == "run" else {"/segmentations"})
    targets = {volume["target"] for volume in service["volumes"]}
    assert {option for option in options if option.startswith("/")} <= targets
    (volumes,) = SHIPPED.texts("VOLUME")
    if command == "run":
        assert targets == set(json.loads(volumes))


def test_services_are_train_and_predict_for_both() -> None:
    assert set(SERVICES) == {"train-cpu", "train-gpu", "predict-cpu", "predict-gpu"}
    assert SERVICES["train-gpu"]["shm_size"], "NCCL needs it between several GPUs"
