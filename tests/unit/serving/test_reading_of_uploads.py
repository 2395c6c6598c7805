"""Uploads and studies without a spacing are read as the service was told, and their records say so."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from decathlete.errors import ImageError, ServiceError
from decathlete.inference.output.provenance import PredictionRecord
from decathlete.io.images import read_label, read_volume
from decathlete.io.reading import Reading
from decathlete.serving.inputs import check_image
from decathlete.serving.results import RECORD_FILE
from decathlete.serving.service import Service
from factories import make_test_plan
from service_support import JOBS, save_model, send, service_client, settings_for, wait_for

GIVEN = (2.0, 1.0, 1.0)
SHAPE = (8, 18, 16)
HEADER = "NRRD0004\ntype: float\ndimension: 3\nsizes: 16 18 8\nendian: little\nencoding: raw\n\n"


@pytest.fixture
def content() -> bytes:
    return HEADER.encode() + np.random.default_rng(0).normal(size=SHAPE).astype(np.float32).tobytes()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model")


def test_an_upload_is_read_with_the_spacing(model: Path, content: bytes, tmp_path: Path) -> None:
    assert make_test_plan().target_spacing == (1.0, 1.0, 1.0)
    settings = settings_for(model, tmp_path / "data", spacing=GIVEN)
    service = Service(settings)
    with service_client(settings, service) as client:
        accepted = send(client, content, name="image.nrrd")
        assert accepted.status_code == 202, accepted.text
        status = wait_for(client, accepted.json()["id"])
        assert status["state"] == "done", status
        assert status["volumes_ml"]
        for part, read in (("result", read_label), ("input", read_volume)):
            path = tmp_path / f"{part}.nii.gz"
            path.write_bytes(client.get(f"{JOBS}/{status['id']}/{part}").content)
            assert read(path).geometry.spacing_ZYX == pytest.approx(GIVEN)
        record = PredictionRecord.load(service.storage.result_folder(status["id"]) / RECORD_FILE)
        assert record.settings.spacing == GIVEN


def test_a_job_keeps_the_spacing_with_which_it_was_accepted(model: Path, content: bytes, tmp_path: Path) -> None:
    settings = settings_for(model, tmp_path / "data", spacing=GIVEN)
    with service_client(settings) as client:
        job_id = send(client, content, name="image.nrrd").json()["id"]
        wait_for(client, job_id)
    for other in ({}, {"spacing": (5.0, 5.0, 5.0)}):
        restarted = settings_for(model, tmp_path / "data", **other)
        with service_client(restarted) as client:
            path = tmp_path / "input.nii.gz"
            shown = client.get(f"{JOBS}/{job_id}/input")
            assert shown.status_code == 200, shown.text
            path.write_bytes(shown.content)
            assert read_volume(path).geometry.spacing_ZYX == pytest.approx(GIVEN)
        for made in (tmp_path / "data").rglob("view"):
            shutil.rmtree(made)


def test_studies_are_read_with_the_spacing(model: Path, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "case_1.nrrd").write_bytes(content)
    settings = settings_for(model, tmp_path / "data", spacing=GIVEN, studies=str(tmp_path / "studies"))
    with service_client(settings) as client:
        shown = client.get("/datastore/image", params={"image": "case_1"})
        assert shown.status_code == 200, shown.text
        (tmp_path / "shown.nii.gz").write_bytes(shown.content)
        assert read_volume(tmp_path / "shown.nii.gz").geometry.spacing_ZYX == pytest.approx(GIVEN)
        label = (HEADER.replace("float", "uint8").encode() + np.ones(SHAPE, np.uint8).tobytes(), "label.nrrd")
        files = {"label": (label[1], label[0])}
        saved = client.put("/datastore/label", params={"image": "case_1", "tag": "final"}, files=files)
        assert saved.status_code == 200, saved.text


def test_without_one_an_upload_is_rejected(model: Path, content: bytes, tmp_path: Path) -> None:
    with service_client(settings_for(model, tmp_path / "data")) as client:
        answer = send(client, content, name="image.nrrd")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "E-IMAGE-SPACING")


def test_a_grey_picture_may_be_saved_in_colour(tmp_path: Path) -> None:
    grey_YX = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Picture.fromarray(grey_YX).convert("RGB").save(tmp_path / "grey.png")
    Picture.fromarray(np.stack([grey_YX, grey_YX, grey_YX.T], axis=-1)).save(tmp_path / "colours.png")
    check = partial(check_image, image_bytes=10**6, reading=Reading())
    for channels in (("grey",), ("red", "green", "blue")):
        check([tmp_path / "grey.png"], channels=channels)
    check([tmp_path / "colours.png"], channels=("red", "green", "blue"))
    with pytest.raises(ImageError, match="has 3 channels, and the model needs 1: grey"):
        check([tmp_path / "colours.png"], channels=("grey",))


def test_the_limit_counts_the_channels_that_a_grey_picture_gets(tmp_path: Path) -> None:
    grey_YX = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Picture.fromarray(grey_YX).save(tmp_path / "grey.png")
    check = partial(check_image, [tmp_path / "grey.png"], channels=("red", "green", "blue"), reading=Reading())
    check(image_bytes=3 * 4 * 64)
    with pytest.raises(ServiceError, match="the image needs 768 bytes"):
        check(image_bytes=3 * 4 * 64 - 1)
