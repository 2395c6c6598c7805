"""Images from DICOMweb, the proxy for viewers, and the names of structures in answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from decathlete.core.geometry import Geometry
from decathlete.errors import OutputError, ServiceError
from decathlete.io.volumes import LabelMap
from decathlete.serving.http.temporary_file import TemporaryFileResponse
from decathlete.serving.monai_label.answers import InferAnswer, InferParams, write_answer_image
from decathlete.serving.monai_label.dicomweb_proxy import make_dicomweb_proxy
from decathlete.serving.monai_label.image_sources import DicomWebImages
from decathlete.serving.storage import RESERVED_BYTES

SERIES = "1.2.3"


class FakeServer:
    """A DICOMweb server with one CT series of three slices."""

    def __init__(self, url: str) -> None:
        self.url, self.client = url, self

    def search_for_series(self, *, search_filters: dict[str, str]) -> list[dict[str, Any]]:
        series = {"0020000D": {"Value": ["1.2"]}, "0020000E": {"Value": [SERIES]}}
        matches = search_filters in ({"Modality": "CT"}, {"SeriesInstanceUID": SERIES})
        return [series, {}] if matches else []

    def download(self, study: str, series: str, folder: Path, *, check: Callable[[int], object]) -> Iterator[Path]:
        assert (study, series) == ("1.2", SERIES)
        for number in range(3):
            check(100)
            path = folder / str(number)
            path.write_bytes(b"DICM" * 25)
            yield path


def test_series_are_downloaded_by_their_uid(tmp_path) -> None:
    images = DicomWebImages("http://pacs/dicom-web/", limit_bytes=300, connect=FakeServer)
    assert images.url == "http://pacs/dicom-web"
    assert images.ids() == [SERIES]
    files = images.copy_files(SERIES, tmp_path)
    assert [file.name for file in files] == ["series/00000.dcm", "series/00001.dcm", "series/00002.dcm"]
    assert all(file.path.read_bytes().startswith(b"DICM") for file in files)


def test_a_series_that_is_unknown_or_too_large_is_refused(tmp_path) -> None:
    images = DicomWebImages("http://pacs", limit_bytes=150, connect=FakeServer)
    for image_id in ("1.2.4", "../1.2.3", "*"):
        with pytest.raises(ServiceError) as caught:
            images.copy_files(image_id, tmp_path)
        assert caught.value.code == "E-SERVICE-DATASTORE"
    with pytest.raises(ServiceError) as caught:
        images.copy_files(SERIES, tmp_path)
    assert caught.value.code == "E-SERVICE-SIZE"


def test_the_copy_of_a_series_leaves_room_on_the_disk(tmp_path, monkeypatch) -> None:
    images = DicomWebImages("http://pacs", limit_bytes=1000, connect=FakeServer)
    free = iter([RESERVED_BYTES + 100, RESERVED_BYTES + 99])
    monkeypatch.setattr("decathlete.core.sizes.free_disk_bytes", lambda _: next(free))
    with pytest.raises(OutputError) as caught:
        images.copy_files(SERIES, tmp_path)
    assert caught.value.code == "E-DISK-FULL"
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_a_server_that_does_not_answer_is_named(tmp_path) -> None:
    class Broken(FakeServer):
        def search_for_series(self, *, search_filters: dict[str, str]) -> list[dict[str, Any]]:
            raise ConnectionError("refused")

    with pytest.raises(ServiceError) as caught:
        DicomWebImages("http://pacs", limit_bytes=1, connect=Broken).ids()
    assert caught.value.code == "E-SERVICE-DICOMWEB"


def test_a_download_that_breaks_off_is_no_shorter_series(tmp_path) -> None:
    class Broken(FakeServer):
        def download(self, *args: Any, **options: Any) -> Iterator[Path]:
            yield next(super().download(*args, **options))
            raise ConnectionError("reset")

    images = DicomWebImages("http://pacs", limit_bytes=1000, connect=Broken)
    assert (images.has(SERIES), images.has("1.2.4"), images.has("*")) == (True, False, False)
    with pytest.raises(ServiceError) as caught:
        images.copy_files(SERIES, tmp_path)
    assert caught.value.code == "E-SERVICE-DICOMWEB"


@pytest.mark.parametrize("is_sent", [True, False])
def test_a_temporary_file_is_deleted_also_if_nobody_waits_for_it(tmp_path, is_sent: bool) -> None:
    async def send(message: Any) -> None:
        if not is_sent:
            raise OSError("gone")

    async def receive() -> Any:
        await asyncio.Event().wait()

    (tmp_path / "answer").write_bytes(b"1")
    answer = TemporaryFileResponse(
        tmp_path / "answer", media_type="text/plain", name=None, delete=(tmp_path / "answer").unlink
    )
    scope = {"type": "http", "method": "GET", "headers": [], "asgi": {"spec_version": "2.3"}}
    with nullcontext() if is_sent else pytest.raises(OSError, match="gone"):
        asyncio.run(answer(scope, receive, send))
    assert not (tmp_path / "answer").exists()


class FakeAnswer:
    status_code = 200
    headers = {"content-type": "application/dicom+json", "server": "pacs"}

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True

    def iter_content(self, size: int) -> list[bytes]:
        return [b"[", b"]"]


def test_the_proxy_reads_addresses_of_dicomweb_and_no_others() -> None:
    asked: list[tuple[str, list[tuple[str, str]]]] = []
    answers: list[FakeAnswer] = []

    def get(address: str, *, params: list[tuple[str, str]], **_: Any) -> FakeAnswer:
        asked.append((address, params))
        answers.append(FakeAnswer())
        return answers[-1]

    app = FastAPI()
    app.include_router(make_dicomweb_proxy("http://pacs/dicom-web", get=get))
    wrong = ("patients/1", "studies/..%2F..%2Fsystem", "studies/%2e%2e/x", "studies/1%3Fx=1", "http:%2F%2Fother")
    asyncio.run(_ask_proxy(app, wrong))
    assert asked == [
        ("http://pacs/dicom-web/studies/1.2/series", [("limit", "1"), ("limit", "2")]),
        ("http://pacs/dicom-web/studies/1.2/series/1.2.3/metadata", []),
    ]
    assert all(answer.is_closed for answer in answers)


async def _ask_proxy(app: FastAPI, wrong: tuple[str, ...]) -> None:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost/proxy/dicom") as client:
        answer = await client.get("/qido/studies/1.2/series?limit=1&limit=2")
        assert (answer.text, answer.headers["content-type"]) == ("[]", "application/dicom+json")
        assert "server" not in answer.headers
        assert (await client.get("/wado/studies/1.2/series/1.2.3/metadata")).status_code == 200
        for path in wrong:
            assert (await client.get(f"/qido/{path}")).status_code == 500  # the service turns the error into a 4xx
        assert (await client.post("/stow/studies")).status_code == 404


def test_a_server_that_does_not_answer_stops_no_other_request() -> None:
    is_back = threading.Event()

    def get(_address: str, **_: Any) -> FakeAnswer:
        is_back.wait()
        return FakeAnswer()

    app = FastAPI()
    app.include_router(make_dicomweb_proxy("http://pacs/dicom-web", get=get))
    app.get("/health")(lambda: "ready")
    assert asyncio.run(_ask_beside(app, is_back)) == (["ready"] * 50, [200] * 50)


async def _ask_beside(app: FastAPI, is_back: threading.Event) -> tuple[list[str], list[int]]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        waiting = [asyncio.create_task(client.get("/proxy/dicom/qido/studies")) for _ in range(50)]
        try:
            async with asyncio.timeout(60):  # it would wait without an end
                answers = [(await client.get("/health")).json() for _ in range(50)]
        finally:
            is_back.set()
        return answers, [(await one).status_code for one in waiting]


def test_only_structures_that_were_found_are_named_in_the_order_of_their_values() -> None:
    label = LabelMap(array_ZYX=np.array([[[0, 7, 3]]]), geometry=Geometry.plain((1, 1, 3)))
    answer = InferAnswer(
        label=Path("x"),
        labels={"spleen": 7, "liver": 3, "colon": 5},
        status={"volumes_ml": {}, "voxels": {}, "warnings": []},
        seconds=1,
    )
    assert list(answer.params(label)["label_names"].items()) == [("liver", 3), ("spleen", 7)]


def test_a_number_type_that_is_too_small_is_refused(tmp_path) -> None:
    label = LabelMap(array_ZYX=np.array([[[0, 300]]]), geometry=Geometry.plain((1, 1, 2)))
    asked = InferParams.parse('{"result_extension": ".nrrd", "result_dtype": "uint8", "other": 1}')
    with pytest.raises(ServiceError, match="300"):
        write_answer_image(label, asked, tmp_path)
    wider = asked.model_copy(update={"result_dtype": "uint16"})
    assert write_answer_image(label, wider, tmp_path).is_file()
