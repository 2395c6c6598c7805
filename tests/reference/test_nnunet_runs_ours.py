"""Models made here, run by nnU-Net's own command in its own environment: the same segmentations."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from torch.nn import functional

from decathlete import export_nnunet, predict
from decathlete.core.labels import LabelClass, LabelSet, Region
from decathlete.dataset.manifest import read_dataset
from decathlete.inference.options import PredictOptions
from decathlete.io.images import read_channels, read_label
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.normalizations import NORMALIZATIONS
from decathlete.planning.plan import Plan, Resampling
from decathlete.preprocessing.normalizations.ct import CtSettings
from decathlete.preprocessing.prepare import prepare
from decathlete.synthetic.phantoms import make_phantoms
from factories import make_test_plan

LEAST_DICE = 0.999
STEPS = {2: 400, 3: 60}  # a patch each; slices show less

NESTED = LabelSet(
    classes=tuple(LabelClass(name=n, value=v) for v, n in enumerate(("background", "rim", "core"))),
    regions=(Region(name="whole", values=(1, 2)), Region(name="inner", values=(2,))),
    region_order=(1, 2),
)


def network(dims: int, in_channels: int, out_channels: int, **changes: Any) -> UNetSpec:
    kernels = ((1, 3, 3), (3, 3, 3), (3, 3, 3)) if dims == 3 else ((3, 3),) * 3
    strides = ((1, 1, 1), (1, 2, 2), (2, 2, 2)) if dims == 3 else ((1, 1), (2, 2), (2, 2))
    fields: dict[str, Any] = {
        "dims": dims,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "kernels": kernels,
        "strides": strides,
        "features": (6, 12, 16),
        "encoder_convs": (1, 1, 1),
        "decoder_convs": (1, 1),
    }
    return UNetSpec(**(fields | changes))


MASKED = NORMALIZATIONS.settings({"name": "zscore", "nonzero_only": True})
CASES: dict[str, tuple[dict[str, Any], Plan, tuple[int, ...]]] = {
    # what make_phantoms gets, the plan, the axes that are mirrored
    "anisotropic, oblique, two channels": (
        {"shape_ZYX": (14, 44, 40), "spacing_ZYX": (4.5, 1.0, 1.2), "n_channels": 2, "oblique": True},
        make_test_plan(
            3,
            n_channels=2,
            target_spacing=(4.0, 1.4, 1.4),
            patch_size=(8, 24, 24),
            normalization=(MASKED, NORMALIZATIONS.settings("rescale")),
            network=network(3, 2, 3),
        ),
        (1, 2),
    ),
    "isotropic, axes in another order": (
        {"shape_ZYX": (30, 26, 34), "spacing_ZYX": (1.2, 1.0, 0.9)},
        make_test_plan(
            3,
            axis_order=(1, 2, 0),
            target_spacing=(1.1, 1.3, 1.0),
            patch_size=(16, 16, 24),
            normalization=(CtSettings(clip_low=50, clip_high=350, mean=150, std=90),),
            network=network(3, 1, 3, norm="batch", block="residual", negative_slope=0.1),
            resampling=Resampling(image_order=1),
        ),
        (),
    ),
    "regions": (
        {"shape_ZYX": (24, 28, 26), "spacing_ZYX": (1.0, 1.3, 1.1)},
        make_test_plan(
            3,
            labels=NESTED,
            target_spacing=(1.2, 1.2, 1.2),
            patch_size=(16, 16, 16),
            network=network(3, 1, 2),
        ),
        (0, 1, 2),
    ),
    "slices, stored orientation": (
        {"shape_ZYX": (9, 40, 44), "spacing_ZYX": (5.0, 1.0, 1.3), "n_channels": 2, "oblique": True},
        make_test_plan(
            2,
            n_channels=2,
            orientation="stored",
            target_spacing=(None, 1.2, 1.2),
            patch_size=(24, 24),
            network=network(2, 2, 3),
        ),
        (0, 1),
    ),
}


def trained(plan: Plan, root: Path) -> dict[str, torch.Tensor]:
    """A network that has seen the phantoms for some seconds: a random one would be undecided everywhere."""
    net = build_network(plan.network, seed=1).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    cases = [
        prepare(read_channels(c.images), plan, label=read_label(c.label)) for c in read_dataset(root).cases if c.label
    ]
    rng = np.random.default_rng(0)
    for step in range(STEPS[plan.dims]):
        case = cases[step % len(cases)]
        image, label = _patch(case.image_CZYX, case.label_ZYX, plan, rng)
        loss = _loss(net(image)[0], label, plan.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.state_dict()


def _patch(image_CZYX, label_ZYX, plan, rng):
    """At a random place, zeros around it where the image is smaller."""
    patch = (1,) * (3 - plan.dims) + tuple(plan.patch_size)
    pad = [(0, max(p - n, 0)) for p, n in zip(patch, label_ZYX.shape, strict=True)]
    image_CZYX, label_ZYX = np.pad(image_CZYX, [(0, 0), *pad]), np.pad(label_ZYX, pad)
    start = [int(rng.integers(0, n - p + 1)) for p, n in zip(patch, label_ZYX.shape, strict=True)]
    box = tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True))
    image, label = image_CZYX[(slice(None), *box)], label_ZYX[box]
    if plan.dims == 2:
        image, label = image[:, 0], label[0]
    return torch.from_numpy(image.copy())[None], torch.from_numpy(label.astype(np.int64))[None]


def _loss(logits, label, labels):
    if not labels.regions:
        return functional.cross_entropy(logits, label)
    truth = torch.stack([torch.isin(label, torch.tensor(r.values)) for r in labels.regions], dim=1)
    return functional.binary_cross_entropy_with_logits(logits, truth.float())


def run_nnunet(command: str, peers: Path) -> None:
    where = dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), "/nonexistent")
    words = command.split()
    said = subprocess.run(
        [peers.parent / words[0], *words[1:]],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "nnUNet_def_n_proc": "1", **where},
    )
    assert said.returncode == 0, said.stdout[-3000:] + said.stderr[-3000:]


@pytest.mark.full
@pytest.mark.parametrize("name", CASES)
def test_nnunet_segments_as_we_do(tmp_path: Path, peers: Path, name: str) -> None:
    phantom, plan, mirror_axes = CASES[name]
    root = make_phantoms(tmp_path / "raw", n_cases=2, n_test=1, layout="nnunet", **phantom)
    member = TrainedMember(plan=plan, networks=[trained(plan, root)], mirror_axes=mirror_axes)
    model = ModelBundle.save(tmp_path / "model", member).folder
    made = export_nnunet(model, tmp_path / "theirs")
    images = root / "imagesTs"
    for mirrored, end in ((True, ""), (False, " --disable_tta")):
        theirs, ours = tmp_path / f"theirs{mirrored}", tmp_path / f"ours{mirrored}"
        command = made.command.replace("IMAGES", str(images)).replace("OUTPUT", str(theirs))
        run_nnunet(f"{command} -device cpu -npp 1 -nps 1{end}", peers)
        predict(
            model,
            images,
            ours,
            options=PredictOptions(precision="fp32", device="cpu", tta=mirrored and bool(mirror_axes)),
        )
        (path,) = ours.glob("*.nii.gz")
        found, wanted = nibabel.load(path), nibabel.load(theirs / path.name)
        assert np.allclose(found.affine, wanted.affine, atol=1e-4)
        a, b = np.asarray(found.dataobj), np.asarray(wanted.dataobj)
        assert sorted(np.unique(b)) == [0, 1, 2]  # something was learned
        for value in (1, 2):
            dice = 2 * ((a == value) & (b == value)).sum() / ((a == value).sum() + (b == value).sum())
            assert dice >= LEAST_DICE, f"{name}, class {value}, flips {mirrored}: {dice:.5f}"
