"""A real Triton Inference Server for tests, where one is installed (``make triton``)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
import pytest

from decathlete.core.geometry import Geometry
from decathlete.errors import DecathleteError
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.serving.triton.installed_server import ServerInstallation, find_server
from decathlete.serving.triton.protocol import ClientOptions
from decathlete.serving.triton.server import TritonServerOptions, free_ports, running_server, wait_until_ready
from factories import make_oblique_geometry, make_test_plan, make_volumes

PLAN = make_test_plan(3)
XYZ = [2, 1, 0, 3]
SPACINGS = ((1.0, 1.0, 1.0), (1.2, 0.9, 0.9), (0.8, 1.0, 1.3), (2.0, 1.1, 0.7))


def require_server() -> ServerInstallation:
    """Return an installed server, or skip the test."""
    try:
        return find_server(Path(os.environ.get("DECATHLETE_TRITON", ".venv-triton")))
    except DecathleteError as problem:
        pytest.skip(problem.problem)


def save_model(folder: Path, seed: int) -> Path:
    """Save a model with random weights."""
    networks = [build_network(PLAN.network, seed=seed)]
    return ModelBundle.save(folder, TrainedMember(plan=PLAN, networks=networks)).folder


def save_images(folder: Path, n: int) -> Path:
    """Save images of several shapes and spacings; every second one is oblique, every third one flipped."""
    folder.mkdir()
    for number in range(n):
        shape, spacing = (12 + number % 7, 20 - number % 5, 15 + number % 4), SPACINGS[number % len(SPACINGS)]
        image, _ = make_volumes(shape, seed=number)
        geometry = make_oblique_geometry(shape, spacing) if number % 2 else Geometry.plain(shape, spacing_ZYX=spacing)
        affine = geometry.matrix[:, XYZ]
        if number % 3 == 0:
            affine = affine @ np.diag([-1, 1, -1, 1])
        nibabel.save(nibabel.Nifti1Image(image[0].T, affine), folder / f"c{number:02}.nii.gz")
    return folder


@contextmanager
def serving(repository: Path, server: ServerInstallation, log: Path) -> Iterator[tuple[ClientOptions, ClientOptions]]:
    """Serve a repository; yield the options of its clients, HTTP and gRPC."""
    http, grpc, metrics = free_ports(3)
    options = TritonServerOptions(http_port=http, grpc_port=grpc, metrics_port=metrics)
    with running_server(repository, options=options, server=server, environment=os.environ, log=log) as process:
        wait_until_ready(process, options, timeout_s=900)
        yield (
            ClientOptions(protocol="http", address=f"127.0.0.1:{http}"),
            ClientOptions(protocol="grpc", address=f"127.0.0.1:{grpc}"),
        )
