"""The page and its jobs: what arrives late is of its own job, and a result keeps the names of its own model."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decathlete.core.labels import LabelSet
from decathlete.serving.settings import ModelSource
from page_support import colourfulness, download, drop, legend_amounts, picture, set_opacity, wait_for_result
from service_support import JOBS, image_bytes, save_model, service_client, settings_for, wait_until
from viewer_support import browser_page

pytestmark = pytest.mark.full

STATUS = re.compile(f"{JOBS}/[0-9a-f]{{32}}$")
SLOW, QUICK = image_bytes((24, 28, 22)), image_bytes((18, 20, 26), seed=1)
_LATER_MS = 1500
"""Time in which the page would do the wrong thing with an answer."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model")


@contextmanager
def page_of(model: Path, data: Path, *, name: str = "tiny") -> Iterator[tuple[Any, Any]]:
    """The page of a service with one model, and a client of the same service."""
    settings = settings_for(model, data, models=(ModelSource(folder=model, name=name),))
    with service_client(settings) as client, browser_page() as page:
        page.goto(str(client.base_url))
        yield page, client


def hold(page: Any, address: Any) -> list[Any]:
    """Keep the next request of the page to this address waiting; it is appended to the returned list."""
    held: list[Any] = []

    def handle(route: Any) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route(address, handle)
    return held


def wait_for_held(page: Any, held: list[Any]) -> None:
    while not held:
        page.wait_for_timeout(50)


def job_of(page: Any) -> str:
    return str(page.evaluate("location.hash")).removeprefix("#job=")


def show_quick(page: Any) -> tuple[str, np.ndarray]:
    """Segment the other image; its id and what the page shows then."""
    drop(page, "Quick.nii.gz", QUICK)
    wait_for_result(page)
    return job_of(page), picture(page)


def assert_shows_quick(page: Any, client: Any, job_id: str, before: np.ndarray, tmp_path: Path) -> None:
    page.wait_for_timeout(_LATER_MS)
    assert page.is_visible("#result")
    assert page.inner_text("#result-title") == "Quick.nii.gz"
    assert np.mean(np.any(picture(page) != before, axis=-1)) < 0.01  # the crosshair may be a pixel wider
    assert job_of(page) == job_id
    assert download(page, "nifti", tmp_path / "quick.nii.gz") == "Quick_seg.nii.gz"
    assert (tmp_path / "quick.nii.gz").read_bytes() == client.get(f"{JOBS}/{job_id}/result").content


@pytest.mark.parametrize("late", ["input", "result"])
def test_images_that_load_slowly_do_not_replace_a_newer_job(model: Path, tmp_path: Path, late: str) -> None:
    with page_of(model, tmp_path / "data") as (page, client):
        held = hold(page, f"**/{late}?*")
        drop(page, "Slow.nii.gz", SLOW)
        page.wait_for_selector("#result:not([hidden])")
        wait_for_held(page, held)
        page.click("#next")
        job_id, before = show_quick(page)
        held[0].continue_()
        assert_shows_quick(page, client, job_id, before, tmp_path)


def test_a_late_answer_about_a_job_does_not_replace_a_newer_one(model: Path, tmp_path: Path) -> None:
    with page_of(model, tmp_path / "data") as (page, client):
        page.route("**/events", lambda route: route.abort())  # the page asks for the state instead
        held = hold(page, STATUS)
        drop(page, "Slow.nii.gz", SLOW)
        wait_for_held(page, held)
        page.click("#home")
        job_id, before = show_quick(page)
        held[0].continue_()
        assert_shows_quick(page, client, job_id, before, tmp_path)


def test_the_page_stops_to_ask_about_a_job_that_it_does_not_show(model: Path, tmp_path: Path) -> None:
    with page_of(model, tmp_path / "data") as (page, _):
        asked: list[str] = []
        page.on("request", lambda request: STATUS.search(request.url) and asked.append(request.url))
        page.route("**/events", lambda route: route.abort())
        held = hold(page, STATUS)
        drop(page, "Slow.nii.gz", SLOW)
        wait_for_held(page, held)
        page.click("#home")
        held[0].abort()  # as if the service was out of reach
        page.wait_for_timeout(2 * _LATER_MS)  # otherwise it asks every 2 seconds
        assert len(asked) == 1


def test_a_late_download_has_its_own_name(model: Path, tmp_path: Path) -> None:
    with page_of(model, tmp_path / "data") as (page, client):
        drop(page, "Slow.nii.gz", SLOW)
        wait_for_result(page)
        slow_id, held = job_of(page), hold(page, "**/report")
        page.click("[data-format='report']")
        wait_for_held(page, held)
        page.click("#next")
        job_id, before = show_quick(page)
        assert page.is_enabled("[data-format='report']")
        with page.expect_download() as late:
            held[0].continue_()
        late.value.save_as(tmp_path / "report.html")
        assert late.value.suggested_filename == "Slow_report.html"
        assert slow_id in (tmp_path / "report.html").read_text()
        assert page.is_disabled("[data-format='dicom-seg']")
        assert_shows_quick(page, client, job_id, before, tmp_path)


def test_a_slow_deletion_leaves_a_newer_job_on_the_screen(model: Path, tmp_path: Path) -> None:
    with page_of(model, tmp_path / "data") as (page, client):
        drop(page, "Slow.nii.gz", SLOW)
        wait_for_result(page)
        slow_id, held = job_of(page), hold(page, STATUS)
        page.on("dialog", lambda dialog: dialog.accept())
        page.click("#delete")
        wait_for_held(page, held)
        page.click("#next")
        job_id, before = show_quick(page)
        held[0].continue_()
        wait_until(lambda: page.wait_for_timeout(50) or client.get(f"{JOBS}/{slow_id}").status_code == 404)
        assert_shows_quick(page, client, job_id, before, tmp_path)


def test_the_address_decides_which_job_is_shown(model: Path, tmp_path: Path) -> None:
    with page_of(model, tmp_path / "data") as (page, client):
        drop(page, "Slow.nii.gz", SLOW)
        wait_for_result(page)
        slow_id = job_of(page)
        page.click("#next")
        job_id, before = show_quick(page)
        held = hold(page, "**/events")
        page.evaluate("(id) => { location.hash = `job=${id}`; }", slow_id)
        wait_for_held(page, held)
        assert page.is_hidden("#result")  # nothing of the other job while this one is on its way
        held[0].continue_()
        wait_for_result(page)
        assert page.inner_text("#result-title") == "Slow.nii.gz"
        assert download(page, "nifti", tmp_path / "slow.nii.gz") == "Slow_seg.nii.gz"
        assert (tmp_path / "slow.nii.gz").read_bytes() == client.get(f"{JOBS}/{slow_id}/result").content
        page.focus(".skip")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.go_back()
        wait_for_result(page)
        assert_shows_quick(page, client, job_id, before, tmp_path)


def test_classes_can_be_hidden_while_the_images_load(model: Path, tmp_path: Path) -> None:
    with page_of(model, tmp_path / "data") as (page, _):
        show_quick(page)
        page.click("#next")
        held = hold(page, "**/input?*")
        drop(page, "Slow.nii.gz", SLOW)
        wait_for_held(page, held)
        page.click("#toggle-all")
        for key in ("2", "+", "-", "o", "o"):
            page.keyboard.press(key)
        held[0].continue_()
        wait_for_result(page)
        set_opacity(page, 100)
        hidden = colourfulness(page)
        page.click("#toggle-all")
        page.wait_for_timeout(300)
        assert colourfulness(page) > hidden + 5


def test_a_result_keeps_the_classes_of_its_own_model(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with page_of(model, data) as (page, _):
        drop(page, "Slow.nii.gz", SLOW)
        wait_for_result(page)
        job_id, before, amounts = job_of(page), picture(page), legend_amounts(page)
    assert list(amounts) == ["c1", "c2"]
    other = save_model(tmp_path / "other", labels=LabelSet.from_names(["c2", "liver", "c1"]))
    for name in ("tiny", "another"):  # another model of the same name; the name is not offered any more
        with page_of(other, data, name=name) as (page, client):
            page.goto(f"{client.base_url}#job={job_id}")
            wait_for_result(page)
            assert page.inner_text("#result-model") == "tiny"
            assert legend_amounts(page) == amounts
            np.testing.assert_array_equal(picture(page), before)


def test_a_result_without_its_classes_says_so(model: Path, tmp_path: Path) -> None:
    with page_of(model, tmp_path / "data") as (page, _):
        show_quick(page)
        (stored,) = (tmp_path / "data").rglob("structures.json")
        stored.unlink()
        page.reload()
        wait_for_result(page)
        assert "names of its classes are not stored" in page.inner_text("#warnings-list")
        assert legend_amounts(page) == {}
        assert page.is_hidden("#legend-empty")
        assert download(page, "nifti", tmp_path / "quick.nii.gz") == "Quick_seg.nii.gz"


def test_other_files_are_accepted(model: Path, tmp_path: Path) -> None:
    nrrd, zipped = image_bytes((24, 28, 22), suffix=".nrrd"), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as packed:
        packed.writestr("Jane Doe/scan.nrrd", nrrd)
    with page_of(model, tmp_path / "data") as (page, _):
        shown = []
        for name, content in (("a.nii.gz", SLOW), ("a.nrrd", nrrd), ("a.zip", zipped.getvalue())):
            drop(page, name, content)
            wait_for_result(page)
            shown.append(legend_amounts(page))
            page.click("#next")
        assert shown[0] == shown[1] == shown[2]


def test_a_job_that_waits_shows_its_place_and_the_time_left(model: Path, tmp_path: Path) -> None:
    changes = {"state": "queued", "position": 3, "seconds_left": 200.0, "progress": 0.0}
    with page_of(model, tmp_path / "data") as (page, _):
        page.route("**/events", lambda route: route.abort())
        page.route(STATUS, lambda route: route.fulfill(json=route.fetch().json() | changes))
        drop(page, "a.nii.gz", SLOW)
        page.wait_for_selector("#working-left:not(:empty)")
        shown = [page.inner_text(f"#working-{part}") for part in ("name", "title", "detail", "left")]
        assert shown == ["a.nii.gz", "Waiting", "2 images before this one", "about 3 minutes left"]
        changes |= {"state": "running", "position": 0, "seconds_left": 20.0, "progress": 0.4}
        page.wait_for_selector("#working-title:text('Segmenting')")
        shown = [page.inner_text(f"#working-{part}") for part in ("detail", "left")]
        assert shown == ["40 %", "about 20 seconds left"]
        changes.clear()
        wait_for_result(page)
