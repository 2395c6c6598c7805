"""Draws pictures of a case for a report: image, label and prediction, with the physical aspect ratio.

Pictures follow the radiological convention: the patient's right is on the left of the picture. Letters at the edges
give the direction: R right, L left, A anterior, P posterior, S superior, I inferior. Pictures (PNG, TIFF, ...) have
no such directions: they are shown as they are stored, those with three channels in colour.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from decathlete.core.geometry import Triple, reorientation
from decathlete.core.labels import LabelSet
from decathlete.core.registry import ComponentSettings
from decathlete.dataset.spec import Case
from decathlete.errors import ImageError
from decathlete.evaluation.overlap import joint_box
from decathlete.io.format_lookup import is_picture
from decathlete.io.images import read_channels, read_label
from decathlete.planning.normalizations import NORMALIZATIONS
from decathlete.planning.plan import Plan

Array = NDArray[np.generic]
Kind = Literal["image", "label", "prediction"]
KINDS: tuple[Kind, ...] = ("image", "label", "prediction")

COARSE_RATIO = 2.5
MIN_WINDOW_MM = 80.0
MAX_EDGE_PX = 360

# Axis perpendicular to the slice -> name of the plane, and letters at the left, right, top and bottom of the picture.
_PLANES = {0: ("axial", "RLAP"), 1: ("coronal", "RLSI"), 2: ("sagittal", "APSI")}
_STORED = {0: ("slice", ""), 1: ("row", ""), 2: ("column", "")}
N_COLOURS = 3


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One picture.

    Attributes:
        png: PNG file, base64.
        letters: letters at the left, right, top and bottom edge; empty if these directions are unknown.
        alt: alternative text.
    """

    png: str
    letters: str
    alt: str


@dataclass(frozen=True, kw_only=True)
class View:
    """One slice in three pictures: image, label, and prediction with the outline of the label.

    Attributes:
        title: plane and number of the slice; empty for a picture.
        ratio: physical width / height.
        tiles: the pictures.
    """

    title: str
    ratio: float
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, kw_only=True)
class _Volumes:
    """Volumes in canonical orientation (without one: as stored), cropped to the window around the structures.

    Attributes:
        image: (z, y, x), or (z, y, x, 3) with colours.
        is_oriented: whether the directions of the axes are known.
    """

    image: NDArray[np.float32]
    label: Array
    prediction: Array
    spacing: Triple
    start: tuple[int, ...]
    is_oriented: bool

    @property
    def is_single_picture(self) -> bool:
        """Whether there is one slice, which needs no name."""
        return not self.is_oriented and len(self.label) == 1


@dataclass(frozen=True, kw_only=True)
class _Slice:
    image: Array
    label: Array
    prediction: Array
    aspect: float


def shown_channels(case: Case, plan: Plan) -> tuple[str, ...]:
    """Return the names of the channels that are shown: the first, or all three of a picture with colours."""
    is_colour = is_picture(case.images[0]) and len(plan.channels) == N_COLOURS
    return plan.channels if is_colour else plan.channels[:1]


def make_case_views(case: Case, prediction: Path, plan: Plan, colours: list[str]) -> list[View]:
    """Draw up to three slices of a case at the largest cross-sections of its structures.

    The slices are three orthogonal planes, or, if the voxels are anisotropic, three slices along the coarse axis.

    Args:
        case: raw images and label.
        prediction: predicted label map.
        plan: plan of the model.
        colours: hex colour of each class or region of the plan.

    Raises:
        ImageError: a file cannot be read, or the shapes differ.
    """
    volumes = _read(case, prediction, plan)
    window = _grey_range(volumes.image, plan.normalization[0])
    views = []
    for axis, index in _select_slices(volumes):
        name, letters = (_PLANES if volumes.is_oriented else _STORED)[axis]
        cut = _extract_slice(volumes, axis, index)
        tiles = tuple(
            Tile(
                png=_draw_png(cut, kind, window, plan.labels, colours),
                letters=letters,
                alt=f"{name} slice, {kind}" if volumes.is_oriented else kind,
            )
            for kind in KINDS
        )
        ratio = cut.label.shape[1] / (cut.label.shape[0] * cut.aspect)
        title = "" if volumes.is_single_picture else f"{name} {index + volumes.start[axis] + 1}"
        views.append(View(title=title, ratio=ratio, tiles=tiles))
    return views


def _grey_range(image: NDArray[np.float32], normalization: ComponentSettings) -> tuple[float, float]:
    """Return the intensities of black and white.

    CT: the clip range of the normalisation, extended by half its width on both sides, so that soft tissue has contrast
    between air and bone. Others: the percentiles 0.5 and 99.5.
    """
    if clip_range := NORMALIZATIONS.build(normalization).clip_range:
        margin = 0.5 * (clip_range[1] - clip_range[0])
        low, high = clip_range[0] - margin, clip_range[1] + margin
    else:
        low, high = (float(v) for v in np.percentile(image, (0.5, 99.5)))
    return low, max(high, low + 1e-6)


def _read(case: Case, prediction_path: Path, plan: Plan) -> _Volumes:
    if case.label is None:
        raise ImageError("the case has no label map", where=case.id)
    image = read_channels(case.images, spacing=case.spacing, formats=case.formats, n_channels=len(plan.channels))
    ignore = plan.labels.ignore
    label = read_label(case.label, spacing=case.spacing, formats=case.formats, structures=case.structures)
    prediction = read_label(prediction_path, spacing=case.spacing, formats=case.formats)
    if not image.array_CZYX.shape[1:] == label.array_ZYX.shape == prediction.array_ZYX.shape:
        raise ImageError("image, label and prediction differ in shape", where=case.id)
    truth_ZYX = label.array_ZYX if ignore is None else np.where(label.array_ZYX == ignore, 0, label.array_ZYX)
    axes = reorientation(image.geometry, "canonical")
    label_ZYX, prediction_ZYX = axes.apply(truth_ZYX), axes.apply(prediction.array_ZYX)
    spacing = axes.geometry(image.geometry).spacing_ZYX
    box = _window(label_ZYX, prediction_ZYX, spacing)
    shown = [axes.apply(channel)[box] for channel in image.array_CZYX[: len(shown_channels(case, plan))]]
    return _Volumes(
        image=np.nan_to_num(np.asarray(shown[0] if len(shown) == 1 else np.stack(shown, axis=-1), dtype=np.float32)),
        label=label_ZYX[box],
        prediction=prediction_ZYX[box],
        spacing=spacing,
        start=tuple(s.start for s in box),
        is_oriented=not is_picture(case.images[0]),
    )


def _window(label: Array, prediction: Array, spacing: Triple) -> tuple[slice, slice, slice]:
    """Return the window around the structures: 2.5 times their size, at least 80 mm, within the volume."""
    box = joint_box(label, prediction)
    cuts = []
    for start, stop, n, mm in zip(box.start, box.stop, label.shape, spacing, strict=True):
        length = int(np.ceil(max(2.5 * (stop - start), MIN_WINDOW_MM / mm)))
        low = max((start + stop - length) // 2, 0)
        high = min(low + length, n)
        cuts.append(slice(max(high - length, 0), high))
    return (cuts[0], cuts[1], cuts[2])


def _select_slices(volumes: _Volumes) -> list[tuple[int, int]]:
    """Return the axis and the index of each slice: where the truth is, since errors of a prediction lie anywhere."""
    truth = volumes.label != 0
    shown = truth if truth.any() else volumes.prediction != 0
    coarse = int(np.argmax(volumes.spacing))
    others = max(mm for axis, mm in enumerate(volumes.spacing) if axis != coarse)
    flat = [axis for axis, n in enumerate(shown.shape) if n == 1]
    if flat:
        return [(flat[0], 0)]
    if volumes.spacing[coarse] > COARSE_RATIO * others:
        filled = np.flatnonzero(_areas(shown, coarse)) if shown.any() else np.arange(shown.shape[coarse])
        indices = sorted({int(v) for v in np.quantile(filled, (0.25, 0.5, 0.75), method="nearest")}, reverse=True)
        return [(coarse, index) for index in indices]
    return [(axis, int(np.argmax(_areas(shown, axis)))) for axis in range(3)]


def _areas(mask: NDArray[np.bool_], axis: int) -> NDArray[np.int64]:
    return np.asarray(mask.sum(axis=tuple(a for a in range(3) if a != axis)))


def _extract_slice(volumes: _Volumes, axis: int, index: int) -> _Slice:
    """Extract a slice, flipped so that superior (or anterior) is at the top and right (or anterior) on the left.

    Without known directions, it is not flipped.
    """
    parts: list[Array] = [volumes.image, volumes.label, volumes.prediction]
    step = -1 if volumes.is_oriented else 1
    image, label, prediction = (np.asarray(np.take(a, index, axis=axis))[::step, ::step] for a in parts)
    row_mm, column_mm = (mm for a, mm in enumerate(volumes.spacing) if a != axis)
    return _Slice(image=image, label=label, prediction=prediction, aspect=row_mm / column_mm)


def _draw_png(cut: _Slice, kind: Kind, window: tuple[float, float], labels: LabelSet, colours: list[str]) -> str:
    rows, columns = cut.label.shape
    height, width = rows * cut.aspect, float(columns)
    scale = MAX_EDGE_PX / max(height, width) / 100
    figure = Figure(figsize=(max(width * scale, 0.4), max(height * scale, 0.4)), dpi=100, facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    # Colours have no cmap: they are scaled here.
    shades = np.clip((cut.image.astype(np.float32) - window[0]) / (window[1] - window[0]), 0, 1)
    axes.imshow(shades, cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="bilinear")
    if kind != "image":
        label = cut.label if kind == "label" else cut.prediction
        axes.imshow(_colour_label(label, labels, colours), aspect="auto", interpolation="nearest")
    if kind == "prediction":
        for structure, colour in zip(labels.structures, colours, strict=True):
            mask = np.isin(cut.label, structure.values)
            if mask.any() and min(mask.shape) > 1:
                outline = 0.45 + 0.55 * np.array(to_rgb(colour))
                grid = (np.arange(-1, columns + 1), np.arange(-1, rows + 1))
                axes.contour(*grid, np.pad(mask, 1).astype(float), levels=[0.5], colors=[outline], linewidths=1.5)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 3})  # half the time; a sixth larger
    return base64.b64encode(buffer.getvalue()).decode()


def _colour_label(label: Array, labels: LabelSet, colours: list[str]) -> NDArray[np.float32]:
    """Return RGBA colours of a label slice. Where regions overlap, the last one (usually the innermost) is on top."""
    colour_YXC = np.zeros((*label.shape, 4), np.float32)
    for structure, colour in zip(labels.structures, colours, strict=True):
        colour_YXC[np.isin(label, structure.values)] = (*to_rgb(colour), 0.5)
    return colour_YXC
