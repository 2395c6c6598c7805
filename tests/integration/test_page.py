"""The page in a real browser: drop, wait, look, change, download, delete; errors, login, keyboard, narrow windows."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from decathlete.io.images import read_label
from decathlete.serving.dicom_node.failures import FailedCopy
from decathlete.serving.dicom_node.node_job import NodeStatus
from decathlete.serving.service import Service
from decathlete.workflows.predict import predict
from page_support import (
    colourfulness,
    download,
    drop,
    legend_amounts,
    picture,
    set_opacity,
    volume_text,
    wait_for_result,
)
from service_support import FP32, TOKEN, image_bytes, save_model, service_client, settings_for
from viewer_support import browser_page

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model")


def test_a_dropped_image_is_segmented_shown_and_downloaded(model, tmp_path) -> None:
    content = image_bytes((24, 28, 22))
    (tmp_path / "Jane Doe.nii.gz").write_bytes(content)
    predict(model, tmp_path / "Jane Doe.nii.gz", tmp_path / "predicted", options=FP32)
    with (
        service_client(settings_for(model, tmp_path / "data")) as client,
        browser_page(viewport={"width": 1280, "height": 800}, accept_downloads=True) as page,
    ):
        page.goto(str(client.base_url))
        drop(page, "Jane Doe.nii.gz", content)
        wait_for_result(page)
        assert page.inner_text("#result-title") == "Jane Doe.nii.gz"
        assert page.locator("#legend li").count() == 2
        set_opacity(page, 100)
        opaque = colourfulness(page)
        set_opacity(page, 0)
        clear = colourfulness(page)
        assert opaque > clear + 5  # the overlay is there, and the slider changes it
        set_opacity(page, 100)
        page.click("#toggle-all")
        page.wait_for_timeout(300)
        assert colourfulness(page) == pytest.approx(clear, abs=1)
        page.click("#legend li:nth-child(1) button")  # one class alone
        page.wait_for_timeout(300)
        assert [row.get_attribute("aria-pressed") for row in page.locator("#legend button").all()] == ["true", "false"]
        assert clear + 1 < colourfulness(page) < opaque - 1
        page.click("#toggle-all")
        assert download(page, "nifti", tmp_path / "downloaded.nii.gz") == "Jane Doe_seg.nii.gz"
        job_id = page.evaluate("location.hash").removeprefix("#job=")
        found, expected = (
            read_label(p) for p in (tmp_path / "downloaded.nii.gz", tmp_path / "predicted" / "Jane Doe.nii.gz")
        )
        np.testing.assert_array_equal(found.array_ZYX, expected.array_ZYX)
        np.testing.assert_array_equal(found.geometry.matrix, expected.geometry.matrix)
        voxel_mL = abs(np.linalg.det(found.geometry.matrix[:3, :3])) / 1000
        volumes = {f"c{value}": volume_text(np.sum(found.array_ZYX == value) * voxel_mL) for value in (1, 2)}
        assert legend_amounts(page) == volumes
        assert page.is_disabled("[data-format='dicom-seg']")
        assert "not DICOM" in page.inner_text("#dicom-why")
        assert download(page, "report", tmp_path / "report.html") == "Jane Doe_report.html"
        assert (tmp_path / "report.html").read_text().count("<td class") == 4  # value and volume of each class
        page.reload()  # the address has the job
        wait_for_result(page)
        page.on("dialog", lambda dialog: dialog.accept())
        page.click("#delete")
        page.wait_for_selector("#start:not([hidden])")
        assert client.get(f"/api/v1/jobs/{job_id}").status_code == 404
    stored = [p for p in (tmp_path / "data").rglob("*") if p.is_file()]
    assert not any("Jane" in p.name or b"Jane" in p.read_bytes() for p in stored)  # names stay in the browser


def test_each_plane_and_each_key_changes_the_view(model, tmp_path) -> None:
    with service_client(settings_for(model, tmp_path / "data")) as client, browser_page() as page:
        page.goto(str(client.base_url))
        drop(page, "a.nii.gz", image_bytes((24, 28, 22)))
        wait_for_result(page)
        views = []
        for key, name in enumerate(("all", "axial", "coronal", "sagittal", "3d"), start=1):
            page.keyboard.press(str(key))
            page.wait_for_timeout(400)
            assert page.get_attribute(f"[data-view='{name}']", "aria-checked") == "true"
            views.append(picture(page))
        assert all(np.any(a != b) for i, a in enumerate(views) for b in views[:i])
        page.keyboard.press("1")
        page.keyboard.press("+")
        assert page.input_value("#opacity") == "70"
        page.keyboard.press("o")
        assert page.get_attribute("#legend button", "aria-pressed") == "false"
        page.focus("#canvas")
        before = page.inner_text("#location")
        page.keyboard.press("PageUp")
        page.wait_for_timeout(200)
        assert page.inner_text("#location") != before


def test_a_person_without_a_mouse_reaches_everything(model, tmp_path) -> None:
    with service_client(settings_for(model, tmp_path / "data")) as client, browser_page() as page:
        page.on("filechooser", lambda _: None)  # from the start: Chromium needs a moment until tests get the choosers
        page.goto(str(client.base_url))
        page.wait_for_selector("#start:not([hidden])")
        reached = []
        for _ in range(12):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id"))
        assert {"home", "keys-button", "choose-files", "choose-folder"} <= set(reached)
        page.focus("#choose-files")
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        image = tmp_path / "a.nii.gz"
        image.write_bytes(image_bytes())
        chooser.value.set_files(image)
        wait_for_result(page)
        assert page.evaluate("document.activeElement.id") == "result-title"


def test_errors_say_what_to_do(model, tmp_path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("a.nii.gz", image_bytes())
        writer.writestr("b.nii.gz", image_bytes(seed=1))
    with service_client(settings_for(model, tmp_path / "data")) as client, browser_page() as page:
        page.goto(str(client.base_url))
        drop(page, "a.nii.gz", b"this is no image, and it is long enough to be read as one" * 10)
        page.wait_for_selector("#problem:not([hidden])")
        assert page.inner_text("#problem-code").startswith("E-IMAGE")
        assert page.inner_text("#problem-remedy")
        page.click("#again")
        drop(page, "both.zip", archive.getvalue())
        page.wait_for_selector("#problem:not([hidden])")
        assert "2 images" in page.inner_text("#problem-text")
        page.goto(f"{client.base_url}#job={'0' * 32}")
        page.reload()
        page.wait_for_selector("#problem:not([hidden])")
        assert "does not exist" in page.inner_text("#problem-title")


def test_the_page_asks_for_the_token(model, tmp_path) -> None:
    settings = settings_for(model, tmp_path / "data", token=TOKEN)
    with service_client(settings) as client, browser_page() as page:
        page.goto(str(client.base_url))
        page.wait_for_selector("#login:not([hidden])")
        page.fill("#token", "not-the-token-of-this-service")
        page.keyboard.press("Enter")
        page.wait_for_selector("#login-wrong:not([hidden])")
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        drop(page, "a.nii.gz", image_bytes())
        wait_for_result(page)
        assert page.evaluate("document.cookie") == ""  # scripts cannot read it
        assert TOKEN not in json.dumps(page.evaluate("[{...sessionStorage}, {...localStorage}, location.href]"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_needs_no_scrolling_to_the_side(model, tmp_path, scheme) -> None:
    with (
        service_client(settings_for(model, tmp_path / "data")) as client,
        browser_page(viewport={"width": 360, "height": 740}, color_scheme=scheme) as page,
    ):
        page.goto(str(client.base_url))
        page.wait_for_selector("#start:not([hidden])")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(14, 19, 26)") is (scheme == "dark")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        drop(page, "a.nii.gz", image_bytes())
        wait_for_result(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.is_visible("[data-format='nifti']")


def test_the_page_shows_what_the_dicom_node_waits_for(model, tmp_path) -> None:
    settings = settings_for(model, tmp_path / "data")
    failed = FailedCopy(n_instances=30, attempts=2, next_attempt=1.8e9, reason="HTTP status 500")
    status = NodeStatus(jobs={"sent": 4, "failed": 1}, n_undelivered=1, failed_copies=(failed,), archive_problem=None)
    service = Service(settings)
    with service_client(settings, service) as client, browser_page() as page:
        page.goto(str(client.base_url))
        page.wait_for_selector("#start:not([hidden])")
        assert page.is_hidden("#node")  # none runs
        service.node = SimpleNamespace(status=lambda: status)
        page.reload()
        page.wait_for_selector("#node:not([hidden])")
        assert page.inner_text("#node-jobs") == "4 results sent, 1 failed. The log has the reasons."
        problems = page.inner_text("#node-problems")
        assert "1 result was not accepted by the receiver" in problems
        assert "1 series of the archive could not be copied: HTTP status 500. Next attempt:" in problems
        assert "2027" in problems
