"""The service's page in a browser: drop files on it, wait for it, and see what it shows."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imread
from numpy.typing import NDArray

_DROP = """([name, text]) => {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", options));
}"""
_SET_OPACITY = """(value) => {
  const slider = document.getElementById("opacity");
  slider.value = value;
  slider.dispatchEvent(new Event("input"));
}"""


def drop(page: Any, name: str, content: bytes) -> None:
    """Drop a file on the page."""
    page.wait_for_selector("#start:not([hidden])")
    page.evaluate(_DROP, [name, base64.b64encode(content).decode()])


def drop_path(page: Any, path: Path) -> None:
    """Drop a file or folder of this computer on the page, as a file manager does."""
    page.wait_for_selector("#start:not([hidden])")
    box = page.locator("#drop").bounding_box()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "data": data, **place})


def wait_for_result(page: Any) -> None:
    """Wait until the images are drawn."""
    page.wait_for_selector("body[data-viewer='ready']")
    page.wait_for_timeout(500)  # the next frame is drawn


def picture(page: Any) -> NDArray[Any]:
    """Return the pixels of the canvas, as a person sees them."""
    return np.asarray(imread(io.BytesIO(page.locator("#canvas").screenshot())))[..., :3] * 255


def colourfulness(page: Any) -> float:
    """Return the mean difference between red, green and blue below the crosshair's colour: 0 in a grey image."""
    pixels = picture(page)
    return float(np.mean(pixels.max(axis=-1) - pixels.min(axis=-1)))


def set_opacity(page: Any, value: int) -> None:
    """Move the slider of the opacity."""
    page.evaluate(_SET_OPACITY, value)
    page.wait_for_timeout(300)


def download(page: Any, kind: str, path: Path) -> str:
    """Save a download of the result; return the name that the page suggests."""
    with page.expect_download() as started:
        page.click(f"[data-format='{kind}']")
    started.value.save_as(path)
    return str(started.value.suggested_filename)


def legend_amounts(page: Any) -> dict[str, str]:
    """Return the classes of the legend with the text beside their names."""
    rows = page.locator("#legend li").all()
    return {row.locator(".name").inner_text(): row.locator(".amount").inner_text() for row in rows}


def volume_text(volume_mL: float) -> str:
    """Return a volume as the page shows it."""
    return f"{volume_mL:.{2 if volume_mL < 1 else 1}f} mL"
