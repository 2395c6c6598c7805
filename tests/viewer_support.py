"""Viewers in tests: Chromium for pages, and the client of MONAI Label that 3D Slicer's plug-in uses."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from external_programs import find_chromium

VIEWERS = Path(os.environ.get("DECATHLETE_VIEWERS", Path(__file__).parents[1] / ".viewers"))
"""Folder of `make viewers`."""

# WebGL 2 without a GPU.
_FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
_INSIDE = ("http://127.0.0.1:", "data:", "blob:")


@contextmanager
def browser_page(*, other_sites: tuple[str, ...] = (), **context: Any) -> Iterator[Any]:
    """A page in a headless Chromium that fails the test if it asks for anything outside this computer.

    Args:
        other_sites: beginnings of addresses that it may ask for, in vain.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = find_chromium()
    if program is None:
        pytest.skip("Chromium is not installed")
    outside: list[str] = []
    errors: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_FLAGS)
        try:
            page = browser.new_context(**context).new_page()
            page.set_default_timeout(240_000)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda m: errors.append(m.text) if "Content Security Policy" in m.text else None)
            page.on(
                "request",
                lambda request: request.url.startswith((*_INSIDE, *other_sites)) or outside.append(request.url),
            )
            yield page
        finally:
            browser.close()
    assert outside == []
    assert errors == []


def monai_label_client() -> Any:
    """The module with MONAI Label's client, from the files of `make viewers`."""
    path = VIEWERS / "monailabel" / "client" / "client.py"
    if not path.is_file():
        pytest.skip(f"{path} is missing: run `make viewers`")
    pytest.importorskip("cgi", reason="the client needs Python 3.12 or older", exc_type=ImportError)
    spec = spec_from_file_location("monai_label_client", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module
