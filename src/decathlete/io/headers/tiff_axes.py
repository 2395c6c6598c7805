"""Axes and spacing of a TIFF stack: from OME-XML, from ImageJ's description, or pages as slices."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from decathlete.errors import ImageError
from decathlete.io.headers.text import header_error
from decathlete.io.headers.tiff import TiffPage
from decathlete.io.headers.units import mm_per_unit

_IMAGEJ = re.compile(r"(?P<key>[a-z]+)=(?P<value>.*)")
_MAX_XML = 2**22


@dataclass(frozen=True, kw_only=True)
class StackAxes:
    """What the pages of a stack are.

    Attributes:
        pages_CZ: for each channel, the pages of its slices.
        spacing_ZYX: mm; ``None`` for an axis without one.
        has_unit: whether the file declares lengths; without, lengths are in pixels.
    """

    pages_CZ: tuple[tuple[int, ...], ...]
    spacing_ZYX: tuple[float | None, float | None, float | None] = (None, None, None)
    has_unit: bool = False


def read_axes(path: Path, pages: list[TiffPage]) -> StackAxes:
    """Return what the pages of a checked file are.

    Raises:
        ImageError: the pages differ, are points in time, or do not agree with the description.
    """
    text = pages[0].description.split(b"\0")[0].decode("utf-8", "replace")
    is_ome = text.lstrip().startswith("<") and text.rstrip().endswith("OME>")
    if not is_ome and len({page.layout for page in pages}) > 1:
        raise ImageError(
            "has pages of different sizes or types",
            where=path,
            remedy="save the slices of one image as a file of its own",
            code="E-IMAGE-FORMAT",
        )
    if is_ome:
        return _ome_axes(path, pages, text)
    if text.startswith("ImageJ="):
        return _imagej_axes(path, pages, text)
    return StackAxes(pages_CZ=(tuple(range(len(pages))),))


def _imagej_axes(path: Path, pages: list[TiffPage], text: str) -> StackAxes:
    found = (_IMAGEJ.fullmatch(line.strip()) for line in text.splitlines()[:200])
    fields = {match["key"]: match["value"] for match in found if match}
    n_images, n_channels, n_slices, n_frames = (
        _count(path, fields.get(key, default), key)
        for key, default in (("images", "1"), ("channels", "1"), ("slices", ""), ("frames", "1"))
    )
    n_slices = n_slices or n_images // (n_channels * n_frames)
    _check_frames(path, n_frames)
    if n_channels * n_slices != len(pages):
        raise header_error(path, f"declares {n_channels} x {n_slices} images and has {len(pages)} pages")
    unit = mm_per_unit(fields.get("unit", "").strip().lower())
    mm_YX = [unit / n if unit and n > 0 else None for n in pages[0].resolution[::-1]]
    z = _number(fields.get("spacing", ""))
    return StackAxes(
        pages_CZ=tuple(tuple(c + n_channels * z for z in range(n_slices)) for c in range(n_channels)),
        spacing_ZYX=(None if unit is None or z is None else z * unit, mm_YX[0], mm_YX[1]),
        has_unit=unit is not None,
    )


def _ome_axes(path: Path, pages: list[TiffPage], text: str) -> StackAxes:
    if len(text) > _MAX_XML or "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise header_error(path, "has an OME-XML with definitions, or of an impossible length")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as problem:
        raise header_error(path, f"has an OME-XML that cannot be parsed ({problem})") from None
    images = root.findall(".//{*}Image/{*}Pixels")
    if len(images) > 1:
        raise ImageError(
            f"contains {len(images)} images",
            where=path,
            remedy="save each image in a file of its own",
            code="E-IMAGE-FORMAT",
        )
    if not images:
        raise header_error(path, "has an OME-XML without pixels")
    (pixels,) = images
    sizes = {axis: _count(path, pixels.get(f"Size{axis}", "1"), f"Size{axis}") for axis in "XYZCT"}
    _check_frames(path, sizes["T"])
    _check_one_file(path, pixels)
    n_channels = sizes["C"] // pages[0].samples
    n_planes = n_channels * sizes["Z"]
    if n_planes > len(pages) or n_planes < 1 or (pages[0].width, pages[0].height) != (sizes["X"], sizes["Y"]):
        raise header_error(path, f"declares {sizes} in its OME-XML and has {len(pages)} pages")
    pages_CZ = _map_planes(path, pixels, n_channels, sizes["Z"], pages)
    if len({pages[page].layout for row in pages_CZ for page in row}) > 1:
        raise header_error(path, "has pages of different sizes or types")
    mm = {axis: _ome_length(pixels, axis) for axis in "XYZ"}
    return StackAxes(
        pages_CZ=pages_CZ,
        spacing_ZYX=(mm["Z"], mm["Y"], mm["X"]),
        has_unit=any(mm.values()),
    )


def ome_description(array_CZYX: NDArray[Any], spacing_ZYX: Sequence[float] | None) -> str:
    """Return an OME-XML for pages in the order channel, slice (Goldberg et al., Genome Biology 6, R47, 2005).

    Args:
        spacing_ZYX: mm; ``None``: lengths are in pixels.
    """
    n_channels, n_slices, height, width = array_CZYX.shape
    kind = "float" if array_CZYX.dtype.kind == "f" else array_CZYX.dtype.name
    attributes = {"DimensionOrder": "XYZCT", "Type": kind, "SizeX": width, "SizeY": height, "SizeZ": n_slices}
    attributes |= {"SizeC": n_channels, "SizeT": 1, "ID": "Pixels:0"}
    for axis, mm in zip("ZYX", spacing_ZYX or (), strict=False):
        attributes |= {f"PhysicalSize{axis}": repr(float(mm)), f"PhysicalSize{axis}Unit": "mm"}
    root = ElementTree.Element("OME", xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06")
    image = ElementTree.SubElement(root, "Image", ID="Image:0")
    pixels = ElementTree.SubElement(image, "Pixels", {name: str(value) for name, value in attributes.items()})
    for channel in range(n_channels):
        ElementTree.SubElement(pixels, "Channel", ID=f"Channel:0:{channel}", SamplesPerPixel="1")
    ElementTree.SubElement(pixels, "TiffData")
    return '<?xml version="1.0" encoding="UTF-8"?>' + ElementTree.tostring(root, encoding="unicode")


def _check_one_file(path: Path, pixels: ElementTree.Element) -> None:
    """Reject an image whose pages are in several files. The one file may have been renamed."""
    if len({uuid.get("FileName") for uuid in pixels.findall("{*}TiffData/{*}UUID")} - {None}) > 1:
        raise ImageError(
            "is one of several files of an OME-TIFF image",
            where=path,
            remedy="save the whole image in one file",
            code="E-IMAGE-FORMAT",
        )


def _map_planes(
    path: Path, pixels: ElementTree.Element, n_channels: int, n_slices: int, pages: list[TiffPage]
) -> tuple[tuple[int, ...], ...]:
    """Return the page of each slice of each channel, as the ``TiffData`` elements say.

    An element maps ``PlaneCount`` pages from ``IFD`` on to planes from ``FirstC``, ``FirstZ`` on, in the order of the
    dimensions; without a count, one page if it names the first one, else all (OME schema 2016-06, TiffData).
    """
    order = pixels.get("DimensionOrder", "XYZCT")
    planes = [(c, z) for c in range(n_channels) for z in range(n_slices)]
    if order.find("Z") > order.find("C"):
        planes.sort(key=lambda plane: plane[::-1])
    place_of = {plane: place for place, plane in enumerate(planes)}
    page_of: dict[tuple[int, int], int] = {}
    for entry in pixels.findall("{*}TiffData") or [ElementTree.Element("TiffData")]:
        page, channel, z = (_index(path, entry, name) for name in ("IFD", "FirstC", "FirstZ"))
        place = place_of.get((channel // pages[0].samples, z))
        if place is None:
            raise header_error(path, f"maps a page to slice {z} of channel {channel}, which it does not declare")
        default = 1 if entry.get("IFD") else len(planes)
        n_mapped = _index(path, entry, "PlaneCount") if entry.get("PlaneCount") else default
        mapped = planes[place : place + n_mapped]
        if page_of.keys() & mapped or page + len(mapped) > len(pages):
            raise header_error(path, f"maps page {page} of {len(pages)} to planes that have a page, or beyond its end")
        page_of |= {plane: page + number for number, plane in enumerate(mapped)}
    if missing := [plane for plane in planes if plane not in page_of]:
        raise header_error(path, f"has no page for {len(missing)} of {len(planes)} planes")
    return tuple(tuple(page_of[c, z] for z in range(n_slices)) for c in range(n_channels))


def _index(path: Path, entry: ElementTree.Element, name: str) -> int:
    text = entry.get(name, "0").strip()
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise header_error(path, f"has {text[:20]!r} in {name}, which is not the number of a page or plane")
    return int(text)


def _ome_length(pixels: ElementTree.Element, axis: str) -> float | None:
    value = _number(pixels.get(f"PhysicalSize{axis}", ""))
    unit = mm_per_unit(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    return None if value is None or unit is None else value * unit


def _check_frames(path: Path, n_frames: int) -> None:
    if n_frames != 1:
        raise ImageError(
            f"has {n_frames} points in time",
            where=path,
            remedy="save each point in time as an image of its own",
            code="E-IMAGE-FORMAT",
        )


def _count(path: Path, text: str, name: str) -> int:
    if text == "":
        return 0
    if not re.fullmatch(r"[0-9]{1,6}", text.strip()) or int(text) < 1:
        raise header_error(path, f"has {text[:20]!r} in {name}, which is not a number of images")
    return int(text)


def _number(text: str) -> float | None:
    """Return a positive number, or ``None``."""
    if not re.fullmatch(r"[0-9]{0,20}\.?[0-9]{0,20}([eE][+-]?[0-9]{1,3})?", text.strip()) or not text.strip(" ."):
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) and value > 0 else None
