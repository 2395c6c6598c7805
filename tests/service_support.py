"""A small model, services in this process and in one of their own, images, and hostile requests."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import uvicorn
from fastapi import FastAPI
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from decathlete.core.geometry import Geometry
from decathlete.inference.options import PredictOptions
from decathlete.io.images import write_image
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.serving.http.app import create_app
from decathlete.serving.service import Service
from decathlete.serving.settings import ModelSource, ServiceLimits, ServiceSettings
from factories import make_oblique_geometry, make_test_plan

TOKEN = "a-token-of-enough-characters"
JOBS = "/api/v1/jobs"
FP32 = PredictOptions(device="cpu", precision="fp32", engine="torch")
FINAL = ("done", "failed", "cancelled")
_WAIT_S = 1200.0
"""Guard against tests that hang, seconds."""


def save_model(folder: Path, *, seed: int = 0, dataset: str = "Tiny", **changes: Any) -> Path:
    """A network with random weights."""
    plan = make_test_plan(dataset=dataset, **changes)
    ModelBundle.save(folder, TrainedMember(plan=plan, networks=[build_network(plan.network, seed=seed)]))
    return folder


def image_bytes(shape: tuple[int, int, int] = (20, 24, 18), *, seed: int = 0, suffix: str = ".nii.gz") -> bytes:
    """An oblique image of noise as the bytes of a file."""
    import tempfile

    array = np.random.default_rng(seed).normal(100, 20, (1, *shape)).astype(np.float32)
    geometry = make_oblique_geometry(shape) if suffix != ".png" else Geometry.plain(shape, spacing_ZYX=(1.0, 1.0, 1.0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"image{suffix}"
        write_image(path, array, geometry)
        return path.read_bytes()


def dicom_series(folder: Path, *, n_slices: int = 12) -> Path:
    """An axial CT series of Jane Doe; the order of names is not that of positions."""
    folder.mkdir()
    voxels = np.random.default_rng(0).integers(0, 1000, (n_slices, 16, 18), dtype=np.int16)
    for k in range(n_slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(k)])
        slice_ = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID = (
            generate_uid(entropy_srcs=[n]) for n in ("study", "series")
        )
        slice_.PatientName, slice_.Modality, slice_.InstanceNumber = "Doe^Jane", "CT", k + 1
        slice_.ImagePositionPatient, slice_.ImageOrientationPatient = [-9, 8, 1.5 * k], [1, 0, 0, 0, 1, 0]
        slice_.PixelSpacing, slice_.SliceThickness, slice_.Rows, slice_.Columns = [1.1, 0.9], 1.5, 16, 18
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
        slice_.PixelData = voxels[k].tobytes()
        pydicom.dcmwrite(folder / f"Doe Jane {(k * 7) % n_slices}", slice_, enforce_file_format=True)
    return folder


def settings_for(model: Path, data: Path, **changes: Any) -> ServiceSettings:
    """One model under the name ``tiny``, in fp32."""
    data.mkdir(exist_ok=True)
    limits = ServiceLimits(**changes.pop("limits", {}))
    fields = {"models": (ModelSource(folder=model, name="tiny"),), "data": data, "options": FP32, "limits": limits}
    return ServiceSettings(**(fields | changes))


@contextmanager
def service_client(
    settings: ServiceSettings, service: Service | None = None, *, app: FastAPI | None = None
) -> Iterator[httpx.Client]:
    """A client of a real server in a thread of this process; with the token, if there is one."""
    config = uvicorn.Config(
        app or create_app(settings, service),
        host="127.0.0.1",
        port=0,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        headers = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=_WAIT_S) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def send(client: httpx.Client, content: bytes, *, name: str = "image.nii.gz", model: str = "tiny") -> httpx.Response:
    """Upload one file as the body."""
    return client.post(JOBS, params={"model": model}, content=content, headers={"X-File-Name": name})


def wait_for(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """Wait until a job is finished; its status."""
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        status = client.get(f"{JOBS}/{job_id}").json()
        if status.get("state", "cancelled") in FINAL:  # a deleted job has none
            return status
        time.sleep(0.02)
    raise AssertionError("the job was not finished")


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 600  # against tests that hang
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Launcher:
    """A process that has imported everything, from which services are forked; see :mod:`service_launcher`."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("service_launcher.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **request: Any) -> int:
        """Send a request; its answer."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it and every process that it started."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class ServiceProcess:
    """``decathlete serve`` as a process of its own, which can be killed and started again.

    Args:
        launcher: starts the process.
        arguments: further options.
    """

    def __init__(self, launcher: Launcher, model: Path, data: Path, *arguments: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = data.with_name(f"{data.name}.log")
        self._launcher, self._pid = launcher, 0
        self._command = ["serve", "--model", f"tiny={model}", "--data", str(data), "--port", str(self.port)]
        self._command += ["--device", "cpu", "--engine", "torch", "--precision", "fp32", *arguments]

    def start(self) -> None:
        """Start it and wait until it listens, which it does when its models are loaded."""
        self._pid = self._launcher.ask(start=self._command, log=str(self.log))
        deadline = time.monotonic() + _WAIT_S
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port)):
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"the service did not start: {self.log.read_text()}")

    def kill(self) -> None:
        """Kill it as a power failure would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        os.kill(self._pid, number)
        status = self._launcher.ask(wait=self._pid)
        self._pid = 0
        return status

    def __enter__(self) -> ServiceProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._pid:
            self.kill()


@dataclass(frozen=True)
class Hostile:
    """A request that must be rejected.

    Attributes:
        status: of the answer, one of these.
        code: of the error in the answer.
    """

    name: str
    status: tuple[int, ...]
    code: str
    request: Callable[[], dict[str, Any]]


def hostile_requests(*, upload_limit: int) -> list[Hostile]:
    """At least sixty, for a service with :data:`TOKEN` and this limit of an upload."""
    cases: list[Hostile] = []

    def add(name: str, status: int | tuple[int, ...], code: str, **request: Any) -> None:
        statuses = (status,) if isinstance(status, int) else status
        cases.append(Hostile(name=name, status=statuses, code=code, request=lambda: request))

    def add_upload(name: str, status: int | tuple[int, ...], code: str, content: bytes, file_name: str) -> None:
        headers = {"X-File-Name": file_name}
        add(name, status, code, method="POST", url=f"{JOBS}?model=tiny", content=content, headers=headers)

    _add_tokens(add)
    _add_addresses(add)
    _add_forms(add)
    for name, status, code, content, file_name in _bad_files(upload_limit):
        add_upload(name, status, code, content, file_name)
    return cases


def _add_tokens(add: Callable[..., None]) -> None:
    for name, value in {
        "no token": "",
        "a wrong token": "Bearer wrong-token-of-many-letters",
        "a prefix of the token": f"Bearer {TOKEN[:-1]}",
        "a longer token": f"Bearer {TOKEN}x",
        "the token in another scheme": f"Basic {TOKEN}",
        "a token that is not text": b"Bearer \xff\xfe\xfd",
        "a huge token": "Bearer " + "a" * 30_000,
    }.items():
        add(name, 401, "E-SERVICE-TOKEN", method="GET", url="/api/v1/models", headers={"Authorization": value})
    for name, cookie in {
        "a made-up cookie": "9999999999.00ff",
        "a cookie without signature": "9999999999",
        "a cookie that is no number": "x.y",
    }.items():
        headers = {"Authorization": "", "Cookie": f"decathlete_session={cookie}"}
        add(name, 401, "E-SERVICE-TOKEN", method="GET", url="/metrics", headers=headers)
    add("a login with a wrong token", 401, "E-SERVICE-TOKEN", method="POST", url="/api/v1/login", json={"token": "x"})
    add("a login without token", 422, "E-SERVICE-REQUEST", method="POST", url="/api/v1/login", json={})
    add("a login that is no JSON", 422, "E-SERVICE-REQUEST", method="POST", url="/api/v1/login", content=b"{" * 999)
    add("a huge login", 413, "E-SERVICE-SIZE", method="POST", url="/api/v1/login", content=b" " * 2_000_000)
    upload = {"method": "POST", "url": f"{JOBS}?model=tiny", "content": b"x", "headers": {"Authorization": ""}}
    add("an upload without token", 401, "E-SERVICE-TOKEN", **upload)
    add("a deletion without token", 401, "E-SERVICE-TOKEN", method="DELETE", url=f"{JOBS}/{'0' * 32}",
        headers={"Authorization": ""})  # fmt: skip


def _add_addresses(add: Callable[..., None]) -> None:
    get = {"method": "GET", "url": "/api/v1/models"}
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1@evil.example", "localhost:port", ""):
        add(f"the host {host!r}", (400, 421), "E-SERVICE-ORIGIN", **get, headers={"Host": host})
    for origin in ("https://evil.example", "null", "http://localhost.evil.example", "file://localhost"):
        add(f"the origin {origin}", 403, "E-SERVICE-ORIGIN", **get, headers={"Origin": origin})
    ids = ("..%2f..%2fetc%2fpasswd", "0" * 31, "0" * 33, "A" * 32, "%00" * 16, "' OR 1=1 --", "..%5c..%5cjobs.sqlite")
    for job_id in ids:
        add(f"the job {job_id}", (404, 422), "E-SERVICE-REQUEST", method="GET", url=f"{JOBS}/{job_id}")
    for path in (
        "/page/../app.py",
        "/page/%2e%2e/security.py",
        "/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/jobs.sqlite",
    ):
        add(f"the path {path}", 404, "E-SERVICE-REQUEST", method="GET", url=path)
    add("a job that never was", 404, "E-SERVICE-JOB", method="GET", url=f"{JOBS}/{'0' * 32}/result")
    add("an unknown method", 405, "E-SERVICE-REQUEST", method="PATCH", url=f"{JOBS}/{'0' * 32}")
    add("an unknown model", 404, "E-SERVICE-MODEL", method="POST", url=f"{JOBS}?model=../../etc", content=b"x")
    add("no model", 422, "E-SERVICE-REQUEST", method="POST", url=JOBS, content=b"x")


def _add_forms(add: Callable[..., None]) -> None:
    url, good = f"{JOBS}?model=tiny", image_bytes()
    start = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.nii.gz"\r\n\r\n'
    for name, content, content_type in (
        ("a form without boundary", start + good + b"\r\n--b--", "multipart/form-data"),
        ("a form that ends too early", start + good[:100], "multipart/form-data; boundary=b"),
        ("a form with another boundary", start + good + b"\r\n--b--", "multipart/form-data; boundary=c"),
        ("a form without files", b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--',
         "multipart/form-data; boundary=b"),
        ("a form with a huge header", b"--b\r\nX: " + b"a" * 20_000, "multipart/form-data; boundary=b"),
        ("a form of noise", bytes(range(256)) * 20, "multipart/form-data; boundary=b"),
    ):  # fmt: skip
        headers = {"Content-Type": content_type}
        add(name, 422, "E-SERVICE-REQUEST", method="POST", url=url, content=content, headers=headers)
    two = [("files", ("a.nii.gz", good)), ("files", ("b.nii.gz", good))]
    add("two images", 422, "E-IMAGE-NOT-FOUND", method="POST", url=url, files=two)


def _bad_files(limit: int) -> Iterator[tuple[str, int | tuple[int, ...], str, bytes, str]]:
    good, plain = image_bytes(), gzip.decompress(image_bytes())
    yield "an empty upload", 422, "E-SERVICE-REQUEST", b"", "a.nii.gz"
    yield "an upload above the limit", 413, "E-SERVICE-SIZE", b"\0" * (limit + 1), "a.nii"
    yield "noise", (415, 422), "E-IMAGE", np.random.default_rng(0).bytes(5000), "a.nii.gz"
    yield "text", (415, 422), "E-IMAGE", b"hello " * 100, "a.txt"
    yield "a name with a path", (415, 422), "E-IMAGE", b"hello " * 100, "..%2f..%2fetc%2fcron.d%2fx"
    yield "a name of 4000 characters", (415, 422), "E-IMAGE", b"hello " * 100, "a" * 4000
    yield "a cut NIfTI", 422, "E-IMAGE", plain[:-4000], "a.nii"
    yield "a cut NIfTI.gz", 422, "E-IMAGE", good[: len(good) // 2], "a.nii.gz"
    yield "a header alone", 422, "E-IMAGE", plain[:348], "a.nii"
    yield "a NIfTI with a changed checksum", 422, "E-IMAGE", good[:-8] + b"\1\2\3\4" + good[-4:], "a.nii.gz"
    yield "a NIfTI of NaN axes", 422, "E-IMAGE", _nifti(plain, pixdim=float("nan")), "a.nii"
    for sizes in ((30000, 30000, 30000), (0, 5, 5), (-5, 5, 5)):
        content = _nifti(plain, sizes=sizes)
        yield f"a NIfTI of {sizes}", (413, 422), "E-", gzip.compress(content), "a.nii.gz"
        yield f"a raw NIfTI of {sizes}", (413, 422), "E-", content, "a.nii"
    yield "an NRRD bomb", (413, 422), "E-", _nrrd(b"sizes: 30000 30000 30000"), "a.nrrd"
    yield "an NRRD of another file", (415, 422), "E-IMAGE", _nrrd(b"data file: /etc/passwd\nsizes: 4 4 4"), "a.nrrd"
    mha = b"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_FLOAT\nElementDataFile = /etc/passwd\n"
    yield "a MetaImage of another file", (415, 422), "E-IMAGE", mha, "a.mha"
    yield "a detached header", (415, 422), "E-IMAGE", mha, "a.mhd"
    yield "a DICOM of noise", (415, 422), "E-IMAGE", b"\0" * 128 + b"DICM" + b"\xff" * 4000, "a.dcm"
    yield "an empty DICOM", (415, 422), "E-IMAGE", b"\0" * 128 + b"DICM", "a"
    yield "a zip of a path outside", 422, "E-ARCHIVE-UNSAFE", _zip({"../../evil.nii.gz": good}), "a.zip"
    yield "a zip of an absolute path", 422, "E-ARCHIVE-UNSAFE", _zip({"/tmp/evil.nii.gz": good}), "a.zip"
    yield "a zip of a Windows path", 422, "E-ARCHIVE-UNSAFE", _zip({"C:\\evil.nii.gz": good}), "a.zip"
    yield "a zip of a link", 422, "E-ARCHIVE-UNSAFE", _zip({"a.nii.gz": b"/etc/passwd"}, mode=0o120777), "a.zip"
    yield "a zip bomb", 422, "E-ARCHIVE-UNSAFE", _bomb(), "a.zip"
    yield "a zip of nothing", (415, 422), "E-IMAGE", _zip({}, empty=True), "a.zip"
    yield "a zip of text", (415, 422), "E-IMAGE", _zip({"readme.txt": b"hello"}), "a.zip"
    yield "a cut zip", 422, "E-ARCHIVE", _zip({"a.nii.gz": good})[:-30], "a.zip"
    yield "a zip of two images", 422, "E-IMAGE", _zip({"a/x.nii.gz": good, "b/y.nii.gz": good}), "a.zip"
    yield "a zip in a zip", (415, 422), "E-IMAGE", _zip({"b.zip": _zip({"a.nii.gz": good})}), "a.zip"
    yield "two channels for one", 422, "E-IMAGE-CHANNELS", _two_channels(), "a.nii.gz"


def _nifti(plain: bytes, *, sizes: tuple[int, int, int] | None = None, pixdim: float | None = None) -> bytes:
    header = bytearray(plain)
    if sizes is not None:
        header[42:48] = struct.pack("<3h", *sizes)
    if pixdim is not None:
        header[80:92] = struct.pack("<3f", *(pixdim,) * 3)
        header[280:328] = struct.pack("<12f", *(pixdim,) * 12)
    return bytes(header)


def _nrrd(fields: bytes) -> bytes:
    head = b"NRRD0004\ntype: float\ndimension: 3\nencoding: gzip\nendian: little\nspace: left-posterior-superior\n"
    directions = b"\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n\n"
    return head + fields + directions + gzip.compress(b"\0" * 1_000_000)


def _zip(members: dict[str, bytes], *, mode: int = 0o100644, empty: bool = False) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        if empty:
            packed.writestr(".hidden", b"")
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            packed.writestr(info, content)
    return stream.getvalue()


def _bomb() -> bytes:
    """A small file that says that it unpacks to 4 GB."""
    content = bytearray(_zip({"a.nii": b"\0" * 1_000_000}))
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = struct.pack("<I", 4_000_000_000)
    return bytes(content)


def _two_channels() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.nii.gz"
        write_image(path, np.ones((2, 8, 8, 8), np.float32), Geometry.plain((8, 8, 8), spacing_ZYX=(1.0, 1.0, 1.0)))
        return path.read_bytes()


def jobs_in_log(log: Path, event: str) -> list[str]:
    """Ids of the jobs that a log says this of, in order."""
    return re.findall(rf"job ([0-9a-f]{{32}}): {event}", log.read_text())
