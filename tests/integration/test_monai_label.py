"""MONAI Label's interface over HTTP: what 3D Slicer and OHIF send, and what they get back."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from decathlete.core.geometry import Geometry
from decathlete.errors import OptionError
from decathlete.io.images import read_grid, read_label, write_image, write_label
from decathlete.serving.http.app import create_app
from decathlete.serving.service import Service
from decathlete.serving.settings import ServiceSettings
from decathlete.serving.storage import RESERVED_BYTES
from decathlete.workflows.predict import predict
from dicom_support import write_enhanced
from factories import make_oblique_geometry
from service_support import (
    FP32,
    TOKEN,
    image_bytes,
    save_model,
    send,
    service_client,
    settings_for,
    wait_for,
    wait_until,
)

SHAPE = (20, 24, 18)
LABEL_INFO = [{"name": "a", "idx": 1}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    (folder / "case_1.nii.gz").write_bytes(image_bytes(SHAPE))
    return folder


@pytest.fixture(scope="module")
def settings(model: Path, studies: Path, tmp_path_factory: pytest.TempPathFactory) -> ServiceSettings:
    return settings_for(model, tmp_path_factory.mktemp("service") / "data", studies=str(studies))


@pytest.fixture(scope="module")  # every test leaves the datastore as it was
def viewer(settings: ServiceSettings) -> Iterator[httpx.Client]:
    with service_client(settings) as client:
        yield client


@pytest.fixture(scope="module")
def expected(model: Path, studies: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    folder = tmp_path_factory.mktemp("predicted")
    predict(model, studies, folder, options=FP32)
    return read_label(folder / "case_1.nii.gz").array_ZYX


def form_of(answer: httpx.Response) -> dict[str, tuple[str | None, bytes]]:
    """Field -> file name and content, as an independent parser reads the form."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    parts: Any = BytesParser().parsebytes(head + answer.content).get_payload()
    return {
        part.get_param("name", header="content-disposition"): (part.get_filename(), part.get_payload(decode=True))
        for part in parts
    }


def infer(viewer: httpx.Client, query: dict[str, str], params: dict[str, Any], **files: Any) -> httpx.Response:
    fields = {"params": (None, json.dumps(params)), **files}
    return viewer.post("/infer/tiny", params=query, files=fields)


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def read_bytes(content: bytes, folder: Path, suffix: str) -> tuple[np.ndarray, Geometry]:
    path = folder / f"answer{suffix}"
    path.write_bytes(content)
    label = read_label(path)
    return label.array_ZYX, label.geometry


def label_bytes(folder: Path, shape: tuple[int, int, int], value: int = 1) -> bytes:
    label = np.zeros(shape, np.uint8)
    label[0, 0] = value
    write_label(folder / "label.nii.gz", label, make_oblique_geometry(shape))
    return (folder / "label.nii.gz").read_bytes()


def test_viewers_read_models_labels_and_what_is_not_offered(viewer) -> None:
    info = viewer.get("/info/").json()
    assert info["models"]["tiny"]["type"] == "segmentation"
    assert list(info["models"]["tiny"]["labels"]) == info["labels"]
    assert sorted(info["models"]["tiny"]["labels"].values()) == [1, 2]
    assert info["datastore"] == {"total": 1, "completed": 0}
    assert info["trainers"] == info["strategies"] == {}
    assert viewer.get("/auth/").json()["enabled"] is False
    assert viewer.get("/train/", params={"check_if_running": "true"}).status_code == 404
    for method, path in (("POST", "/train/tiny"), ("DELETE", "/train/"), ("POST", "/activelearning/random")):
        assert code_of(viewer.request(method, path)) == (501, "E-SERVICE-NOT-OFFERED")
    assert code_of(viewer.get("/proxy/dicom/qido/studies")) == (501, "E-SERVICE-NOT-OFFERED")


def test_slicer_segments_an_image_of_a_session(viewer, studies, settings, expected, tmp_path) -> None:
    content = (studies / "case_1.nii.gz").read_bytes()
    session = viewer.put("/session/", files={"files": ("Jane Doe.nii.gz", content)}).json()
    assert viewer.get(f"/session/{session['session_id']}").json()["image"] == "00000.nii.gz"
    asked = {"result_extension": ".nrrd", "result_dtype": "uint8", "client_id": "slicer"}
    form = form_of(infer(viewer, {"image": "", "session_id": session["session_id"]}, asked))
    name, nrrd = form["image"]
    found, geometry = read_bytes(nrrd, tmp_path, ".nrrd")
    assert name == "segmentation.nrrd"
    assert b"\ntype: unsigned char\n" in nrrd[:600]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(geometry.matrix, read_grid(studies / "case_1.nii.gz")[1].matrix, atol=1e-4)
    about = json.loads(form["params"][1])
    assert set(about["label_names"].values()) == set(np.unique(expected)) - {0}
    assert list(about["volumes_ml"]) == viewer.get("/info/").json()["labels"]
    assert viewer.delete(f"/session/{session['session_id']}").status_code == 200
    assert code_of(viewer.get(f"/session/{session['session_id']}")) == (404, "E-SERVICE-DATASTORE")

    def left() -> list[str]:
        found = [p.name for p in settings.data.rglob("*") if p.is_file()]
        return [name for name in found if "sqlite" not in name and name != ".decathlete-lock"]

    wait_until(lambda: not left())  # no image, no result, no name; a result is deleted after it was sent


def test_ohif_segments_an_image_of_the_datastore(viewer, expected, tmp_path) -> None:
    asked = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False, "restore_label_idx": False}
    answer = infer(viewer, {"image": "case_1", "output": "image"}, asked)
    assert b"encoding: raw" in answer.content[:600]
    assert answer.content.endswith(expected.astype(np.uint8).tobytes())  # OHIF uses the order of the voxels alone
    compressed = infer(viewer, {"image": "case_1", "output": "image"}, asked | {"result_compress": True}).content
    assert len(compressed) < len(answer.content)
    found, _ = read_bytes(compressed, tmp_path, ".nrrd")
    np.testing.assert_array_equal(found, expected)


def test_a_file_can_be_sent_with_the_request(viewer, studies, expected, tmp_path) -> None:
    content = (studies / "case_1.nii.gz").read_bytes()
    form = form_of(infer(viewer, {}, {}, file=("/tmp/x y/Jane.nii.gz", content)))
    found, _ = read_bytes(form["image"][1], tmp_path, ".nii.gz")
    np.testing.assert_array_equal(found, expected)
    about = infer(viewer, {"image": "case_1", "output": "json"}, {}).json()
    assert about["label_names"] == json.loads(form["params"][1])["label_names"]


@pytest.mark.parametrize(
    ("query", "params", "code"),
    [
        ({"image": "nothing"}, {}, (404, "E-SERVICE-DATASTORE")),
        ({"image": "../case_1"}, {}, (404, "E-SERVICE-DATASTORE")),
        ({"session_id": "0" * 32}, {}, (404, "E-SERVICE-DATASTORE")),
        ({"session_id": "../../data"}, {}, (404, "E-SERVICE-DATASTORE")),
        ({}, {}, (422, "E-SERVICE-REQUEST")),
        ({"image": "case_1", "output": "dsa"}, {}, (422, "E-SERVICE-REQUEST")),
        ({"image": "case_1"}, {"result_extension": "/../x.nrrd"}, (422, "E-SERVICE-REQUEST")),
        ({"image": "case_1"}, {"result_dtype": "float128"}, (422, "E-SERVICE-REQUEST")),
        ({"image": "case_1"}, [1], (422, "E-SERVICE-REQUEST")),
        ({"image": "case_1", "output": "dicom_seg"}, {}, (422, "E-SERVICE-REQUEST")),
    ],
)
def test_a_wrong_request_says_what_is_wrong(viewer, query, params, code) -> None:
    assert code_of(infer(viewer, query, params)) == code
    assert viewer.get("/health/ready").status_code == 200


def test_corrections_are_stored_beside_the_service_and_never_in_the_studies(
    viewer, studies, settings, tmp_path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in studies.rglob("*")}
    for value in (1, 2):  # the second one replaces the first
        files = {
            "params": (None, json.dumps({"label_info": LABEL_INFO})),
            "label": ("/tmp/a.nii.gz", label_bytes(tmp_path, SHAPE, value)),
        }
        answer = viewer.put("/datastore/label", params={"image": "case_1"}, files=files)
        assert answer.json() == {"image": "case_1", "label": "case_1"}
    stored = viewer.get("/datastore/label", params={"label": "case_1", "tag": "final"})
    assert set(np.unique(read_bytes(stored.content, tmp_path, ".nii.gz")[0])) == {0, 2}
    assert 'filename="case_1.nii.gz"' in stored.headers["content-disposition"]
    objects = viewer.get("/datastore/", params={"output": "all"}).json()["objects"]
    assert objects["case_1"]["labels"]["final"]["info"]["label_info"] == LABEL_INFO
    assert viewer.get("/info/").json()["datastore"] == {"total": 1, "completed": 1}
    assert {p: p.stat().st_mtime_ns for p in studies.rglob("*")} == before
    assert len(list((settings.data / "datastore" / "labels").rglob("*.nii.gz"))) == 1
    assert viewer.delete("/datastore/label", params={"id": "case_1", "tag": "final"}).status_code == 200
    assert code_of(viewer.get("/datastore/label", params={"label": "case_1"})) == (404, "E-SERVICE-DATASTORE")


@pytest.mark.parametrize(
    ("query", "label", "code"),
    [
        ({"image": "nothing"}, None, (404, "E-SERVICE-DATASTORE")),
        ({"image": "../../case_1"}, None, (404, "E-SERVICE-DATASTORE")),
        ({"image": "case_1", "tag": "../../up"}, None, (422, "E-SERVICE-REQUEST")),
        ({"image": "case_1"}, ("label.nii.gz", b"no image"), (422, "E-IMAGE-DAMAGED")),
        ({"image": "case_1"}, ("label.bin", b"\1" * 10), (422, "E-IMAGE-GEOMETRY")),
        ({"image": "case_1"}, ("label.nii.gz", (10, 24, 18)), (422, "E-IMAGE-GEOMETRY")),
    ],
)
def test_a_correction_that_does_not_fit_is_rejected(viewer, settings, tmp_path, query, label, code) -> None:
    name, content = label or ("label.nii.gz", SHAPE)
    content = label_bytes(tmp_path, content) if isinstance(content, tuple) else content
    answer = viewer.put("/datastore/label", params=query, files={"label": (name, content)})
    assert code_of(answer) == code
    assert [p for p in (settings.data / "datastore").rglob("*") if p.is_file()] == []


def test_the_bytes_of_ohif_are_a_label_map_of_its_image(viewer, studies, tmp_path) -> None:
    label = np.random.default_rng(0).integers(0, 3, SHAPE, np.uint8)
    viewer.put("/datastore/label", params={"image": "case_1"}, files={"label": ("label.bin", label.tobytes())})
    stored = viewer.get("/datastore/label", params={"label": "case_1", "tag": "final"})
    found, geometry = read_bytes(stored.content, tmp_path, ".nii.gz")
    np.testing.assert_array_equal(found, label)
    np.testing.assert_allclose(geometry.matrix, read_grid(studies / "case_1.nii.gz")[1].matrix, atol=1e-4)
    viewer.delete("/datastore/label", params={"id": "case_1", "tag": "final"})


def test_viewers_add_images_but_replace_none(viewer, studies) -> None:
    one, other = image_bytes(SHAPE, seed=1), image_bytes(SHAPE, seed=2)

    def put(image_id: str, content: bytes) -> httpx.Response:
        return viewer.put("/datastore/", params={"image": image_id}, files={"file": ("a.nii.gz", content)})

    assert put("new one", one).json() == {"image": "new one"}
    assert put("new one", one).status_code == 200  # sent again
    assert code_of(put("new one", other)) == (409, "E-SERVICE-STATE")
    assert code_of(put("case_1", other)) == (409, "E-SERVICE-STATE")
    assert code_of(put("../up", one)) == (422, "E-SERVICE-REQUEST")
    assert viewer.get("/datastore/").json() == {"total": 2, "completed": 0}
    assert viewer.head("/datastore/image", params={"image": "new one"}).status_code == 200
    assert viewer.delete("/datastore/", params={"id": "new one"}).status_code == 200
    assert code_of(viewer.delete("/datastore/", params={"id": "case_1"})) == (404, "E-SERVICE-DATASTORE")
    assert viewer.get("/datastore/").json() == {"total": 1, "completed": 0}
    assert (studies / "case_1.nii.gz").is_file()


@pytest.mark.parametrize(("image_id", "suffix"), [("case_0000", ".nii.gz"), ("slice", ".dcm")])
def test_an_added_image_is_found_by_its_id(viewer, tmp_path, image_id, suffix) -> None:
    content = image_bytes(SHAPE)
    if suffix == ".dcm":
        write_enhanced(tmp_path / "one.dcm", np.zeros((4, 6, 5), np.int16))
        content = (tmp_path / "one.dcm").read_bytes()
    viewer.put("/datastore/", params={"image": image_id}, files={"file": (f"a{suffix}", content)})
    viewer.put("/datastore/", params={"image": "other_0000"}, files={"file": ("a.nii.gz", image_bytes(SHAPE))})
    assert image_id in viewer.get("/datastore/", params={"output": "all"}).json()["objects"]
    assert viewer.get("/datastore/image", params={"image": image_id}).status_code == 200
    assert infer(viewer, {"image": image_id, "output": "json"}, {}).status_code == 200
    for added in (image_id, "other_0000"):
        viewer.delete("/datastore/", params={"id": added})
    assert viewer.get("/datastore/").json() == {"total": 1, "completed": 0}


@pytest.mark.parametrize("header", ["0", None], ids=["length 0", "no length"])
def test_a_stored_image_is_segmented_without_a_form(viewer, header) -> None:
    request = viewer.build_request("POST", "/infer/tiny", params={"image": "case_1", "output": "json"})
    assert request.headers.pop("content-length") == "0"
    if header is not None:
        request.headers["content-length"] = header
    assert viewer.send(request).json()["label_names"]


def test_uploads_of_viewers_are_counted(model, tmp_path) -> None:
    settings = settings_for(model, tmp_path / "data", limits={"uploads_at_once": 0})
    with service_client(settings) as client:
        for method, path in (("PUT", "/session/"), ("PUT", "/datastore/?image=a"), ("POST", "/infer/tiny?image=a")):
            answer = client.request(method, path, files={"file": ("a.nii.gz", b"x" * 100)})
            assert code_of(answer) == (429, "E-SERVICE-BUSY")
        assert client.get("/health/live").status_code == 200


def test_copies_of_images_leave_room_on_the_disk(viewer, studies, monkeypatch) -> None:
    content, free = (studies / "case_1.nii.gz").read_bytes(), [10**12]
    monkeypatch.setattr("decathlete.core.sizes.free_disk_bytes", lambda _: free[0])
    session = viewer.put("/session/", files={"files": ("a.nii.gz", content)}).json()["session_id"]
    room = RESERVED_BYTES + len(content)
    for free[0], status in ((room - 1, 507), (room, 200)):
        for query in ({"session_id": session}, {"image": "case_1"}):
            assert infer(viewer, query | {"output": "json"}, {}).status_code == status
        assert viewer.get("/datastore/image", params={"image": "case_1"}).status_code == status
    viewer.delete(f"/session/{session}")


def test_images_of_viewers_have_a_limit_of_size(model, studies, tmp_path) -> None:
    settings = settings_for(model, tmp_path / "data", studies=str(studies), limits={"image_bytes": 20_000})
    with service_client(settings) as client:
        sent = client.put("/datastore/", params={"image": "a"}, files={"file": ("a.nii.gz", image_bytes(SHAPE))})
        shown = client.get("/datastore/image", params={"image": "case_1"})
        assert [code_of(answer) for answer in (sent, shown)] == [(413, "E-SERVICE-SIZE")] * 2
        assert client.get("/datastore/").json() == {"total": 1, "completed": 0}


def test_the_token_is_the_password(model, tmp_path) -> None:
    settings = settings_for(model, tmp_path / "data", token=TOKEN)
    with service_client(settings) as client:
        client.headers.pop("Authorization")
        assert client.get("/auth/").json()["enabled"] is True
        for path in ("/info/", "/datastore/", "/session/" + "0" * 32, "/auth/token/valid", "/logs/"):
            assert code_of(client.get(path)) == (401, "E-SERVICE-TOKEN")
        wrong = client.post("/auth/token", data={"username": "a", "password": "b"})
        assert code_of(wrong) == (401, "E-SERVICE-TOKEN")
        token = client.post("/auth/token", data={"username": "a", "password": TOKEN}).json()
        headers = {"Authorization": f"{token['token_type']} {token['access_token']}"}
        assert client.get("/auth/token/valid", headers=headers).status_code == 200
        assert client.get("/info/", headers=headers).json()["datastore"]["total"] == 0


def test_studies_must_exist(model, tmp_path) -> None:
    with pytest.raises(OptionError, match="is not a folder"):
        create_app(settings_for(model, tmp_path / "data", studies=str(tmp_path / "absent")))


def test_several_channels_of_one_image_have_one_id(tmp_path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    (studies / "case_1.nii.gz").write_bytes(image_bytes(SHAPE))
    for channel in range(2):
        array = np.full((1, *SHAPE), channel, np.float32)
        write_image(studies / f"pair_000{channel}.nii.gz", array, make_oblique_geometry(SHAPE))
    two = save_model(tmp_path / "two", n_channels=2)
    with service_client(settings_for(two, tmp_path / "data", studies=str(studies))) as client:
        assert set(client.get("/datastore/", params={"output": "all"}).json()["objects"]) == {"case_1", "pair"}
        assert infer(client, {"image": "pair", "output": "json"}, {}).status_code == 200
        assert code_of(infer(client, {"image": "case_1", "output": "json"}, {})) == (422, "E-IMAGE-CHANNELS")


def test_a_job_of_a_viewer_ends_with_a_service_that_is_killed(model: Path, tmp_path: Path) -> None:
    settings, database = settings_for(model, tmp_path / "data"), tmp_path / "killed.sqlite"
    service = Service(settings)
    with service_client(settings, service) as client, ThreadPoolExecutor() as pool:
        with service.models.use("tiny"):  # so that no job is finished
            answer = pool.submit(client.post, "/infer/tiny", files={"file": ("image.nii.gz", image_bytes())})
            kept = send(client, image_bytes(seed=1)).json()["id"]
            wait_until(lambda: len(service.store.ids()) == 2)
            with closing(sqlite3.connect(database)) as copy:
                service.store._connection.backup(copy)  # what a kill would leave now
        assert answer.result().status_code == 200
        assert wait_for(client, kept)["state"] == "done"
    shutil.copy(database, service.storage.database)
    (service.storage.database.with_name("jobs.sqlite-wal")).unlink(missing_ok=True)
    later = Service(settings)
    later.start()
    assert later.store.ids() == {kept}
    later.stop()
