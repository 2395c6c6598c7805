"""Independent readers: what a file says by its format's specification, read without any code of Decathlete.

They decide whether an accepted file was read as it is. They read only what they can be sure of.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPACING_LIMITS_MM = (1e-6, 200.0)
"""Spacings beyond these are damage, in every format that has a unit."""

_MODULE_OF_SUFFIX = {".nii": "nifti", ".gz": "nifti", ".nrrd": "nrrd", ".nhdr": "nrrd", ".mha": "meta_image"}
_MODULE_OF_SUFFIX |= {".mhd": "meta_image", ".dcm": "dicom", "": "dicom"}
_MODULE_OF_SUFFIX |= {".mgh": "mgh", ".mgz": "mgh", **dict.fromkeys((".png", ".bmp", ".jpg", ".tif"), "pictures")}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class MustFailError(Exception):
    """The file contradicts itself or lacks its geometry: no reader may accept it."""


class UnsureError(Exception):
    """This reader does not know what the file means."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What a file holds.

    Attributes:
        array_CZYX: the voxels, scaling applied.
        affines: affines (columns x, y, z; RAS) of which a reader may use any; empty: not known for sure.
    """

    array_CZYX: NDArray[Any]
    affines: tuple[NDArray[np.float64], ...] = ()


def view(path: Path) -> View:
    """Read ``path`` independently.

    Raises:
        MustFailError: the file must not be accepted.
        UnsureError: the reader cannot tell.
    """
    module = import_module(f"{__name__}.{_MODULE_OF_SUFFIX[path.suffix.lower()]}")
    try:
        found: View = module.view(path)
    except (MustFailError, UnsureError):
        raise
    except Exception as problem:
        raise UnsureError(f"{type(problem).__name__}: {problem}") from problem
    return found


def check_spacing(affine: NDArray[np.float64]) -> None:
    """Fail where a spacing is not a plausible length."""
    low, high = SPACING_LIMITS_MM
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and (lengths >= low).all() and (lengths <= high * 1.0001).all()):
        raise MustFailError(f"spacing {lengths} is missing or not plausible")


def lps_affine(columns: NDArray[np.float64], origin: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the RAS affine of voxel steps (columns) and an origin in LPS; the spacing is checked."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = columns, origin
    check_spacing(affine)
    return _LPS_TO_RAS @ affine


def as_array(data: bytes, dtype: np.dtype[Any], shape_slowest_first: tuple[int, ...]) -> NDArray[Any]:
    """Return the voxels; a file that is shorter than its header claims must fail."""
    if any(n <= 0 for n in shape_slowest_first):
        raise MustFailError(f"a size of {shape_slowest_first}")
    need = prod(shape_slowest_first) * dtype.itemsize
    if len(data) < need:
        raise MustFailError(f"{len(data)} bytes where {need} are declared")
    return np.frombuffer(data[:need], dtype).reshape(shape_slowest_first)


def differences(array_CZYX: NDArray[Any], affine: NDArray[np.float64], found: View) -> str:
    """Return how an image that was read differs from the view; empty: not at all."""
    if array_CZYX.shape != found.array_CZYX.shape:
        return f"shape {array_CZYX.shape}, not {found.array_CZYX.shape}"
    with np.errstate(all="ignore"):
        expected = found.array_CZYX.astype(np.float32)
        if not np.allclose(array_CZYX, expected, rtol=1e-4, atol=1e-3, equal_nan=True):
            return "values differ"
    if found.affines and not any(_same(affine, other) for other in found.affines):
        return f"affine {affine[:3].round(4).tolist()}, not {found.affines[0][:3].round(4).tolist()}"
    return ""


def _same(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    scale = max(float(np.abs(other[:3, :3]).max()), 1e-6)
    return bool(np.allclose(one[:3, :3], other[:3, :3], rtol=1e-3, atol=1e-3 * scale)) and bool(
        np.allclose(one[:3, 3], other[:3, 3], rtol=1e-4, atol=1e-2 * scale)
    )
