"""A real archive in tests: Orthanc with its DICOMweb plug-in, on this computer."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from external_programs import ORTHANC_PLUGIN, find_orthanc

_WAIT_S = 60.0
"""Guard against tests that hang, seconds."""


class Orthanc:
    """A running archive."""

    def __init__(self, port: int, dicom_port: int) -> None:
        self.dicom_port = dicom_port
        self._rest = f"http://127.0.0.1:{port}"

    @property
    def web(self) -> str:
        """Address of the DICOMweb services."""
        return f"{self._rest}/dicom-web"

    @property
    def peer(self) -> str:
        """Address for C-STORE, ``AET@HOST:PORT``."""
        return f"ORTHANC@127.0.0.1:{self.dicom_port}"

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            return httpx.get(f"{self._rest}/system").status_code == 200
        except httpx.TransportError:
            return False

    def store(self, *paths: Path) -> None:
        """Store files, and the files in folders."""
        for path in paths:
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                httpx.post(f"{self._rest}/instances", content=file.read_bytes()).raise_for_status()

    def segmentations(self, folder: Path) -> list[Path]:
        """Download all SEG instances, in the order in which they arrived, and return their files."""
        folder.mkdir(exist_ok=True)
        query = {"Level": "Instance", "Query": {"Modality": "SEG"}, "Expand": True}
        found: list[dict[str, Any]] = httpx.post(f"{self._rest}/tools/find", json=query).raise_for_status().json()
        ids = [one["ID"] for one in sorted(found, key=lambda one: self._received(one["ID"]))]
        for name in ids:
            content = httpx.get(f"{self._rest}/instances/{name}/file").raise_for_status().content
            (folder / f"{name}.dcm").write_bytes(content)
        return [folder / f"{name}.dcm" for name in ids]

    def _received(self, name: str) -> str:
        return httpx.get(f"{self._rest}/instances/{name}/metadata/ReceptionDate").raise_for_status().text


@contextmanager
def orthanc(folder: Path) -> Iterator[Orthanc]:
    """Run an archive, and end it."""
    program = find_orthanc()
    if program is None or not ORTHANC_PLUGIN.is_file():
        pytest.skip("Orthanc with its DICOMweb plug-in is not installed")
    archive = Orthanc(free_port(), free_port())
    folder.mkdir()
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": int(archive.web.rsplit(":", 1)[1].split("/")[0]),
        "DicomAet": "ORTHANC",
        "DicomPort": archive.dicom_port,
        "DicomAlwaysAllowStore": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(ORTHANC_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _WAIT_S
        while not archive.is_ready():
            assert process.poll() is None, (folder / "orthanc.log").read_text()
            assert time.monotonic() < deadline, "Orthanc does not answer"
            time.sleep(0.1)
        yield archive
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """Return a port that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
