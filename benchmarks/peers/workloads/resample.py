"""Resampling one volume, cubic, as training images are: nnU-Net's own function, skimage's and ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workload import Contender, Measured, Work, Workload, timed

Volume = NDArray[np.float32]


def prepare(work: Work, folder: Path) -> None:
    """A made-up volume, smooth with some noise, as scans are; float32."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.standard_normal(work["shape"]), 3)
    volume = 100 * smooth / smooth.std() + 5 * rng.standard_normal(work["shape"])
    np.save(folder / "volume.npy", volume.astype(np.float32))


def ours(work: Work, folder: Path) -> Measured:
    import torch

    from decathlete.preprocessing.resample import resample_image

    shape = tuple(work["new_shape"])
    return _measure(
        work, folder, "ours", lambda v: resample_image(torch.from_numpy(v)[None], shape, order=3)[0].numpy()
    )


def skimage(work: Work, folder: Path) -> Measured:
    from skimage.transform import resize

    def run(volume: Volume) -> Volume:
        out: Volume = resize(volume, work["new_shape"], order=3, mode="edge", anti_aliasing=False, clip=True)
        return out

    return _measure(work, folder, "skimage", run)


def nnunet(work: Work, folder: Path) -> Measured:
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    def run(volume: Volume) -> Volume:
        spacing = (1.0, 1.0, 1.0)  # isotropic: no axis is treated apart
        out: Volume = resample_data_or_seg_to_shape(volume[None], work["new_shape"], spacing, spacing, order=3)[0]
        return out

    return _measure(work, folder, "nnunet", run)


def monai(work: Work, folder: Path) -> Measured:
    """MONAI's resize knows linear interpolation at best in 3D (``trilinear``): less work than the others do."""
    import torch
    from monai.transforms import Resize

    resize = Resize(spatial_size=work["new_shape"], mode="trilinear", align_corners=False)
    return _measure(work, folder, "monai", lambda volume: resize(torch.from_numpy(volume)[None])[0].numpy())


def _measure(work: Work, folder: Path, name: str, run: Callable[[Volume], Volume]) -> Measured:
    volume = np.load(folder / "volume.npy")
    seconds = timed(lambda: run(volume), repeats=work["repeats"])
    np.save(folder / f"{name}.npy", run(volume))
    return Measured(amounts=seconds)


def compare(work: Work, folder: Path) -> list[str]:
    """Greatest difference to skimage's, as a share of the volume's range."""
    truth = folder / "skimage.npy"
    if not truth.is_file():
        return []
    span = float(np.ptp(np.load(folder / "volume.npy")))
    found = []
    for name in ("ours", "nnunet", "monai"):
        if (folder / f"{name}.npy").is_file():
            worst = float(np.abs(np.load(folder / f"{name}.npy") - np.load(truth)).max()) / span
            found.append(f"greatest difference of {name} to skimage: {worst:.1e} of the value range")
    return found


WORKLOAD = Workload(
    name="resample",
    title="Resampling one volume, cubic",
    unit="s",
    lower_is_better=True,
    sizes={
        "small": {"shape": (24, 32, 28), "new_shape": (30, 26, 40), "repeats": 2},
        "full": {"shape": (128, 256, 256), "new_shape": (160, 200, 200), "repeats": 3},
    },
    contenders=(
        Contender(name="ours", environment="ours", run=ours),
        Contender(name="skimage", environment="peers", run=skimage),
        Contender(name="nnunet", environment="peers", run=nnunet),
        Contender(name="monai (linear)", environment="peers", run=monai),
    ),
    prepare=prepare,
    compare=compare,
)
